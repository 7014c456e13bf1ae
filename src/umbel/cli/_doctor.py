"""``umbel doctor``: what may be wrong with a server, a node, or the way between them, and how to mend it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from umbel.cli._address import typed_address, typed_join_line
from umbel.cli._checks import Check, app_loads, folder_checks, versions
from umbel.cli._options import Json
from umbel.cli._reach import Way, reach
from umbel.cli._screen import Screen, open_screen
from umbel.cli._servers import Known, all_known, data_folder, is_server, operator_of
from umbel.cli._start import is_node, started
from umbel.cli._text import safe
from umbel.errors import UmbelError, UsageError
from umbel.http import Identity
from umbel.node import read_membership

_FAILED: Final = 1
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDTH: Final = 11

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def doctor(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="A server; with #TOKEN, its fingerprint is checked.", show_default=False),
    ] = None,
    *,
    server: Annotated[bool, typer.Option("--server", help="The server of this machine.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The data folder of a server or a node here.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Check everything a server or a node needs, and say how to mend what is wrong.

    Without an argument, every server that you know is looked at. Ends with 1 if a check fails; a warning is none.

    \b
      umbel doctor
      umbel doctor https://host:8443          as somebody who would join it
      umbel doctor --data /var/lib/umbel      a server or a node, and the way between them
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    screen = open_screen(json_wanted=json)
    folder = data_folder() / "server" if server and data is None else data
    if url is not None and folder is not None:
        raise UsageError("expected a URL or a data folder, got both")
    found = []
    for check in _to_the_end(_examined(url, folder), "settings" if url is None else "address"):
        found.append(check)
        _show(screen, check)
    failed = sum(check.state == "fail" for check in found)
    if not json:
        screen.say()
        screen.say(f"{failed} of {len(found)} checks failed" if failed else f"all {len(found)} checks passed")
    if failed:
        raise typer.Exit(_FAILED)


def _show(screen: Screen, check: Check) -> None:
    if screen.json:
        screen.emit(check._asdict())
        return
    screen.say(f"{check.state:<4} {check.name:<{_WIDTH}} {check.found}", style=_STYLES[check.state])
    if check.mend:
        screen.say(f"{'':4} {'':<{_WIDTH}} mend: {check.mend}")


def _to_the_end(checks: Iterator[Check], about: str) -> Iterator[Check]:
    """Yield checks; one that cannot be made, such as of an address that is none, is one that fails."""
    try:
        yield from checks
    except UmbelError as error:
        mend = "say umbel doctor https://HOST:PORT, or copy the line of umbel token again"
        if "/" in error.at:
            mend = f"look at {safe(error.at)}"
        yield Check(about, "fail", safe(error.message), mend)


def _examined(url: str | None, folder: Path | None) -> Iterator[Check]:
    yield from versions()
    if folder is not None:
        yield from _folder(folder)
    elif url is not None:
        yield from reach(_way(url))
    else:
        known = all_known()
        if not known:
            yield Check("servers", "ok", "you have joined none; umbel server starts one, umbel doctor URL looks at one")
        for each in known:
            yield from reach(_member(each))


def _way(url: str) -> Way:
    if "#" in url:
        address, token = typed_join_line(url)
        return Way(address, token.fingerprint)
    address = typed_address(url)
    return next((_member(each) for each in all_known() if each.about.url == address), Way(address))


def _member(known: Known) -> Way:
    about = known.about
    return Way(about.url, about.fingerprint, known.identity, about.member)


def _folder(folder: Path) -> Iterator[Check]:
    yield from folder_checks(folder)
    if is_server(folder):
        yield from reach(_member(operator_of(folder)))
    elif is_node(folder):
        yield from _node(folder)
    elif folder.is_dir():
        mend = "name the folder that umbel server or umbel node was started with, or start it"
        yield Check("data folder", "fail", f"{safe(str(folder))} is neither a server's nor a node's", mend)


def _node(folder: Path) -> Iterator[Check]:
    start = started(folder)
    yield app_loads(start.app, Path(start.app_folder))
    place = read_membership(folder)
    if place is None:
        yield Check("member", "fail", "this node has not joined yet", "umbel node --join URL#TOKEN --app ...")
        yield from reach(Way(start.url, start.fingerprint))
    else:
        yield from reach(Way(start.url, start.fingerprint, Identity.load(folder / "key"), place.member))
