"""Garbage: blobs that nothing needs, found twice before they go."""

from collections.abc import Callable, Collection, Mapping
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


class Collected(NamedTuple):
    """What one pass did: the blobs it deleted, their bytes, and those to look at again in the next pass."""

    deleted: int
    freed: int
    seen: frozenset[str]


def collect(ledger: Ledger, blobs: Blobs, *, seen: Collection[str] = ()) -> Collected:
    """Delete the blobs that nothing needs and that the pass before this one found unneeded as well.

    A blob that is referenced is never deleted: a reference is written after a look that the blob is there, in the
    thread that writes the ledger, and blobs are deleted in that thread between two transactions, which wait for no
    network meanwhile. A blob that is not referenced yet has from one pass to the next but one to become so.

    Args:
        ledger: has the references.
        blobs: the store to clean.
        seen: ``seen`` of the pass before.

    """
    names = blobs.list()
    deleted, freed, again = 0, 0, set[str]()
    while batch := list(islice(names, _BATCH)):
        free = ledger.read(partial(references.unreferenced, digests=batch))
        old = [digest for digest in batch if digest in free and digest in seen]
        again |= free.difference(old)
        if old:
            there = {digest: size for digest in old if (size := blobs.has(digest)) is not None}
            sizes = ledger.between(_deleting(blobs, there)).result()
            deleted, freed = deleted + len(sizes), freed + sum(sizes)
    return Collected(deleted, freed, frozenset(again))


def _deleting(blobs: Blobs, there: Mapping[str, int]) -> Callable[[sa.Connection], list[int]]:
    def delete(connection: sa.Connection) -> list[int]:
        sizes = []
        for digest in references.unreferenced(connection, there):
            if blobs.delete(digest):
                sizes.append(there[digest])
                failpoint("store.collecting")
        return sizes

    return delete
