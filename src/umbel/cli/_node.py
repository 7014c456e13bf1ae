"""``umbel node``: a node, from joining a server to the last message."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from umbel.cli._options import Json
from umbel.cli._rotate import rotate_key
from umbel.cli._rounds import plain
from umbel.cli._screen import Screen, open_screen
from umbel.cli._servers import data_folder
from umbel.cli._service import begin_service, tell
from umbel.cli._start import Typed, node_folder, prepare, started
from umbel.cli._text import counted, moment, safe, size
from umbel.cli._units import seconds, size_in_bytes
from umbel.node import Node, Status, read_status

_ENDED = "ended"

Folder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Where the node keeps its key and what it has in hand.",
        show_default=f"{data_folder()}/nodes/NAME",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="What the node is called; by default as this machine.", show_default=False
    ),
]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True)
def node(  # noqa: PLR0913 - the options of a command are its arguments
    context: typer.Context,
    *,
    join: Annotated[
        str | None,
        typer.Option(metavar="URL#TOKEN", help="The line that umbel token prints; once.", show_default=False),
    ] = None,
    app_: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:NAME",
            help="The app, in an installed package or in this folder; or a folder with a pyproject.toml.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Tell the app this, as node_config.", show_default=False),
    ] = None,
    data: Folder = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the server may ask of this node, in TOML.", show_default=False),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(parser=size_in_bytes, metavar="SIZE", help="Memory for a handler: 8GB.", show_default=False),
    ] = None,
    handler_limit: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Time for one message: 10m.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Join a server and train what it asks for, on data that stay here.

    A node only calls out. What it has finished is on its disk before it is sent: nothing is done twice. After the
    first start its folder knows the server, the app and the rest: umbel node alone goes on.

    If the app's [tool.umbel] names its nodes and what each is told, as nodes = "app:nodes" does, --name site-1 alone
    gives this node what that says of site-1; --set changes it.

    \b
      umbel node --join https://host:8443#TOKEN --app hospital.heart:app
      umbel node --join https://host:8443#TOKEN --app app:app --name site-1
      umbel node --join https://host:8443#TOKEN --app app:app --set rows=patients.csv --policy policy.toml
      umbel node                      go on after a restart of this machine
      umbel node status               what it is doing
      umbel node rotate               a new key, while the node is stopped
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    if context.invoked_subcommand is not None:
        return
    begin_service(json_wanted=json)
    if app_ is not None:  # it is asked what it tells this node, which takes as long as its imports
        tell(f"a node of {app_} starts", event="node-starts", app=app_)
    folder = node_folder(data, name, joins=join is not None)
    settings = prepare(Typed(join, app_, name, changes, policy, memory_limit, handler_limit), folder)
    asyncio.run(Node(settings, watch=_teller(context.find_root().call_on_close)).run())


def _teller(at_the_end: Callable[[Callable[[], object]], object]) -> Callable[[Status], None]:
    """Return what says a line whenever the status changes in a way that matters; the last one, when all is said."""
    before: Status | None = None

    def watch(status: Status) -> None:
        nonlocal before
        former, before = before, status
        if former is None or _is_news(status, former):
            text = _STATES[status.state].format(name=status.name, url=status.url, reason=status.reason)
            say = partial(tell, text, event=f"node-{status.state}", name=status.name, reason=status.reason)
            if status.state == _ENDED:
                at_the_end(say)  # after the error
            else:
                say()
        if status.running is not None and (former is None or former.running != status.running):
            running = status.running
            told = {"run": running.run, "round": running.round, "message_type": running.message_type}
            tell(f"{running.message_type} of round {running.round} of {running.run}", event="message", **told)

    return watch


def _is_news(status: Status, former: Status) -> bool:
    """Say whether a state is worth a line; why a server is away may change many times while it is."""
    if status.state != former.state:
        return True
    return status.state == "starting" and status.reason != former.reason


# Why a node ended is said by the error that it ends with; without one it was told to stop.
_STATES = {
    "starting": "{name} {reason}",
    "connected": "{name} is connected to {url}",
    "away": "no answer from {url}, trying again: {reason}",
    "ended": "{name} ended",
}


@app.command()
def status(*, data: Folder = None, name: Name = None, json: Json = False) -> None:
    """Say what the node is doing, and how it has fared since it was started.

    \b
      umbel node status
      umbel node status --data /var/lib/umbel/node --json
    """  # noqa: D301 - as above
    folder = node_folder(data, name, joins=False)
    started(folder)
    found = read_status(folder)
    screen = open_screen(json_wanted=json)
    running = found.state != _ENDED and _is_there(found.pid)
    if json:
        screen.emit({**plain(found), "alive": running})
        return
    for line in _lines(found, running=running):
        screen.say(line)


def _lines(found: Status, *, running: bool) -> list[str]:
    reason = f": {safe(found.reason)}" if found.reason else ""
    killed = not running and found.state != _ENDED
    state = f"killed; last {found.state}" if killed else found.state
    doing = found.running if running else None
    now = "nothing" if doing is None else f"{doing.message_type} of round {doing.round} of {safe(doing.run)}"
    return [
        f"node     {safe(found.name)}, {safe(found.app)}",
        f"server   {safe(found.url)}",
        f"state    {state} since {moment(found.since)}{reason}",
        f"doing    {now}, {counted(found.holding, 'message')} in hand",
        f"done     {found.completed:,} since {moment(found.started)}, {found.failed:,} failed",
        f"moved    {size(found.sent)} sent, {size(found.received)} received as blobs; small models travel in messages",
        *([f"last     {safe(found.last_error)}"] if found.last_error else []),
    ]


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@app.command()
def rotate(*, data: Folder = None, name: Name = None, json: Json = False) -> None:
    """Give the node a new key; the old one opens nothing any more. Stop the node first.

    \b
      umbel node rotate
    """  # noqa: D301 - as above
    folder = node_folder(data, name, joins=False)
    rotate_key(folder)
    screen: Screen = open_screen(json_wanted=json)
    if json:
        screen.emit({"data": str(folder), "status": "rotated"})
    else:
        screen.say("the node has a new key; start it again: umbel node")
