"""The audit log: who did what, each entry chained to the one before by its hash. Operations of a ledger.

An entry's hash is BLAKE3 over the hash before it and the entry's fields as canonical JSON. So an entry that was edited,
left out or put in between shows, unless all after it were written anew: whoever wants to see that too keeps ``head``
elsewhere.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from blake3 import blake3

from umbel.errors import AuditBroken
from umbel.store import _tables as tables
from umbel.store._json import legible, packed, unpacked

__all__ = ["Entry", "Head", "append", "entries", "head", "verify"]

_FIRST: Final = bytes(32)
_PAGE: Final = 1_000


class Entry(msgspec.Struct, frozen=True):
    """One entry: its number from 1 on, when, who (such as "user ada" or "server"), what, the details, and its hash."""

    seq: int
    at: float
    actor: str
    action: str
    detail: dict[str, Any]
    hash: bytes


class Head(NamedTuple):
    """The end of the log: the number of its last entry (0 for none) and that entry's hash (32 bytes)."""

    seq: int
    hash: bytes


def append(
    connection: sa.Connection, *, actor: str, action: str, now: float, detail: Mapping[str, Any] | None = None
) -> Entry:
    """Write an entry at the end. ``detail`` is what JSON can hold."""
    last = head(connection)
    said = dict(detail or {})
    row: dict[str, Any] = {
        "seq": last.seq + 1,
        "at": now,
        "actor": legible(actor),
        "action": legible(action),
        "detail": packed(said),
    }
    found = _hash(last.hash, row)
    connection.execute(_APPEND, row | {"previous": last.hash, "hash": found})
    return Entry(last.seq + 1, now, row["actor"], row["action"], said, found)


def head(connection: sa.Connection) -> Head:
    """Return the end of the log."""
    row = connection.execute(_HEAD).first()
    return Head(0, _FIRST) if row is None else Head(row.seq, row.hash)


def entries(connection: sa.Connection, *, after: int = 0, limit: int = _PAGE) -> list[Entry]:
    """Return up to ``limit`` entries with numbers above ``after``, in order."""
    return [_entry(row) for row in _rows(connection, after, limit)]


def verify(connection: sa.Connection, known: Head | None = None) -> int:
    """Follow the whole chain, and return how many entries it has.

    ``known`` is a head that was kept elsewhere: the log must still hold it.

    Raises ``AuditBroken`` with the first entry that does not follow from the one before it.
    """
    seq, previous = 0, _FIRST
    while page := _rows(connection, seq, _PAGE):
        for row in page:
            if row.seq != seq + 1 or row.previous != previous or row.hash != _hash(previous, row._mapping):  # noqa: SLF001 - SQLAlchemy's public name
                raise _broken("an entry that follows from the one before it", seq + 1)
            seq, previous = row.seq, row.hash
            if known is not None and seq == known.seq and previous != known.hash:
                raise _broken("the hash that was kept elsewhere", seq)
    if known is not None and seq < known.seq:
        raise _broken(f"{known.seq} entries or more", seq)
    return seq


_A: Final = tables.audit.c
_APPEND: Final = sa.insert(tables.audit)
_HEAD: Final = sa.select(_A.seq, _A.hash).order_by(_A.seq.desc()).limit(1)
_ENTRIES: Final = sa.select(tables.audit).where(_A.seq > sa.bindparam("after")).order_by(_A.seq)


def _rows(connection: sa.Connection, after: int, limit: int) -> list[Any]:
    return list(connection.execute(_ENTRIES.limit(limit), {"after": after}))


def _entry(row: Any) -> Entry:
    return Entry(row.seq, row.at, row.actor, row.action, unpacked(row.detail, dict[str, Any], "audit.detail"), row.hash)


def _hash(previous: bytes, row: Mapping[str, Any]) -> bytes:
    said = packed([row["seq"], row["at"], row["actor"], row["action"], row["detail"]])
    return blake3(previous + said.encode()).digest()


def _broken(expected: str, seq: int) -> AuditBroken:
    return AuditBroken(f"expected {expected}, found another: the log was edited", at=f"audit entry {seq}")
