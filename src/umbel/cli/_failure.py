"""What the user sees when something fails: what, where, why and what to do; never a traceback unless asked for."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from umbel.cli._screen import as_json
from umbel.cli._text import printable, safe
from umbel.errors import BadHeader, BadLength, DigestMismatch, RoundFailed, TrailingBytes, Truncated, UmbelError

#: Exit codes that do not come from an error class of ``umbel.errors``.
DIFFERENT = 1
FAILED = 1
INPUT_OUTPUT = 74
INTERRUPTED = 130
BROKEN_PIPE = 141

_DAMAGED = (Truncated, TrailingBytes, BadLength, BadHeader, DigestMismatch)
_OURS = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True)
class Failure:
    """An exception in the words of the command line."""

    code: str
    message: str
    at: str
    hint: str
    exit_status: int


def explain(error: BaseException) -> Failure:
    """Return what to tell the user about ``error``."""
    if isinstance(error, UmbelError):
        return Failure(error.code, error.message, error.at, _next(error), error.exit_status)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "interrupted", "", "", INTERRUPTED)
    place = blame(error)
    if isinstance(error, OSError) and not place:
        return Failure("io", _os_reason(error), "", "check the path, its permissions and the space left", INPUT_OUTPUT)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if place:
        return Failure("failed", reason, place, "umbel ... --debug shows the whole traceback", FAILED)
    hint = "this is a fault in umbel: run again with --debug and report the traceback"
    return Failure("internal", reason, "", hint, FAILED)


def _next(error: UmbelError) -> str:
    """Return what to do where the message, written far from the command line, cannot say it."""
    if isinstance(error, _DAMAGED):
        return "the file is damaged or of another kind: restore it from a copy, or make it again"
    if isinstance(error, RoundFailed):
        return "mend what the reasons say, or ask more nodes"
    return ""


def _os_reason(error: OSError) -> str:
    name = f' "{os.fsdecode(error.filename)}"' if isinstance(error.filename, (str, bytes)) else ""
    return f"{error.strerror or error}{name}"


def blame(error: BaseException) -> str:
    """Return ``app.py line 12, in evaluate``: the deepest line that is neither umbel's nor an installed package's.

    Empty when no such line took part.
    """
    if isinstance(error, SyntaxError) and error.filename and not foreign(error.filename):
        return f"{short(error.filename)} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not foreign(frame.filename)]
    if not frames:
        return ""
    last = frames[-1]
    where = "" if last.name == "<module>" else f", in {last.name}"
    return f"{short(last.filename)} line {last.lineno}{where}"


def foreign(filename: str) -> bool:
    """Say whether a file is umbel's, Python's or an installed package's, so that its lines are none of the user's."""
    if filename.startswith("<") or filename.endswith(".pyx"):  # compiled: the path is not one of this machine
        return True
    path = str(Path(filename).resolve())
    return any(path.startswith(root + os.sep) for root in _roots())


def _roots() -> Iterator[str]:
    yield _OURS
    for key in ("stdlib", "platstdlib", "purelib", "platlib", "scripts"):
        yield str(Path(sysconfig.get_path(key)).resolve())


def short(filename: str) -> str:
    """Return the path of a file as seen from here."""
    path = Path(filename).resolve()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _is_said(place: str, message: str) -> bool:
    """Say whether a place tells nothing new: a bare word, such as the name of a field, that the message has."""
    return place.isalpha() and place.lower().removesuffix("s") in message.lower()


def report(error: BaseException, *, debug: bool, json_wanted: bool) -> int:
    """Tell the user about ``error`` and return the exit status."""
    failure = explain(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    _print_failure(failure)
    if json_wanted:
        shown = {"code": failure.code, "message": failure.message, "at": failure.at, "exit_status": failure.exit_status}
        sys.stdout.write(as_json({"event": "error", "error": shown}) + "\n")
    return failure.exit_status


def _print_failure(failure: Failure) -> None:
    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    text = Text.assemble(("error: ", "bold red"), printable(failure.message))
    console.print(text, soft_wrap=True)
    if failure.at and not _is_said(failure.at, failure.message):
        console.print(Text(f"   at: {safe(failure.at)}"), soft_wrap=True)
    if failure.hint:
        console.print(Text(f" next: {failure.hint}"), soft_wrap=True)
