"""``umbel node rotate``: a new key for a node, with no instant at which a crash would leave it without one."""

import asyncio
from pathlib import Path
from typing import Final

from umbel.cli._start import started
from umbel.cli._text import safe
from umbel.errors import AuthError, UsageError
from umbel.http import Client, Identity, rotation
from umbel.http.wire import Rotate
from umbel.node import Membership, Spool, read_membership

_KEY: Final = "key"
_NEXT: Final = "key.next"
_NOTHING: Final = "blake3:" + "0" * 64


def rotate_key(folder: Path) -> None:
    """Give the node in ``folder`` a new key: first on its disk, then at the server, then in use.

    Raises ``SpoolInUse`` while the node runs, since it would go on with the old key.
    """
    started(folder)
    with Spool(folder):
        place = read_membership(folder)
        if place is None:
            msg = f"expected a node that has joined a server, got one that has not: {safe(str(folder))}"
            raise UsageError(msg)
        path = folder / _NEXT
        following = Identity.load(path) if path.exists() else Identity.create(path)
        asyncio.run(_rotate(place, Identity.load(folder / _KEY), following))
        path.rename(folder / _KEY)


async def _rotate(place: Membership, present: Identity, following: Identity) -> None:
    async with Client(place.url, present, place.member, fingerprint=place.fingerprint) as client:
        audience = (await client.hello()).audience
        proof = following.sign(rotation(place.member, audience))
        try:
            await client.call("rotate", Rotate(key=following.key, proof=proof))
        except AuthError:
            # The server may have taken the new key already, before a crash: then the new one opens it.
            client.identity = following
            await client.stat_blob(_NOTHING)
