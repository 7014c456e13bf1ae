"""What a module may not import or call, by the place where it stands."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable

import pytest

from house import ROOT, Module, classes, dotted, house, imports, layers, umbel

Allowed = Callable[[Module], bool]


def _nowhere(_: Module) -> bool:
    return False


def _in(*parts: str) -> Allowed:
    return lambda mod: mod.part in parts


def _from_layer(level: int) -> Allowed:
    return lambda mod: layers().get(mod.part, level) >= level


def _or_module(name: str, allowed: Allowed) -> Allowed:
    return lambda mod: mod.name == name or allowed(mod)


PURE = 3  # up to this layer: values and functions of values
LOGGING = 6

# A name that is imported or called, and where that is allowed. `random.*` stands for all that begins so.
RULES: dict[str, Allowed] = {
    **dict.fromkeys(
        ("pickle.*", "cPickle.*", "cloudpickle.*", "dill.*", "marshal.*", "shelve.*", "joblib.*"), _nowhere
    ),
    **dict.fromkeys(("eval", "exec", "builtins.eval", "builtins.exec", "os.system"), _nowhere),
    # Engines name an app of this machine's user to processes of this machine; no name comes in from elsewhere.
    "importlib.import_module": _or_module("umbel.engines._reference", _in("cli", "node")),
    **dict.fromkeys(("__import__", "runpy.*", "pkgutil.*"), _in("cli", "node")),
    **dict.fromkeys(("print", "input", "sys.stdout.*", "sys.stderr.*"), _in("cli")),
    **dict.fromkeys(("os.environ.*", "os.getenv", "os.putenv", "os.environb.*"), _in("cli")),
    "logging.*": _from_layer(LOGGING),
    **dict.fromkeys(("torch.*", "jax.*", "safetensors.*", "flwr.*", "tensorflow.*", "xgboost.*"), _in("interop")),
    "ray.*": _or_module("umbel.engines._ray", _nowhere),
}
# Layers that are functions of their arguments may not look at a clock, a disk, a network or dice of their own.
PURE_PARTS = ("strategy", "privacy", "secagg", "aggregation", "optimizers", "gate", "drift", "personal", "queries")
IMPURE = (
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "socket",
    "sqlite3",
    "pathlib",
    "os",
    "tempfile",
    "threading",
)

FOUNDATION = {"numpy", "ml_dtypes", "blake3", "msgspec"}  # all that layer 0 may import


def breaches(modules: Iterable[Module], rules: dict[str, Allowed]) -> list[str]:
    """Uses of a banned name, called, read or imported under any alias."""
    found = []
    for mod in modules:
        banned = {name for name, allowed in rules.items() if not allowed(mod)}
        used = {(line, name) for line, name in _uses(mod) if any(_matches(name, rule) for rule in banned)}
        found += [f"{mod.name}:{line} uses {name}" for line, name in sorted(used)]
    return found


def _matches(name: str, rule: str) -> bool:
    stem = rule.removesuffix(".*")
    return name == stem or (rule.endswith(".*") and name.startswith(stem + "."))


def _uses(mod: Module) -> list[tuple[int, str]]:
    """Names that a module imports, calls or reads, spelled in full whatever they were imported as."""
    aliases: dict[str, str] = {}
    found = [(target.line, target.full) for target in imports(mod)]
    for node in ast.walk(mod.tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(mod.tree):
        if isinstance(node, ast.Attribute | ast.Name):
            head, _, rest = dotted(node).partition(".")
            full = aliases.get(head, head) + (f".{rest}" if rest else "")
            found.append((node.lineno, full))
    return found


def impure(modules: Iterable[Module]) -> list[str]:
    """Imports by which a part that must be pure could reach the world."""
    return breaches([mod for mod in modules if mod.part in PURE_PARTS], {f"{name}.*": _nowhere for name in IMPURE})


def foreign(modules: Iterable[Module], declared: set[str]) -> list[str]:
    """Imports of packages that the metadata do not declare, or that layer 0 may not have."""
    found = []
    for mod in modules:
        allowed = FOUNDATION if layers().get(mod.part) == 0 else declared
        allowed = allowed | sys.stdlib_module_names | {"umbel"}
        strange = [target for target in imports(mod) if target.root not in allowed]
        found += [f"{mod.name}:{target.line} imports {target.root}" for target in strange]
    return found


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        name: needs for name, needs in project["optional-dependencies"].items() if name not in ("dev", "docs", "fuzz")
    }
    needs = [*project["dependencies"], *(need for extra in extras.values() for need in extra)]
    names = {re.split(r"[\[<>=!~ ;]", need)[0].lower() for need in needs}
    return {name.replace("-", "_") for name in names}


def inheriting(modules: Iterable[Module]) -> list[str]:
    """Classes of strategy/ that inherit from a class of ours: strategies are composed, not derived."""
    found = []
    for mod in (mod for mod in modules if mod.part == "strategy"):
        ours = {target.name for target in imports(mod) if target.is_ours} | {cls.name for cls in classes(mod)}
        for cls in classes(mod):
            bases = [name for base in cls.bases if (name := dotted(base)).split(".")[0] in ours or "umbel" in name]
            found += [f"{mod.name}.{cls.name} inherits from {name}" for name in bases]
    return found


def test_no_banned_import_or_call():
    assert breaches(umbel(), RULES) == []


def test_pure_layers_are_pure():
    assert impure(umbel()) == []


def test_only_declared_packages_are_imported():
    assert foreign(umbel(), _declared()) == []


def test_strategies_inherit_from_nothing_of_ours():
    assert inheriting(umbel()) == []


@pytest.mark.parametrize(
    ("path", "text", "use"),
    [
        ("umbel/records/_a.py", "import pickle", "1 uses pickle"),
        ("umbel/cli/a.py", "from pickle import loads", "1 uses pickle.loads"),
        ("umbel/message.py", "def f():\n    import marshal as m", "2 uses marshal"),
        ("umbel/message.py", "import importlib as i\ni.import_module('x')", "2 uses importlib.import_module"),
        ("umbel/message.py", "eval('1')", "1 uses eval"),
        ("umbel/message.py", "f = exec", "1 uses exec"),
        ("umbel/message.py", "print('x')", "1 uses print"),
        ("umbel/message.py", "import os\nos.environ['X']", "2 uses os.environ"),
        ("umbel/message.py", "import os\nos.environ.get('X')", "2 uses os.environ"),
        ("umbel/message.py", "from os import environ", "1 uses os.environ"),
        ("umbel/message.py", "import sys\nsys.stderr.write('x')", "2 uses sys.stderr"),
        ("umbel/rounds/_a.py", "import logging", "1 uses logging"),
        ("umbel/records/_a.py", "import torch.nn", "1 uses torch.nn"),
        ("umbel/engines/_named.py", "import ray", "1 uses ray"),
        ("umbel/engines/_named.py", "from importlib import import_module", "1 uses importlib.import_module"),
        ("umbel/cli/a.py", "def f():\n    from safetensors.numpy import load", "2 uses safetensors.numpy.load"),
    ],
)
def test_finds_a_banned_use(path, text, use):
    found = breaches(house({path: text}), RULES)
    assert any(problem.endswith(f":{use}") for problem in found), found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("umbel/cli/a.py", "import os, importlib\nprint(os.environ)\nimportlib.import_module('x')"),
        ("umbel/interop/torch.py", "import torch"),
        ("umbel/engines/_ray.py", "def f():\n    import ray"),
        ("umbel/interop/torch.py", "from umbel.interop.torch import a"),
        ("umbel/message.py", "self.print = 1\nre.evaluate()"),
        ("umbel/_simulation.py", "import logging"),
    ],
)
def test_lets_an_allowed_use_pass(path, text):
    assert breaches(house({path: text}), RULES) == []


def test_finds_an_impure_import():
    bad = house({"umbel/strategy/_a.py": "from time import monotonic", "umbel/message.py": "import time"})
    assert impure(bad) == ["umbel.strategy._a:1 uses time.monotonic"]


def test_finds_a_foreign_package():
    bad = house({"umbel/records/_a.py": "import numpy, aiohttp", "umbel/message.py": "import aiohttp, boto3"})
    assert foreign(bad, {"numpy", "aiohttp"}) == ["umbel.records._a:1 imports aiohttp", "umbel.message:1 imports boto3"]


def test_finds_a_derived_strategy():
    text = "from umbel.gate import Gate\nclass A(Gate): ...\nclass B(A): ...\nclass C(NamedTuple): ..."
    assert inheriting(house({"umbel/strategy/_a.py": text})) == [
        "umbel.strategy._a.A inherits from Gate",
        "umbel.strategy._a.B inherits from A",
    ]
