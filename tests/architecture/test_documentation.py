"""Blocks of the documentation run; one that does not says why; and the machinery that runs them can fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from house import ROOT, umbel

# What runs or is at least parsed (see conftest.py), and what is only shown.
RUN = {"python", "console", "toml", "json"}
SHOWN = {"text", "markdown", "diff"}

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^ *(?P=fence) *$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!--+\s*skip:(?P<rest>.*?)--+>", re.DOTALL)
_WORDS = r'"[^"]+ [^"]+ [^"]+"'
_REASON = re.compile(rf'\s*next\s+(?:{_WORDS}|if\(not installed\("\w+"\), reason={_WORDS}\))\s*')


def odd_fences(text: str) -> list[str]:
    """Info strings of blocks that would escape being run by being named otherwise; MyST directives are in braces."""
    infos = [match["info"].strip() for match in _FENCE.finditer(text)]
    return [info for info in infos if info not in RUN | SHOWN and not re.fullmatch(r"\{[a-z-]+\}.*", info)]


def unreasoned(text: str) -> list[str]:
    """Opt-outs that give no reason of three words or more, or that span more than the next block."""
    return [match.group() for match in _COMMENT.finditer(text) if not _REASON.fullmatch(match["rest"])]


def disguised(text: str) -> list[str]:
    """Blocks that are said to be mere text and yet hold commands or statements to be tried."""
    bodies = [match["body"] for match in _FENCE.finditer(text) if match["info"].strip() in SHOWN]
    return [body for body in bodies if re.search(r"^(\$ |>>> |import |from \w+ import )", body, re.MULTILINE)]


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs_or_says_why_not(page):
    text = page.read_text()
    assert (odd_fences(text), unreasoned(text), disguised(text)) == ([], [], [])


def test_no_page_is_out_of_reach():
    assert [str(page) for page in pages() if len(page.relative_to(ROOT).parts) > 3] == []


def test_finds_blocks_that_would_not_run():
    assert odd_fences('```py\nx\n```\n\n```python title="a"\nx\n```\n\n```\nx\n```\n') == ["py", 'python title="a"', ""]
    assert odd_fences("```python\nx\n```\n\n```{note}\nx\n```\n\n````text\n```py\n```\n````\n") == []
    assert disguised("```text\n$ rm -r x\n```\n") == ["$ rm -r x\n"]


def test_finds_opt_outs_without_reason():
    assert len(unreasoned('<!-- skip: next -->\n<!-- skip: start "a b c" -->\n<!-- skip: next "no" -->')) == 3
    assert len(unreasoned('<!-- skip: next if(True, reason="always left out") -->')) == 1
    assert unreasoned('<!-- skip: next "needs two machines" -->') == []
    assert unreasoned('<!-- skip: next if(not installed("a"), reason="needs the a") -->') == []


PAGE = """
<!-- file: app.py -->
```python
answer = 42
```

```python
from app import answer
```

```python
>>> answer
42
```

```console
$ mkdir inner && cd inner
$ basename $PWD
inner
$ ls ../app.py
../a...
$ exit 3  # exits 3
```

<!-- skip: next "shows what fails" -->
```python
raise ValueError
```

<!-- skip: next if(not installed("nothing_of_this_name"), reason="needs what is nowhere") -->
```python
raise ValueError
```

<!-- skip: next if(not installed("pytest"), reason="needs what is here") -->
```python
there = True
```

```python
assert there
```

```toml
a = 1
```
"""

BROKEN = {
    "python": "```python\nraise ValueError\n```\n",
    "doctest": "```python\n>>> 1 + 1\n3\n```\n",
    "warning": "```python\nimport warnings\nwarnings.warn('x')\n```\n",
    "output": "```console\n$ echo one\ntwo\n```\n",
    "status": "```console\n$ exit 1\n```\n",
    "success": "```console\n$ true  # exits 1\n```\n",
    "no command": "```console\necho one\n```\n",
    "toml": "```toml\na = = 1\n```\n",
}


@pytest.fixture
def run_page(tmp_path):
    """Run pytest over a repository that holds nothing but a README; return how many passed, failed, were skipped."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "examples").mkdir()

    def run(text: str) -> dict[str, int]:
        (tmp_path / "README.md").write_text(text)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "README.md"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        counts = re.findall(r"(\d+) (passed|failed|skipped)", done.stdout.splitlines()[-1])
        return {word: int(count) for count, word in counts}

    return run


def test_a_page_that_is_true_passes(run_page):
    assert run_page(PAGE) == {"passed": 10, "skipped": 2}


def test_each_page_that_is_not_true_fails(run_page):
    assert run_page("\n".join(BROKEN.values())) == {"failed": len(BROKEN)}


def undescribed(public: set[str], reference: str) -> set[str]:
    """Public modules without a page in the reference, and pages of modules that are not there."""
    return public ^ set(re.findall(r"^\.\. automodule:: (\S+)$", reference, re.MULTILINE))


def test_the_reference_has_every_public_module():
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    without_names = {"umbel.cli", "umbel.interop"}  # described by the commands; a folder of adapters
    public = {mod.name for mod in umbel() if not mod.is_private} - without_names
    assert undescribed(public, reference) == set()


def test_finds_a_module_without_reference():
    assert undescribed({"umbel.a"}, ".. automodule:: umbel.b\n") == {"umbel.a", "umbel.b"}
