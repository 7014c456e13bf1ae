"""How long functions and files may be, and how many parameters a constructor may take."""

import ast
from collections.abc import Iterable
from statistics import median

from house import ROOT, Function, Module, classes, dotted, functions, house, umbel

MEDIAN_BODY = 8
LONG_BODY = 50
LONG_BODIES = 0.015  # of all
FILE_LINES = 400
PARAMETERS = 7

# Frozen values of more fields, each with the reason; nobody writes their constructor calls by position.
WIDE = {
    "umbel.http._table.Endpoint": "one row of the table of endpoints; made in the table alone, by name",
    "umbel.http._settings.Settings": "how a server listens; each field has a default and is read by name",
    "umbel.http._settings.Limits": "one field a quota; each has a default and is read by name",
    "umbel.message.Metadata": "the nine fields of the kept API, all of them needed to route a message",
    "umbel.aggregation._aggregator.Aggregator": "a rule and what it asks of a round; made by functions, read by name",
    "umbel.optimizers._optimizer.Optimizer": "an algorithm and what it asks; made by functions, read by name",
    "umbel.strategy._strategy.Strategy": "the parts of the product; made by `strategy(...)`, where each has a default",
    "umbel.history.RoundReport": "one row of the history; made by the loop, read by name",
    "umbel.server._settings.Settings": "what an operator can tell a server; made from a command line, read by name",
    "umbel.cli._settings.Settings": "one field for each key of [tool.umbel]; made from a file, read by name",
    "umbel.cli._start.Start": "what a node was started with, as JSON in its folder; one field an option, read by name",
    "umbel.store.members.Member": "a row of the table of members; made by the ledger, read by name",
    "umbel.store.runs.Run": "a row of the table of runs; made by the ledger, read by name",
    "umbel.store.messages.Open": "a row of the table of messages; made by the ledger, read by name",
    "umbel.store.messages.Question": "a row of `umbel runs show`; made by the ledger, read by name",
    "umbel.store.replies.Reply": "what a node says in one answer; made where it is decoded, by name",
    "umbel.node._settings.Settings": "one field for each thing a node is told; made by the command line, read by name",
    "umbel.node._jobs.Job": "a message and all that its context needs, as one line of JSON; made once, read by name",
    "umbel.node._status.Status": "one field for each thing that is shown; made once, changed by name",
}


def body_lines(function: Function) -> int:
    """Lines of a function's body, its docstring left out, inner comments and blank lines counted."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def bodies(modules: Iterable[Module]) -> dict[str, int]:
    """The length of every function, by module, name and line."""
    return {
        f"{mod.name}.{function.name}:{function.lineno}": body_lines(function)
        for mod in modules
        for function in functions(mod)
    }


def over_budget(lengths: dict[str, int]) -> list[str]:
    """What breaks the budget: a median too high, or the names of long functions when they are too many."""
    found = []
    if lengths and median(lengths.values()) > MEDIAN_BODY:
        found.append(f"the median body has {median(lengths.values())} lines")
    long = [f"{name} has {length} lines" for name, length in lengths.items() if length > LONG_BODY]
    return found + (long if len(long) > LONG_BODIES * len(lengths) else [])


def wide(modules: Iterable[Module]) -> dict[str, int]:
    """Classes whose constructor takes more than seven parameters, with the number."""
    found = {f"{mod.name}.{cls.name}": _parameters(cls) for mod in modules for cls in classes(mod)}
    return {name: count for name, count in found.items() if count > PARAMETERS}


def _parameters(cls: ast.ClassDef) -> int:
    """Parameters of an ``__init__`` or ``__new__`` that is written, or fields of one that is generated."""
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__new__"):
            arguments = node.args
            return len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
    return sum(isinstance(node, ast.AnnAssign) and _is_parameter(node) for node in cls.body) if _is_record(cls) else 0


def _is_record(cls: ast.ClassDef) -> bool:
    names = [dotted(node).split(".")[-1] for node in (*cls.decorator_list, *cls.bases)]
    return any(name in ("dataclass", "NamedTuple", "Struct") for name in names)


def _is_parameter(node: ast.AnnAssign) -> bool:
    if dotted(node.annotation).endswith("ClassVar"):
        return False
    keywords = node.value.keywords if isinstance(node.value, ast.Call) else []
    return not any(k.arg == "init" and isinstance(k.value, ast.Constant) and k.value.value is False for k in keywords)


def _long_files() -> list[str]:
    folders = ("src", "tests", "benchmarks", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > FILE_LINES]


def test_functions_are_short():
    assert over_budget(bodies(umbel())) == []


def test_files_are_short():
    assert _long_files() == []


def test_constructors_are_narrow():
    assert {name: count for name, count in wide(umbel()).items() if name not in WIDE} == {}


def test_wide_constructors_are_still_there():
    assert sorted(WIDE.keys() - wide(umbel()).keys()) == []


def _function(lines: int) -> str:
    return f'def f{lines}():\n    """Doc.\n\n    More.\n    """\n' + "    x = 1\n" * lines


def test_counts_a_body():
    assert list(bodies(house({"umbel/a.py": _function(3)})).values()) == [3]


def test_finds_a_median_too_high():
    assert over_budget(bodies(house({"umbel/a.py": _function(9)}))) == ["the median body has 9 lines"]


def test_finds_too_many_long_functions():
    mixed = house({"umbel/a.py": "def g(): ...\n" * 70 + _function(51)})
    assert over_budget(bodies(mixed)) == []
    mixed = house({"umbel/a.py": "def g(): ...\n" * 60, "umbel/b.py": _function(51)})
    assert len(over_budget(bodies(mixed))) == 1


def test_finds_a_wide_constructor():
    fields = "".join(f"    f{number}: int\n" for number in range(8))
    written = "class A:\n    def __init__(self, a, b, c, d, *, e, f, g, h): ..."
    modules = house({"umbel/a.py": written, "umbel/b.py": f"@dataclass(frozen=True)\nclass B:\n{fields}"})
    assert wide(modules) == {"umbel.a.A": 8, "umbel.b.B": 8}
    hidden = f"@dataclass\nclass C:\n{fields}".replace("f0: int", "f0: ClassVar[int]")
    assert wide(house({"umbel/c.py": hidden})) == {}
