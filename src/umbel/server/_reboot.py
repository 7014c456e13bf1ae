"""After a loss of power: what nodes sent and the disk may have lost is looked at, and asked for again if it is gone.

Bytes of updates are not flushed before they are acknowledged. They survive every process; a machine that stops may lose
them. So the first start on a new boot hashes the updates of open rounds: a message whose update is damaged is
open again, and its node, which goes back to what it had before, makes the same bytes once more. Blobs that nothing
needs yet are hashed as well: their nodes have sent them and are about to say so, and what is there is not sent again.
"""

from functools import partial
from pathlib import Path
from typing import Final

from umbel.envelope import Content, blobs_of
from umbel.errors import DigestMismatch, NotFound
from umbel.records._files import write
from umbel.server._keeper import Keeper
from umbel.store import replies, verify

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def recover(keeper: Keeper, marker: Path) -> int:
    """Look at what is not known to be whole, unless ``marker`` names this boot; return how many replies are gone."""
    boot = _BOOT.read_bytes() if _BOOT.exists() else b""
    if boot and marker.exists() and marker.read_bytes() == boot:
        return 0
    gone = [
        (run, given.message) for run, given in keeper.read(replies.of_open_phases) if _is_gone(keeper, given.content)
    ]
    for run, message in gone:
        keeper.write(partial(replies.retract, run=run, message=message))
    for digest in keeper.unneeded():
        _is_whole(keeper, digest)
    write([boot], marker)
    return len(gone)


def _is_gone(keeper: Keeper, content: Content | None) -> bool:
    return content is not None and not all(_is_whole(keeper, digest) for digest in blobs_of(content))


def _is_whole(keeper: Keeper, digest: str) -> bool:
    """Hash a blob, which is removed if it is not whole."""
    try:
        verify(keeper.blobs, digest)
    except (DigestMismatch, NotFound):
        return False
    return True
