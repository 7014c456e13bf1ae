"""Make demo.svg and network.svg: what a terminal shows of a real run of each demo. Needs the extra ``examples``.

    python docs/pictures/make.py [demo.svg] [network.svg]

A command runs in a terminal of its own; what it writes, cursor movements included, is replayed into rows of cells,
and the last rows are drawn. Nothing is added or typed by hand, except for the prompt; of the second, most rounds are
left out.
"""
# ruff: noqa: INP001 - a script, no part of a package

import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[2]
COLUMNS, ROWS = 106, 38
#: The picture, how the prompt shows the command, what it is, and which lines are left out of the middle.
PICTURES = (
    ("demo.svg", "umbel run examples/rand_health", ["umbel", "run", "examples/rand_health"], None),
    (
        "network.svg",
        "make demo-network",
        [sys.executable, "examples/network/demo.py"],
        re.compile(r"round +(?!(?:1|2|9|10|11|12|30)/)(?=\d)"),
    ),
)
SEQUENCE = re.compile(r"\x1b\[(?P<arguments>[0-9;?]*)(?P<verb>[A-Za-z])|(?P<plain>[^\x1b])", re.DOTALL)
NORMAL = (
    *((51, 65, 85), (248, 113, 113), (74, 222, 128), (250, 204, 21)),
    *((96, 165, 250), (192, 132, 252), (34, 211, 238), (226, 232, 240)),
)
BRIGHT = (
    *((100, 116, 139), (252, 165, 165), (134, 239, 172), (253, 224, 71)),
    *((147, 197, 253), (216, 180, 254), (103, 232, 249), (248, 250, 252)),
)
THEME = TerminalTheme((15, 23, 42), (226, 232, 240), list(NORMAL), list(BRIGHT))
# Fonts of the reader's own machine: a picture that fetches fonts tells somebody who looks at it.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">{matrix}</g>
</g>
</svg>
"""


def run_in_terminal(command: list[str], folder: str) -> str:
    """Run the command in a terminal of ``COLUMNS`` columns and return all it wrote there."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, COLUMNS))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": folder}
    (Path(folder) / "examples").symlink_to(ROOT / "examples")
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave) as process:  # noqa: S603 - the constants above
        os.close(slave)
        written = b"".join(iter(lambda: read(master), b""))
    if process.returncode:
        raise SystemExit(written.decode())
    return written.decode()


def read(master: int) -> bytes:
    """Return what the terminal has next, nothing when its other side is closed."""
    select.select([master], [], [])
    try:
        return os.read(master, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""


class Cells:
    """The rows of a terminal, with the few movements that rich makes: carriage return, up, erase."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.row, self.column, self.style = 0, 0, ""

    def write(self, written: str) -> None:
        """Replay what a program wrote."""
        for found in SEQUENCE.finditer(written):
            if found["plain"] is not None:
                self.put(found["plain"])
            elif found["verb"] == "m":
                self.style = "" if found["arguments"] in ("", "0") else self.style + found[0]
            elif found["verb"] == "A":
                self.row -= int(found["arguments"] or 1)
            elif found["verb"] == "K":
                self.rows[self.row] = []

    def put(self, char: str) -> None:
        """Write one character where the cursor is."""
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            self.rows += [[] for _ in range(self.row + 1 - len(self.rows))]
        else:
            row = self.rows[self.row]
            row += [" "] * (self.column + 1 - len(row))
            row[self.column] = f"{self.style}{char}\x1b[0m"
            self.column += 1

    def lines(self) -> list[str]:
        """Return the rows with their styles, without empty ones at the end."""
        return "\n".join("".join(row) for row in self.rows).rstrip().split("\n")


def draw(name: str, shown: str, command: list[str], hidden: re.Pattern[str] | None) -> None:
    """Run a command, replay what it wrote, and draw the last rows of it."""
    with tempfile.TemporaryDirectory() as folder:
        written = run_in_terminal(command, folder)
    cells = Cells()
    cells.write(f"\x1b[1;32m$\x1b[0m \x1b[1m{shown}\x1b[0m\r\n{written}")
    lines = [line for line in cells.lines() if hidden is None or not hidden.search(Text.from_ansi(line).plain)]
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines[-ROWS:]:
        text = Text.from_ansi(line)
        text.truncate(COLUMNS, overflow="ellipsis")
        console.print(text, soft_wrap=True)
    picture = console.export_svg(title=shown, theme=THEME, code_format=FORMAT, unique_id="umbel")
    (Path(__file__).parent / name).write_text(picture)


if __name__ == "__main__":
    for each in PICTURES:
        if each[0] in (sys.argv[1:] or [each[0]]):
            draw(*each)
