"""What the documentation shows is run: every block of Python, console, TOML and JSON in the README and in docs/.

- The blocks of one file share one namespace and one empty folder, in which `examples` leads to the examples.
- A block after the comment `<!-- file: NAME -->` is written to that file of the folder instead of being run.
- In a console block a line that starts with `$ ` is a command, ended by what it must print (`...` stands for anything)
  or by nothing, if that does not matter. A command that has to fail says so: `$ umbel diff a  # exits 2`.
- A block that cannot run is left out by a comment with a reason: `<!-- skip: next "needs two machines" -->`. One that
  can where a package is there: `<!-- skip: next if(not installed("xgboost"), reason="needs the extra xgboost") -->`.

Doctests of a module whose optional dependency is not installed are skipped, with that as the reason.
"""

import doctest
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Generator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from umbel.errors import MissingExtra
from umbel.records import _stypes

ROOT = Path(__file__).parent
COMMAND_SECONDS = 300

_FILE = re.compile(r"<!-- file: (?P<name>[\w./-]+) -->\s*\Z")
_EXITS = re.compile(r"# exits (?P<status>\d+)\s*\Z")

Evaluator = Callable[[Example], str | None]


def _or_written(evaluate: Evaluator) -> Evaluator:
    """Write a block that is announced as a file; evaluate any other."""

    def write_or_evaluate(example: Example) -> str | None:
        named = _FILE.search(example.document.text[: example.start])
        if named is None:
            return evaluate(example)
        path = Path(named["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(example.parsed))
        return None

    return write_or_evaluate


def _steps(block: str) -> list[tuple[str, str]]:
    """Split a console block into commands, each with what it has to print."""
    steps: list[tuple[str, str]] = []
    for line in block.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append((line[2:].strip(), ""))
        elif steps:
            steps[-1] = (steps[-1][0], steps[-1][1] + line)
        elif line.strip():
            raise ValueError(f"a console block starts with a command ('$ '), not with {line!r}")
    return steps


def _run_console(example: Example) -> str | None:
    for command, expected in _steps(str(example.parsed)):
        problem = _run_command(command, expected, example.namespace)
        if problem:
            return problem
    return None


def _run_command(command: str, expected: str, namespace: dict[str, Any]) -> str | None:
    """Run one command in the folder where the one before it left off; return what is wrong, if anything."""
    folder = namespace.setdefault("console_folder", str(Path.cwd()))
    exits = _EXITS.search(command)
    status = int(exits["status"]) if exits else 0
    script = (
        f"cd {shlex.quote(folder)}\n{command}\nstatus=$?\npwd > {shlex.quote(namespace['console_state'])}\nexit $status"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=_console_environment(namespace),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    namespace["console_folder"] = Path(namespace["console_state"]).read_text().strip()
    if done.returncode != status:
        return f"$ {command}\nexited {done.returncode}, not {status}, and printed:\n{done.stdout}"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if expected.strip() and not doctest.OutputChecker().check_output(expected, done.stdout, flags):
        return f"$ {command}\nexpected:\n{expected}\ngot:\n{done.stdout}"
    return None


def _console_environment(namespace: dict[str, Any]) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    path = scripts + os.pathsep + os.environ["PATH"]
    return os.environ | {"PATH": path, "HOME": namespace["console_home"], "NO_COLOR": "1", "COLUMNS": "120"}


def _parse(parser: Callable[[str], object]) -> Evaluator:
    def evaluate(example: Example) -> None:
        parser(str(example.parsed))

    return evaluate


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _enter_folder(namespace: dict[str, Any]) -> None:
    """Give a document an empty folder, from which its modules are imported too."""
    base = Path(tempfile.mkdtemp(prefix="umbel-docs-"))
    folder = base / "work"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    namespace["console_codecs"] = dict(_stypes._CODECS)
    namespace["installed"] = _is_installed
    namespace |= {"console_state": str(base / "folder"), "console_home": str(base), "console_back": str(Path.cwd())}
    os.chdir(folder)
    sys.path.insert(0, str(folder))


def _leave_folder(namespace: dict[str, Any]) -> None:
    """Leave nothing behind: neither files, nor modules, nor codecs that the page has registered."""
    _stypes._CODECS.clear()
    _stypes._CODECS.update(namespace["console_codecs"])
    os.chdir(namespace["console_back"])
    base = namespace["console_home"]
    _end_processes(base)
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(base)]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(base):
            del sys.modules[name]
    shutil.rmtree(base)


def _end_processes(base: str) -> None:
    """End what a page has left running in its folder, such as a server, because a block before its end failed."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((entry / "cwd").readlink()).startswith(base):
                os.kill(int(entry.name), signal.SIGKILL)


_python = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)
_python.codeblock_parser = CodeBlockParser("python", _or_written(PythonEvaluator()))

pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        _python,
        CodeBlockParser("console", _run_console),
        CodeBlockParser("toml", _or_written(_parse(tomllib.loads))),
        CodeBlockParser("json", _or_written(_parse(json.loads))),
    ],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md"],
    setup=_enter_folder,
    teardown=_leave_folder,
).pytest()


def pytest_configure() -> None:
    """Take interrupts, which tests send: a shell that starts them in the background has them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Look for doctests in the package alone: a file beside the tests may be made for another interpreter."""
    is_python = collection_path.suffix == ".py" and collection_path.name != "conftest.py"
    in_package = collection_path.is_relative_to(ROOT / "src")
    return True if is_python and not in_package and not collection_path.name.startswith("test_") else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a doctest module that cannot be imported for want of an extra into a skip."""
    report = yield
    call = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and isinstance(call.excinfo.value, MissingExtra):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {call.excinfo.value}")
    return report
