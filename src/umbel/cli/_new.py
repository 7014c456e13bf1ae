"""``umbel new``: write a small app that runs and learns."""

import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from umbel.cli._options import Json
from umbel.cli._screen import Screen, open_screen
from umbel.cli._template import FILES
from umbel.cli._text import safe
from umbel.errors import UsageError

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the app, and of its folder.", show_default=False)
    ],
    *,
    json: Json = False,
) -> None:
    """Write a small app that runs into a new folder.

    NAME becomes a folder with pyproject.toml, app.py and README.md. The app needs nothing but numpy and trains a
    small network on ten sites in a few seconds. Change app.py from there.

    \b
      umbel new hello
      umbel run hello
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    folder = write(name, Path.cwd())
    screen = open_screen(json_wanted=json)
    if json:
        screen.emit({"folder": str(folder), "files": [str(folder / file) for file in FILES]})
    else:
        _show(screen, name)


def write(name: str, parent: Path) -> Path:
    """Write the app into the folder ``name`` below ``parent`` and return that folder.

    Raises:
        UsageError: if the name will not do, or is taken.

    """
    if not _NAME.fullmatch(name):
        msg = (
            "expected a name of 1 to 64 letters, digits, dots, hyphens and underscores that begins with a letter, got "
            f'"{safe(name)[:80]}"; try umbel new my-app'
        )
        raise UsageError(msg)
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError:
        msg = f'"{name}" exists already in {safe(str(parent))}; choose another name or remove it first'
        raise UsageError(msg) from None
    for file, text in FILES.items():
        (folder / file).write_text(Template(text).substitute(name=name), encoding="utf-8")
    return folder


def _show(screen: Screen, name: str) -> None:
    for file in FILES:
        screen.say(f"{name}/{file}")
    screen.say()
    screen.say(f"next: umbel run {name}", style="bold")
