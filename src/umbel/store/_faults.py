"""What a database says when it fails, as errors of ours."""

import sqlite3
from typing import Any, Final

import sqlalchemy as sa

from umbel.errors import LedgerDamaged, LedgerFailed, StorageFull, StoreError, StoreUnavailable, UmbelError, UsageError

# Result codes of SQLite, or their low byte.
_SQLITE: Final[dict[int, tuple[type[UmbelError], str]]] = {
    3: (StoreError, "it may not be read or written: check the rights of the folder and its files"),
    5: (StoreUnavailable, "another program has it locked: close that program"),
    6: (StoreUnavailable, "another program has it locked: close that program"),
    8: (StoreError, "it may only be read: check the rights of the folder, and whether the disk is mounted read-only"),
    10: (LedgerFailed, "the disk failed: look at it and at the system log, then start again"),
    11: (LedgerDamaged, "its file is damaged: restore the latest backup"),
    13: (StorageFull, "the disk is full: make room"),
    14: (StoreError, "it cannot be opened: check that its folder is there, its rights, and the limit of open files"),
    4874: (StorageFull, "the disk is full: make room"),  # no room for the index of the log
    26: (LedgerDamaged, "its file is no ledger: check the path, or restore the latest backup"),
}
# States of PostgreSQL, or their first two characters.
_POSTGRES: Final[dict[str, tuple[type[UmbelError], str]]] = {
    "53100": (StorageFull, "its disk is full: make room"),
    "58030": (LedgerFailed, "its disk failed: look at it and at the server's log, then start again"),
    "XX": (LedgerDamaged, "it is damaged: look at the server's log, and restore the latest backup"),
    "28": (StoreError, "it refuses this user: check the user and the password in the URL"),
    "3D": (StoreError, "there is no such database: make it with createdb"),
    "42501": (StoreError, "this user may not do that: give it the rights to the database and its schema"),
    "08": (StoreUnavailable, "the connection was lost: it is made again with the next request"),
    "40": (StoreUnavailable, "another program was in the way: repeat the request"),
    "53": (StoreUnavailable, "it has no room for another connection: raise its limit"),
    "55": (StoreUnavailable, "another program has it locked: close that program"),
    "57": (StoreUnavailable, "it was stopped: start it, and repeat the request"),
}
_FATAL: Final = (LedgerFailed, LedgerDamaged)


def named(error: BaseException, place: str) -> UmbelError | None:
    """Return what an error of a database means, or None if it is no failure of the database."""
    original: Any = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    kinds = {kind.__name__ for kind in type(original).__mro__}
    if kinds & {"OverflowError", "DataError", "UnicodeEncodeError"}:
        return UsageError("expected numbers of 64 bits with a sign, and Unicode text without NUL", at=place)
    if isinstance(error, sa.exc.TimeoutError):
        return StoreUnavailable("too many read from it at once: repeat the request", at=place)
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0)
        return _told(_SQLITE.get(code) or _SQLITE.get(code & 0xFF), original, place)
    if hasattr(original, "sqlstate"):
        # Without a state, it is the connection that failed.
        state = original.sqlstate or ("08" if "OperationalError" in kinds else "")
        return _told(_POSTGRES.get(state) or _POSTGRES.get(state[:2]), original, place)
    return None


def is_fatal(error: UmbelError) -> bool:
    """Say whether nothing may be written after an error until the ledger is opened again."""
    return isinstance(error, _FATAL)


def _told(meaning: tuple[type[UmbelError], str] | None, original: BaseException, place: str) -> UmbelError | None:
    if meaning is None:
        return None
    kind, hint = meaning
    return kind(f"{hint} ({str(original).strip().splitlines()[0]:.200})" if str(original) else hint, at=place)
