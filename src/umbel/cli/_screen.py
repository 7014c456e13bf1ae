"""Where output goes: lines for people, or JSON for machines, and never both on stdout."""

import contextlib
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from umbel.cli._table import Column, omitted, table


class PipeAware(Console):
    """A console that lets a closed pipe be seen by the one place that gives out exit codes."""

    def on_broken_pipe(self) -> None:
        """Raise the error on instead of ending the process here."""
        raise BrokenPipeError


@dataclass(frozen=True)
class Screen:
    """Standard output, seen as a terminal, a pipe or a stream of JSON."""

    console: Console
    json: bool

    @property
    def live(self) -> bool:
        """Say whether lines can be redrawn: a terminal that understands cursor movements."""
        return self.console.is_terminal and not self.console.is_dumb_terminal and not self.json

    @property
    def width(self) -> int | None:
        """Return the width of the terminal, or None in a pipe, where lines are never cut."""
        return self.console.width if self.console.is_terminal else None

    def say(self, line: str | Text = "", style: str = "") -> None:
        """Print one line: a string in full, however long; a ``Text`` cut to the width of a terminal."""
        if isinstance(line, str):
            self.console.print(Text(line, style=style), soft_wrap=True)
        elif self.console.is_terminal:
            self.console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            self.console.print(line, soft_wrap=True)

    def table(self, columns: list[Column], rows: list[list[str]]) -> None:
        """Print aligned columns; what a terminal has no room for is named below them."""
        out = omitted(columns, rows, self.width)
        kept = [i for i in range(len(columns)) if i not in out]
        for text in table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], self.width):
            self.say(text)
        if out:
            names = ", ".join(columns[i].title for i in out)
            self.say(f"no room here for {names}; append | cat to see all", style="dim")

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print one JSON object on one line, at once."""
        stream = self.console.file
        stream.write(as_json(value) + "\n")
        stream.flush()


def open_screen(*, json_wanted: bool) -> Screen:
    """Return the screen over the standard output of this process.

    The stream is kept, not looked up again: with ``--json``, whatever else prints is sent elsewhere.
    """
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a name the terminal cannot encode must not end the command
    console = PipeAware(file=stream, highlight=False, markup=False, emoji=False)
    return Screen(console=console, json=json_wanted)


@contextlib.contextmanager
def quiet(screen: Screen) -> Iterator[None]:
    """Send what the app prints to stderr while JSON is written: stdout carries JSON alone."""
    if not screen.json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def as_json(value: Mapping[str, Any]) -> str:
    """Return ``value`` as one line of strict JSON: NaN and the infinities, which JSON lacks, become null."""
    return json.dumps(finite(value), allow_nan=False)


def finite(value: object) -> object:
    """Return ``value`` with what JSON cannot carry replaced: non-finite floats by None, bytes by hexadecimal text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value
