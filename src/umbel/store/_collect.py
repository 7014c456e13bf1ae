"""Garbage: blobs that nothing needs, found twice before they go."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import sqlalchemy as sa

from umbel.failpoint import failpoint
from umbel.store import references
from umbel.store._blobs import Blobs
from umbel.store._ledger import Ledger

# So many blobs are looked at between two commits, which wait meanwhile.
_BATCH: Final = 16


class Pins:
    """Blobs in use by what the ledger does not know of yet: an upload, a request, a round that is being closed."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep blobs from being collected for a while."""
        mine = list(digests)
        with self._gate:
            self._held.update(mine)
        try:
            yield
        finally:
            with self._gate:
                self._held -= Counter(mine)

    def __contains__(self, digest: object) -> bool:
        return digest in self._held


class Collected(NamedTuple):
    """What one pass did: the blobs it deleted, their bytes, and those to look at again in the next pass."""

    deleted: int
    freed: int
    seen: frozenset[str]


def collect(
    ledger: Ledger, blobs: Blobs, *, seen: Collection[str] = (), pinned: Collection[str] | Pins = ()
) -> Collected:
    """Delete the blobs that nothing needs and that the pass before this one found unneeded as well.

    A blob that is referenced is never deleted: a reference is written after a look that the blob is there, in the
    thread that writes the ledger, and blobs are deleted in that thread between two transactions. A blob that is not
    referenced yet has from one pass to the next but one to become so; ``pinned`` gives it longer.

    Args:
        ledger: has the references.
        blobs: the store to clean.
        seen: ``seen`` of the pass before.
        pinned: what must stay whatever the ledger says.

    """
    names = blobs.list()
    deleted, freed, again = 0, 0, set[str]()
    while batch := list(islice(names, _BATCH)):
        free = ledger.read(partial(references.unreferenced, digests=batch))
        old = [digest for digest in batch if digest in free and digest in seen]
        again |= free.difference(old)
        if old:
            sizes = ledger.between(_deleting(blobs, old, pinned)).result()
            deleted, freed = deleted + len(sizes), freed + sum(sizes)
    return Collected(deleted, freed, frozenset(again))


def _deleting(blobs: Blobs, digests: list[str], pinned: Collection[str] | Pins) -> Callable[[sa.Connection], list[int]]:
    def delete(connection: sa.Connection) -> list[int]:
        sizes = []
        for digest in references.unreferenced(connection, digests):
            size = blobs.has(digest)
            if digest not in pinned and size is not None and blobs.delete(digest):
                sizes.append(size)
                failpoint("store.collecting")
        return sizes

    return delete
