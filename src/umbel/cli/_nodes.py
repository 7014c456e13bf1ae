"""``umbel nodes``: the nodes of a server."""

from typing import Annotated

import typer

from umbel.cli._options import Data, Json, Server
from umbel.cli._remote import open_remote
from umbel.cli._rounds import plain
from umbel.cli._screen import open_screen
from umbel.cli._table import Column
from umbel.cli._text import moment, nearest, safe
from umbel.errors import UsageError
from umbel.http.wire import NodeRow

_NEVER = 0.0

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True)
def nodes(context: typer.Context, *, server: Server = None, data: Data = None, json: Json = False) -> None:
    """List the nodes of a server, or shut one out.

    \b
      umbel nodes                  name, app, types, status, when it was last heard of
      umbel nodes --json           the same for a script
      umbel nodes revoke site-3    shut a node out: within seconds nothing of it counts
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    if context.invoked_subcommand is not None:
        return
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        rows = remote.nodes()
    if json:
        screen.emit({"nodes": plain(rows)})
    elif rows:
        columns = [Column("node"), Column("app", elastic=True), Column("types"), Column("status"), Column("last seen")]
        screen.table(columns, [_row(row) for row in rows])
    else:
        screen.say("no node has joined yet; umbel token makes a line with which one does")


def _row(row: NodeRow) -> list[str]:
    seen = "never" if row.last_seen <= _NEVER else moment(row.last_seen)
    return [safe(row.name), safe(row.app), ", ".join(map(safe, row.types)), row.status, seen]


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the node.", show_default=False)],
    *,
    server: Server = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Shut a node out for good: its key opens nothing any more, and its open messages are lost.

    The same machine may join again with a new token and another name.

    \b
      umbel nodes revoke site-3
    """  # noqa: D301 - as above
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        rows = [row for row in remote.nodes() if row.name == name]
        if not rows:
            known = [row.name for row in remote.nodes()]
            raise UsageError(f'there is no node "{safe(name)}"{nearest(name, known)}', at=remote.url)
        remote.revoke(rows[0].member)
    if json:
        screen.emit({"node": name, "status": "revoked"})
    else:
        screen.say(f"{safe(name)} is shut out")
