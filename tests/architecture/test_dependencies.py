"""docs/design/dependencies.md gives the reason for every dependency, and for none that is not there."""

import re
import tomllib
from typing import Any

from house import ROOT, quoted, table

NOTE = ROOT / "docs" / "design" / "dependencies.md"


def declared(project: dict[str, Any]) -> dict[str, set[str]]:
    """The names that the metadata ask for, by extra; the core has none."""
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {group: {re.split(r"[<>=!~; ]", need)[0] for need in needs} for group, needs in groups.items()}


def explained(text: str) -> dict[str, set[str]]:
    """The names that a note explains, by extra."""
    found: dict[str, set[str]] = {}
    for group, name, reason in table("## What is installed", text):
        if len(reason.split()) > 3:
            found.setdefault(group.strip("`"), set()).update(quoted(name))
    return found


def test_each_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert explained(NOTE.read_text()) == declared(project)


def test_a_line_without_a_reason_does_not_count():
    rows = ["| a | b | c |", "|---|---|---|", "| core | `x` | does the maths we need |", "| core | `y` | yes |"]
    text = "\n".join(["", "## What is installed", "", *rows])
    assert explained(text) == {"core": {"x"}}


def test_reads_names_with_extras_and_bounds():
    project = {"dependencies": ["a>=1", "b"], "optional-dependencies": {"s": ["c[x]>=2; python_version < '4'"]}}
    assert declared(project) == {"core": {"a", "b"}, "s": {"c[x]"}}
