"""What the tracked files may not say: paths of one machine, hosts that differ from place to place."""

import re
import subprocess
from collections.abc import Mapping

from house import ROOT

# The first letter of each stands in brackets, so that this file passes its own test.
FORBIDDEN = {
    "a path of one machine": "/[r]oot/|/[h]ome/|/[w]ork/|/[t]mp/|/[U]sers/",
    "a package registry's host": r"[p]ypi\.org|[f]iles\.pythonhosted\.org|[n]pmjs\.org|[d]eb\.debian\.org",
    "a mark of unfinished work": r"[F]IXME\b|[X]XX\b|[T]ODO\b",
}
BINARY = {".png", ".npy", ".npz", ".safetensors", ".zst", ".bin", ".gz"}


def offences(files: Mapping[str, str]) -> list[str]:
    """Lines that say what no tracked file may say."""
    return [
        f"{name}:{number} holds {what}: {match.group()!r}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if (match := re.search(rf"(?<![\w.~-])(?:{pattern})", line))
    ]


def _tracked() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    names = [name for name in listed.stdout.split("\0") if name and "corpus/" not in name]
    paths = {name: ROOT / name for name in names if not name.endswith(tuple(BINARY))}
    return {name: path.read_text(errors="replace") for name, path in paths.items() if path.is_file()}


def test_no_file_says_what_is_forbidden():
    assert offences(_tracked()) == []


def test_every_file_that_a_newcomer_looks_for_is_there():
    wanted = ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/design/dependencies.md")
    assert [name for name in wanted if not (ROOT / name).is_file()] == []


BAD = ["open('/{tmp}/x')", "see {pypi}.org", "# {T}ODO: later"]  # without the braces


def test_finds_what_is_forbidden():
    text = "\n".join(["fine", *BAD]).replace("{", "").replace("}", "")
    assert [found.split(" ")[0] for found in offences({"a": text})] == ["a:2", "a:3", "a:4"]


def test_lets_other_paths_pass():
    assert offences({"a": "tests/work/x, src/home/y, TODOS"}) == []
