"""Who a node is: its key, and what it knows of the server that it has joined, in its folder.

key           the private key, for its owner alone
member.json   where and which the server is, and who the node is there
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from umbel.errors import UsageError
from umbel.http import Client, Identity
from umbel.http.wire import Join, Joined
from umbel.node import _sealed
from umbel.node._line import Line
from umbel.node._settings import Settings
from umbel.node._status import Board

_KEY: Final = "key"
_FILE: Final = "member.json"

#: The release that a node says it runs.
RELEASE: Final = version("umbel")


class Membership(msgspec.Struct, frozen=True):
    """A node's place at a server: which server, its url and fingerprint, and the node's number and name there."""

    server: str
    url: str
    fingerprint: str
    member: int
    name: str


def read_membership(folder: Path) -> Membership | None:
    """Return what a node knows of its server, None before it has joined one."""
    path = folder / _FILE
    return _sealed.read(path, Membership) if path.exists() else None


def name_for(settings: Settings) -> str:
    """Return what the node is to be called."""
    return settings.name or platform.node() or "node"


def client_for(settings: Settings, known: Membership | None) -> Client:
    """Return a client that signs as this node; its key is made if there is none.

    The token's fingerprint goes before the one that is known: an operator who gives another means it. Raises
    ``UsageError`` when the node is to join and there is no token, or was called otherwise when it joined.
    """
    if known is None and not settings.secret:
        message = "expected a line with a token for the first start, got one without: umbel token prints it"
        raise UsageError(message, at=settings.url)
    if known is not None and settings.name and settings.name != known.name:
        message = (
            f"expected the node {known.name!r}, whose folder this is, got {settings.name!r}: give it its own folder"
        )
        raise UsageError(message, at=str(settings.folder))
    path = settings.folder / _KEY
    identity = Identity.load(path) if path.exists() else Identity.create(path)
    fingerprint = settings.fingerprint or (known.fingerprint if known is not None else "")
    return Client(settings.url, identity, known.member if known is not None else 0, fingerprint=fingerprint)


async def take_place(
    settings: Settings, known: Membership | None, client: Client, board: Board, types: tuple[str, ...]
) -> Membership:
    """Join the server, or find the place that the node has there.

    Raises ``UsageError`` when the folder belongs to a node of another server: runs would be mixed up.
    """
    board.turn("starting", f"{'joins' if known is None else 'calls'} {settings.url}")
    line = Line(client, board)
    server = await line.hello()
    if known is not None:
        if server != known.server:
            message = f"expected the server {known.server}, which this node joined, got {server}: use another folder"
            raise UsageError(message, at=f"{settings.folder}, {settings.url}")
        await line.recognised()
        return known
    identity = client.identity
    if identity is None:
        raise RuntimeError("a client of a node has an identity")
    wish = Join(
        secret=settings.secret,
        key=identity.key,
        kind="node",
        name=name_for(settings),
        app=settings.app,
        types=list(types),
        release=RELEASE,
    )
    joined: Joined = await line.call("join", wish)
    place = Membership(server, settings.url, settings.fingerprint, joined.member, joined.name)
    _sealed.write(settings.folder / _FILE, place, durable=True)
    client.member = joined.member
    return place
