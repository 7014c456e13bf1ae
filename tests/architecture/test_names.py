"""Names of files and folders, and what each public module offers."""

import importlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import pytest

from house import NOTE, ROOT, Module, bound, exported, house, quoted, table, umbel
from umbel import errors

BANNED = {"common", "core", "util", "utils", "helper", "helpers", "constant", "constants", "type", "types", "misc"}
LEVELS = 2
MODULES_PER_FOLDER = 3


def banned_names(paths: Iterable[str]) -> list[str]:
    """Paths with a file or folder that says nothing about what it holds."""
    return [path for path in paths if any(_word(part) in BANNED for part in path.split("/"))]


def _word(part: str) -> str:
    return part.split(".", maxsplit=1)[0].strip("_").lower()


def too_deep(modules: Iterable[Module]) -> list[str]:
    """Modules under more than two folders."""
    return [mod.name for mod in modules if mod.name.count(".") + mod.is_package > LEVELS]


def too_small(modules: Iterable[Module]) -> list[str]:
    """Folders with so few modules that one file would do."""
    modules = list(modules)
    packages = [mod.name for mod in modules if mod.is_package]
    children = [mod.name.rpartition(".")[0] for mod in modules]
    return [name for name in packages if children.count(name) < MODULES_PER_FOLDER]


def wrong_all(modules: Iterable[Module]) -> list[str]:
    """Public modules whose ``__all__`` is not exactly their public names, and private modules that have one."""
    return [problem for mod in modules if (problem := _wrong_all(mod))]


def _wrong_all(mod: Module) -> str:
    names = exported(mod)
    if mod.is_private:
        return "" if names is None else f"{mod.name} is private and has an __all__"
    if names is None:
        return f"{mod.name} is public and has no __all__"
    public = _public(mod)
    if set(names) != public or len(names) != len(set(names)):
        return f"{mod.name}.__all__ and its public names differ in {sorted(set(names) ^ public)}"
    return ""


def _public(mod: Module) -> set[str]:
    """Names without underscore that are made here, or brought into a package's ``__init__`` from its own modules."""
    return {
        name
        for name, origin in bound(mod).items()
        if not name.startswith("_") and (not origin or (mod.is_package and origin.startswith(mod.name + ".")))
    }


def exported_twice(modules: Iterable[Module]) -> list[str]:
    """Things offered by more than one public module, and names of one thing offered under two."""
    homes: dict[str, list[str]] = {}
    for mod in modules:
        origins = bound(mod)
        for name in exported(mod) or [] if not mod.is_private else []:
            homes.setdefault(origins.get(name) or f"{mod.name}.{name}", []).append(f"{mod.name}.{name}")
    return [f"{origin} is offered as {' and '.join(names)}" for origin, names in homes.items() if len(names) > 1]


def off_the_table(rows: Mapping[str, set[str]], offered: Mapping[str, set[str]]) -> list[str]:
    """Differences between the table of public names and the modules."""
    found = [f"{name} has no row" for name in sorted(offered.keys() - rows.keys())]
    found += [f"{name} is in the table only" for name in sorted(rows.keys() - offered.keys())]
    for name in sorted(rows.keys() & offered.keys()):
        if rows[name] != offered[name]:
            found.append(f"{name}: the table and the module differ in {sorted(rows[name] ^ offered[name])}")
    return found


def _rows() -> dict[str, set[str]]:
    """The table of public names; a row says its names, and the row of errors that another test compares their tree."""
    rows = {"umbel.errors": set(errors.__all__)}
    for source, names in table("## Public names", NOTE.read_text()):
        if names == "the error tree":
            continue
        assert not re.sub(r"`[^`]+`|,|\s", "", names), f"the row of {source} has words besides names: {names}"
        rows[source.strip("`")] = set(quoted(names))
    return rows


def _offered(modules: Iterable[Module]) -> dict[str, set[str]]:
    """What each public module offers; a folder that only holds public modules offers nothing itself."""
    return {mod.name: set(exported(mod) or []) for mod in modules if not mod.is_private and exported(mod) != []}


def _paths() -> list[str]:
    folders = ("src", "tests", "benchmarks", "examples", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [str(PurePosixPath(path.relative_to(ROOT))) for path in files]


def test_no_banned_name():
    assert banned_names(_paths()) == []


def test_no_folder_too_deep():
    assert too_deep(umbel()) == []


def test_no_folder_too_small():
    assert too_small(umbel()) == []


def test_all_is_the_public_names():
    assert wrong_all(umbel()) == []


def test_each_public_name_is_exported_once():
    assert exported_twice(umbel()) == []


def test_the_table_of_public_names_is_true():
    assert off_the_table(_rows(), _offered(umbel())) == []


@pytest.mark.parametrize("name", sorted(_offered(umbel())))
def test_public_names_resolve(name):
    try:
        mod = importlib.import_module(name)
    except errors.MissingExtra as missing:
        pytest.skip(f"{name} needs an optional dependency: {missing}")
    assert [public for public in mod.__all__ if not hasattr(mod, public)] == []


def test_finds_a_banned_name():
    assert banned_names(["src/umbel/_utils.py", "src/umbel/core/a.py", "src/umbel/typesafe.py"]) == [
        "src/umbel/_utils.py",
        "src/umbel/core/a.py",
    ]


def test_finds_a_folder_too_deep_or_too_small():
    files = {f"umbel/a/{name}.py": "" for name in ("__init__", "x", "y", "z")}
    assert too_small(house(files)) == []
    files |= {"umbel/a/b/__init__.py": "", "umbel/a/b/x.py": ""}
    assert too_small(house(files)) == ["umbel.a.b"]
    assert too_deep(house(files)) == ["umbel.a.b", "umbel.a.b.x"]


def test_finds_a_wrong_all():
    bad = house(
        {
            "umbel/missing.py": "A = 1",
            "umbel/more.py": "__all__ = ['A', 'B']\nfrom typing import Any\nA = 1",
            "umbel/less.py": "__all__ = []\ndef f(): ...",
            "umbel/_private.py": "__all__ = []",
            "umbel/p/__init__.py": "__all__ = ['A']\nfrom umbel.p._a import A, B",
        }
    )
    assert wrong_all(bad) == [
        "umbel.missing is public and has no __all__",
        "umbel.more.__all__ and its public names differ in ['B']",
        "umbel.less.__all__ and its public names differ in ['f']",
        "umbel._private is private and has an __all__",
        "umbel.p.__all__ and its public names differ in ['B']",
    ]
    assert wrong_all(house({"umbel/ok.py": "__all__ = ['A']\nimport os\n_b = 2\nA: int = 1"})) == []


def test_finds_a_name_exported_twice():
    bad = {
        "umbel/a/__init__.py": "__all__ = ['A']\nfrom umbel.a.one import A",
        "umbel/a/one.py": "__all__ = ['A']\nclass A: ...",
    }
    assert exported_twice(house(bad)) == ["umbel.a.one.A is offered as umbel.a.A and umbel.a.one.A"]


def test_finds_a_table_that_is_not_true():
    rows = {"umbel.a": {"x"}, "umbel.b": {"y"}}
    assert off_the_table(rows, {"umbel.a": {"z"}, "umbel.c": set()}) == [
        "umbel.c has no row",
        "umbel.b is in the table only",
        "umbel.a: the table and the module differ in ['x', 'z']",
    ]
