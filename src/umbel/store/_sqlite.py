"""The ledger in a file of SQLite: write-ahead log, every commit flushed, and nobody beside this process."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from umbel.errors import LedgerDamaged, LedgerInUse, StorageFull, StoreError
from umbel.records._files import sync_folder
from umbel.store._faults import named

_READERS: Final = 8
_MORE_READERS: Final = 56
_BUSY_MS: Final = 5_000
# The log is copied into the file when so many rows have changed or transactions have passed, or it has so many bytes.
_ROWS: Final = 4_000
_COMMITS: Final = 500
_LOG_BYTES: Final = 8 * 2**20
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {_BUSY_MS}",
    f"PRAGMA journal_size_limit = {_LOG_BYTES // 2}",
    # Done by hand between transactions: a failure of its own accord would go unnoticed.
    "PRAGMA wal_autocheckpoint = 0",
)


class Sqlite:
    """One file, the lock beside it, and a mark that says that it is open."""

    def __init__(self, url: sa.URL) -> None:
        path = Path(url.database or "").absolute()
        self.place = str(path)
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._mark = path.with_name(f"{path.name}.open")
        self._lock: int | None = None
        self._rows = self._commits = 0
        self._engine = sa.create_engine(
            sa.URL.create("sqlite+pysqlite", database=str(path)),
            connect_args={"check_same_thread": False, "timeout": _BUSY_MS / 1000, "isolation_level": None},
            poolclass=sa.QueuePool,
            pool_size=_READERS,
            max_overflow=_MORE_READERS,
        )
        sa.event.listen(self._engine, "connect", _set_up)
        sa.event.listen(self._engine, "begin", _begin)

    def open(self) -> None:
        """Take the lock, make the file if it is not there, and check it if it was not closed."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._path.with_name(f"{self._path.name}.lock"), self.place)
            unclean = self._mark.exists()
            for path in (self._path, self._mark):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_folder(self._path.parent)
        except OSError as error:
            raise StoreError(f"the ledger cannot be opened: {error.strerror}", at=str(error.filename)) from error
        if unclean:
            self._check()

    def _check(self) -> None:
        with self.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise LedgerDamaged(f"its file is damaged: restore the latest backup ({found:.200})", at=self.place)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection for one snapshot."""
        with self._engine.connect() as connection, connection.begin() as transaction:
            yield connection
            transaction.rollback()

    def writing(self) -> sa.Connection:
        """Return a connection that may write."""
        connection = self._engine.connect().execution_options(umbel_writes=True)
        connection.detach()
        _raw(connection).execute("PRAGMA query_only = OFF")
        self._rows = _raw(connection).total_changes
        return connection

    def settle(self, connection: sa.Connection) -> None:
        """Copy the log into the file if it has grown; readers of old snapshots only put that off."""
        self._commits += 1
        rows = _raw(connection).total_changes
        if rows - self._rows < _ROWS and self._commits < _COMMITS and not self._is_long():
            return
        self._rows, self._commits = rows, 0
        self._copy_log(connection)

    def _is_long(self) -> bool:
        return self._commits % 16 == 0 and self._log.exists() and self._log.stat().st_size > _LOG_BYTES

    def _copy_log(self, connection: sa.Connection) -> None:
        try:
            # Below SQLAlchemy, which would begin a transaction first, and in one nothing can be copied.
            _raw(connection).execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # On a full disk the log goes on holding what was committed, and is copied later.
            if not isinstance(named(error, self.place), StorageFull):
                raise

    def close(self, *, clean: bool) -> None:
        """Close everything, and take the mark away if all was well."""
        with suppress(Exception):  # a connection that cannot be closed is closed with the process
            self._engine.dispose()
        if self._lock is not None:
            if clean:
                with suppress(OSError):
                    self._mark.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def _locked(path: Path, place: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LedgerInUse(
            "another process has this ledger open: stop it, or give this server a folder of its own", at=place
        ) from error
    return descriptor


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    for setting in _SETTINGS:
        connection.execute(setting)
    connection.execute("PRAGMA query_only = ON")


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("umbel_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _raw(connection: sa.Connection) -> Any:
    return connection.connection.dbapi_connection
