"""Every promise of the documentation names tests that are there."""

import ast
import re

from house import ROOT

PAGE = ROOT / "docs" / "promises.md"
_PROOF = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def missing(text: str) -> list[str]:
    """The proofs that a text names and nobody has written."""
    return [f"{file}::{name}" for file, name in _PROOF.findall(text) if name not in _tests(file)]


def _tests(file: str) -> set[str]:
    path = ROOT / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_proof_is_there():
    assert missing(PAGE.read_text()) == []


def test_every_promise_has_a_proof():
    titles, sections = (
        re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE),
        re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE),
    )
    assert [title.split(".")[0] for title in titles] == [str(number) for number in range(1, 10)]
    assert [section.split("\n")[0] for section in sections[1:] if not _PROOF.search(section)] == []


def test_finds_a_proof_that_is_not_there():
    here = "tests/architecture/test_promises.py"
    text = f"`{here}::test_every_proof_is_there` `{here}::test_no_such` `tests/no_file.py::test_x`"
    assert missing(text) == [f"{here}::test_no_such", "tests/no_file.py::test_x"]
