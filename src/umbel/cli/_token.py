"""``umbel token``: lines with which nodes and users join a server."""

import time
from typing import Annotated

import typer

from umbel.cli._options import Data, Json, Server
from umbel.cli._remote import Remote, open_remote
from umbel.cli._rounds import plain
from umbel.cli._screen import Screen, open_screen
from umbel.cli._table import Column
from umbel.cli._text import counted, moment
from umbel.cli._units import seconds
from umbel.errors import UsageError
from umbel.http.wire import TokenRequest, TokenRow

_MOST_USES = 1_000_000

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def token(  # noqa: PLR0913 - the options of a command are its arguments
    *,
    uses: Annotated[int, typer.Option(min=1, max=_MOST_USES, metavar="N", help="How often it may be used.")] = 1,
    valid: Annotated[float, typer.Option(parser=seconds, metavar="TIME", help="How long it may be used.")] = "24h",  # type: ignore[assignment]
    user: Annotated[bool, typer.Option("--user", help="For somebody who submits runs, not for a node.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the tokens there are, without their secrets.")] = False,
    revoke: Annotated[
        int | None, typer.Option(metavar="ID", help="Take a token back by its number.", show_default=False)
    ] = None,
    server: Server = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a line with which a node or a user joins a server.

    The line holds the address, the fingerprint of the server's certificate and a secret. The secret is shown once, is
    kept by the server as a digest only, and opens nothing after it was used, so the line can be sent by mail.

    \b
      umbel token                        for one node, within a day
      umbel token --uses 20 --valid 7d   for twenty nodes, within a week
      umbel token --user                 for somebody who submits runs
      umbel token --list
      umbel token --revoke 4
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    if listed and revoke is not None:
        raise UsageError("expected --list or --revoke ID, got both")
    screen = open_screen(json_wanted=json)
    with open_remote(server, data) as remote:
        if listed:
            _list(screen, remote)
        elif revoke is not None:
            remote.revoke_token(revoke)
            if json:
                screen.emit({"token": revoke, "status": "revoked"})
            else:
                screen.say(f"token {revoke} opens nothing any more")
        else:
            _make(screen, remote, TokenRequest(kind="user" if user else "node", uses=uses, valid=valid))


def _make(screen: Screen, remote: Remote, wish: TokenRequest) -> None:
    made = remote.token(wish)
    line = typed(remote.line(made.secret), wish.kind)
    if screen.json:
        values = {"token": made.token, "kind": wish.kind, "uses": wish.uses, "expires_at": made.expires_at}
        screen.emit({**values, "address": remote.line(made.secret), "line": line})
        return
    screen.say(line, style="bold")
    screen.say(f"token {made.token}, for {counted(wish.uses, wish.kind)}, until {moment(made.expires_at)}", style="dim")


def typed(address: str, kind: str) -> str:
    """Return what a new member types."""
    if kind == "user":
        return f"umbel run APP --server {address}"
    return f"umbel node --join {address} --app package.module:app"


def _list(screen: Screen, remote: Remote) -> None:
    rows = remote.tokens()
    now = time.time() + remote.clock_offset
    states = [state_of(row, now) for row in rows]
    if screen.json:
        tokens = [{**plain(row), "state": state} for row, state in zip(rows, states, strict=True)]
        screen.emit({"tokens": tokens})
        return
    if not rows:
        screen.say("no token; umbel token makes one")
        return
    columns = [
        Column("token", right=True),
        Column("for"),
        Column("state"),
        Column("uses left", right=True),
        Column("until"),
    ]
    cells = [
        [str(row.token), row.kind, state, str(row.uses_left), moment(row.expires_at)]
        for row, state in zip(rows, states, strict=True)
    ]
    screen.table(columns, cells)


def state_of(row: TokenRow, now: float) -> str:
    """Return what a token is at a time in seconds since 1970: "open", or why it opens nothing any more."""
    if row.revoked:
        return "revoked"
    if not row.uses_left:
        return "used up"
    return "open" if now < row.expires_at else "expired"
