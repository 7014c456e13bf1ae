"""Which blobs a run needs, so that no other is kept for long. Each function is an operation of a ledger.

A holder says what of a run needs a blob: "spec", "state", "phase train 3" or "message 17". A reference is written in
the transaction that needs it, after a look that the blob is there; blobs are deleted between transactions alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import sqlalchemy as sa

from umbel.errors import BlobMissing
from umbel.store import _tables as tables

__all__ = ["Present", "hold", "of_run", "release", "release_round", "unreferenced"]

#: Gives the size of a blob in the store, or None if it is not there, at once: ``Blobs.known``.
Present: TypeAlias = Callable[[str], int | None]

# Databases take a bounded number of parameters in one statement.
_BATCH: Final = 500
_NO_ROUND: Final = -1


def hold(
    connection: sa.Connection,
    run: int,
    holder: str,
    blobs: Mapping[str, int],
    *,
    present: Present,
    number: int = _NO_ROUND,
) -> None:
    """Take note that a run needs blobs, given as digest and size. ``number`` is the round with whose end that ends.

    ``present`` gives the size of a blob in the store, or None.

    Raises ``BlobMissing`` with the first digest that is not there, or not of that size.
    """
    for digest, size in blobs.items():
        found = present(digest)
        if found != size:
            what = "nothing" if found is None else f"{found} bytes"
            raise BlobMissing(f"expected {size} bytes in the store, got {what}: upload the blob first", at=digest)
    if blobs:
        row = {"run": run, "holder": holder, "round": number}
        connection.execute(_HOLD, [{**row, "digest": digest, "size": size} for digest, size in blobs.items()])


def release(connection: sa.Connection, run: int, holder: str) -> None:
    """Forget what one holder needs."""
    connection.execute(_RELEASE, {"run": run, "holder": holder})


def release_round(connection: sa.Connection, run: int, number: int) -> None:
    """Forget what a round needed."""
    connection.execute(_RELEASE_ROUND, {"run": run, "number": number})


def of_run(connection: sa.Connection, run: int) -> dict[str, int]:
    """Return the digests that a run needs, with their sizes."""
    query = sa.select(tables.references.c.digest, tables.references.c.size).where(tables.references.c.run == run)
    return {row.digest: row.size for row in connection.execute(query.order_by(tables.references.c.digest))}


def unreferenced(connection: sa.Connection, digests: Iterable[str]) -> set[str]:
    """Return those of ``digests`` that nothing needs."""
    rest = list(digests)
    free = set(rest)
    for start in range(0, len(rest), _BATCH):
        query = sa.select(tables.references.c.digest).where(
            tables.references.c.digest.in_(rest[start : start + _BATCH])
        )
        free.difference_update(connection.execute(query).scalars())
    return free


_HOLD: Final = sa.insert(tables.references)
_RELEASE: Final = sa.delete(tables.references).where(
    tables.references.c.run == sa.bindparam("run"), tables.references.c.holder == sa.bindparam("holder")
)
_RELEASE_ROUND: Final = sa.delete(tables.references).where(
    tables.references.c.run == sa.bindparam("run"), tables.references.c.round == sa.bindparam("number")
)
