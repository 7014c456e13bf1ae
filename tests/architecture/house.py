"""Umbel's source as syntax trees, and the layer table of the design note, for the tests in this folder to judge.

Nothing here is a rule: rules stand in the test modules, each beside a synthetic piece of code that breaks it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
NOTE = ROOT / "docs" / "design" / "0001-the-house.md"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, whether it is a package's ``__init__``, its text and its tree."""

    name: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The row of the layer table that the module belongs to: ``records`` for ``umbel.records._array``."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def is_private(self) -> bool:
        return any(part.startswith("_") for part in self.name.split("."))


@dataclass(frozen=True)
class Import:
    """One imported thing: ``from a.b import c`` is (``a.b``, ``c``), ``import a.b`` is (``a.b``, ``""``)."""

    source: str
    name: str
    line: int
    inside: str  # the function that holds the statement, or ""

    @property
    def full(self) -> str:
        return f"{self.source}.{self.name}" if self.name else self.source

    @property
    def root(self) -> str:
        return self.source.split(".")[0]

    @property
    def is_ours(self) -> bool:
        return self.root == "umbel"


def module(path: str, text: str) -> Module:
    """Make a module from a path below ``src`` and its text."""
    parts = path.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    return Module(".".join(parts[: len(parts) - is_package]), is_package, text, ast.parse(text))


def house(files: Mapping[str, str]) -> list[Module]:
    """Make a whole synthetic source tree."""
    return [module(path, text) for path, text in files.items()]


@cache
def umbel() -> tuple[Module, ...]:
    """The real source tree."""
    paths = sorted((SRC / "umbel").rglob("*.py"))
    return tuple(module(path.relative_to(SRC).as_posix(), path.read_text()) for path in paths)


def imports(mod: Module) -> list[Import]:
    """Every import of a module, wherever it stands, relative ones resolved."""
    found: list[Import] = []
    for node, inside in _walk(mod.tree, ""):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", node.lineno, inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(mod, node)
            found += [Import(source, alias.name, node.lineno, inside) for alias in node.names]
    return found


def _walk(node: ast.AST, inside: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        yield child, inside
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _walk(child, child.name if is_function else inside)  # type: ignore[attr-defined]


def _absolute(mod: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = mod.name.split(".")
    base = parts[: len(parts) - node.level + mod.is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def functions(mod: Module) -> list[Function]:
    """Every function and method of a module."""
    return [node for node in ast.walk(mod.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def classes(mod: Module) -> list[ast.ClassDef]:
    """Every class of a module."""
    return [node for node in ast.walk(mod.tree) if isinstance(node, ast.ClassDef)]


def dotted(node: ast.AST) -> str:
    """The name that an expression spells (``os.environ``, ``list`` for ``list[int]``), or ``""``."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            base = dotted(value)
            return f"{base}.{attr}" if base else ""
        case ast.Subscript(value=value) | ast.Call(func=value):
            return dotted(value)
    return ""


def exported(mod: Module) -> list[str] | None:
    """The names in ``__all__``, or None if the module has none that is a plain list."""
    for node in mod.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        if [dotted(target) for target in targets] == ["__all__"]:
            value: object = ast.literal_eval(getattr(node, "value", node))
            return [str(name) for name in value] if isinstance(value, list | tuple) else None
    return None


def bound(mod: Module) -> dict[str, str]:
    """The names that a module's own statements bind, with where they come from: ``""`` if they are made here."""
    names: dict[str, str] = {}
    for node in _statements(mod.tree.body):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = ""
            case ast.Assign(targets=targets):
                names |= {leaf.id: "" for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = ""
            case ast.ImportFrom():
                source = _absolute(mod, node)
                names |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
            case ast.Import():
                names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
    return names


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under `if TYPE_CHECKING:` (lazy names) as if they stood outside."""
    for node in body:
        if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING":
            yield from node.body
        else:
            yield node


# The design note.


def table(heading: str, text: str) -> list[list[str]]:
    """The body rows of the first table under a heading of a Markdown text."""
    after = text.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(after) if line.startswith("|"))
    rows = list(takewhile(lambda line: line.startswith("|"), after[start:]))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def quoted(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@cache
def layers() -> Mapping[str, int]:
    """The layer of each part of the house, as the design note draws it."""
    return {
        name.removesuffix(".py").strip("/"): int(layer)
        for layer, parts, _ in table("## Layers", NOTE.read_text())
        for name in quoted(parts)
    }
