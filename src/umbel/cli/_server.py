"""``umbel server``: a server, from the first start to the last."""

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from umbel.cli._options import Json
from umbel.cli._remote import Remote
from umbel.cli._screen import Screen, open_screen
from umbel.cli._servers import About, Known, data_folder, remember_own
from umbel.cli._service import begin_service
from umbel.cli._text import safe
from umbel.cli._token import typed
from umbel.cli._units import seconds
from umbel.errors import UmbelError, UsageError
from umbel.http import Token, join_line
from umbel.http.wire import TokenRequest
from umbel.server import Server, Settings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with what was asked for
_DAY = 86_400.0
_NOT_LISTENING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def server(  # noqa: PLR0913 - the options of a command are its arguments
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where everything is kept.", show_default=f"{data_folder()}/server"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen on this address; all by default.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, metavar="PORT", help="0 lets the system choose.")] = 8443,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The name or address by which nodes reach this machine; may be repeated.",
            show_default=False,
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A certificate chain of your own, in PEM.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key of --cert, in PEM.", show_default=False)
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Plain HTTP, on this machine's loopback address only.")
    ] = False,
    database: Annotated[
        str, typer.Option(metavar="URL", help="A PostgreSQL ledger: postgresql://user@host/name.", show_default=False)
    ] = "",
    blobs: Annotated[
        str, typer.Option(metavar="URL", help="An object store for models: s3://bucket/prefix.", show_default=False)
    ] = "",
    mains: Annotated[
        bool,
        typer.Option(
            "--mains", help="Users, not the operator alone, may run mains of their own: they see each update."
        ),
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep who was asked for the last N rounds only.", show_default=False),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Print lines for N nodes if there are none yet.")
    ] = 2,
    poll: Annotated[
        float,
        typer.Option(parser=seconds, metavar="TIME", help="How long an empty poll is held: the heartbeat of nodes."),
    ] = "25s",  # type: ignore[assignment]
    patience: Annotated[
        float | None,
        typer.Option(
            parser=seconds, metavar="TIME", help="How long a node may be silent; 3 times --poll.", show_default=False
        ),
    ] = None,
    stall: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="How long a connection may make no progress.")
    ] = "10s",  # type: ignore[assignment]
    skew: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="How long a signature of a request lives.")
    ] = "60s",  # type: ignore[assignment]
    json: Json = False,
) -> None:
    """Serve a federation: nodes join it and runs are trained over them.

    The first start makes a certificate, whose fingerprint the lines for nodes carry, so TLS is on without further work.
    Whatever ends the server, the same command line starts it again, and its runs go on by themselves. Standard error
    gets a line whenever something happens that matters.

    \b
      umbel server
      umbel server --name fed.example.org --data /var/lib/umbel
      umbel server --database postgresql://umbel@db/umbel --blobs s3://models/umbel
      umbel server --insecure-http --port 0        plain HTTP, to try things out on this machine
    """  # noqa: D301 - a real backspace keeps the lines below it as they are
    _check(host, cert, key, insecure_http=insecure_http)
    folder = data or data_folder() / "server"
    listen = host or ("127.0.0.1" if insecure_http else "0.0.0.0")  # noqa: S104 - nodes are on other machines
    settings = Settings(
        data=folder,
        host=listen,
        port=port,
        plain=insecure_http,
        certificate=cert,
        key=key,
        hosts=names(name or [], listen),
        database=database,
        blobs=blobs,
        mains=mains,
        keep=keep,
        poll=poll,
        patience=patience,
        stall=stall,
        skew=skew,
    )
    screen = open_screen(json_wanted=json)
    begin_service(json_wanted=json)
    try:
        Server(settings, ready=_greeting(screen, folder, listen, tokens)).run()
    except OSError as error:
        if error.errno not in _NOT_LISTENING or error.filename is not None:  # a file that may not be opened is no port
            raise
        msg = f"expected to listen on port {port} of {safe(listen)}, but {os.strerror(error.errno).lower()}"
        raise UsageError(f"{msg}: another server may be there; choose with --port and --host") from error


def _check(host: str | None, cert: Path | None, key: Path | None, *, insecure_http: bool) -> None:
    if (cert is None) != (key is None):
        raise UsageError("expected --cert and --key together, got one of them")
    if insecure_http and cert is not None:
        raise UsageError("expected --insecure-http or a certificate, got both")
    if insecure_http and host not in (None, *_LOOPBACK):
        msg = f"expected a loopback address, since plain HTTP is for this machine only, got {safe(str(host))}"
        raise UsageError(msg, at="--insecure-http")


def names(given: list[str], listen: str) -> tuple[str, ...]:
    """Return the names of the server, the one that lines for nodes carry first; it always answers to loopback."""
    known = [*given, *([] if given or listen in _LOOPBACK else _own_name()), *([listen] if listen in _LOOPBACK else [])]
    return tuple(dict.fromkeys((*known, "localhost", "127.0.0.1")))


def _own_name() -> list[str]:
    """Return the name of this machine, if it leads anywhere."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return []
    return [name]


def _greeting(screen: Screen, folder: Path, listen: str, tokens: int) -> Callable[[Any], None]:
    """Return what is called in the event loop once the server listens; it asks the server, so it needs a thread."""

    def greet(about: Any) -> None:
        known = About(about.url, about.fingerprint, about.member, key_file=about.key_file)
        threading.Thread(target=_greet, args=(screen, folder, known, listen, tokens), daemon=True).start()

    return greet


def _greet(screen: Screen, folder: Path, about: About, listen: str, tokens: int) -> None:
    try:
        remember_own(folder, about)
    except OSError as error:
        typer.echo(f"your config folder cannot be written ({error.strerror}): say --data {folder}", err=True)
    try:
        lines = _lines(Known(folder, about), listen, tokens)
    except UmbelError as error:
        typer.echo(f"no lines for nodes could be made: {error}", err=True)
        lines = []
    _print(screen, about, lines)


def _lines(known: Known, listen: str, tokens: int) -> list[str]:
    """Return addresses with tokens for the first nodes; there are none once a node has joined."""
    about, scheme, port = known.about, known.about.url.partition("://")[0], known.about.url.rpartition(":")[2]
    # By its own name the machine may not reach itself.
    address = "127.0.0.1" if listen in _ANY else f"[{listen}]" if ":" in listen else listen
    here = msgspec.structs.replace(about, url=f"{scheme}://{address}:{port}")
    remote = Remote(Known(known.folder, here))
    try:
        made = [remote.token(TokenRequest(valid=_DAY)) for _ in range(0 if remote.nodes() else tokens)]
    finally:
        remote.close()
    return [join_line(about.url, Token(each.secret, about.fingerprint)) for each in made]


def _print(screen: Screen, about: About, lines: list[str]) -> None:
    if screen.json:
        values = {"url": about.url, "fingerprint": about.fingerprint, "joins": lines}
        screen.emit({"event": "listening", **values})
        return
    screen.say(f"umbel server at {about.url}")
    if about.fingerprint:
        screen.say(f"fingerprint {about.fingerprint}")
    for line in lines:
        screen.say(typed(line, "node"), style="bold")
    if lines:
        screen.say("each of these lines is for one node, within a day; umbel token makes more", style="dim")
    screen.say(f"next     umbel run APP --server {about.url}", style="bold")
