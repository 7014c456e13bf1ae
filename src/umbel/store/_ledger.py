"""The ledger: a database that one server has open, read by any thread and written by one."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self, TypeVar

import sqlalchemy as sa

from umbel.errors import UsageError
from umbel.store._faults import named
from umbel.store._migrations import migrate
from umbel.store._postgres import Postgres
from umbel.store._sqlite import Sqlite
from umbel.store._writer import Backend, Writer

_T = TypeVar("_T")
Op = Callable[[sa.Connection], _T]


class Ledger:
    """Runs, rounds, messages, replies, members and the audit log, in SQLite or PostgreSQL.

    What is done to it is an operation: a function that takes a connection, such as those of ``members``, ``runs``,
    ``messages``, ``replies``, ``references`` and ``audit`` with their arguments bound. All methods may be called from
    any thread. A ledger is a context manager that closes itself.
    """

    def __init__(self, backend: Backend, connection: sa.Connection, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._writer = Writer(backend, connection)
        self.clock = clock

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> "Ledger":
        """Open the ledger at a URL, make it if it is not there, and bring its schema up to date.

        Args:
            url: ``sqlite:///path``, ``postgresql://user@host/database`` or ``postgresql+psycopg://...``.
            clock: the server's clock, in seconds since 1970; kept as ``clock`` for whoever writes times.

        Raises:
            LedgerInUse: if another process has it open.
            SchemaTooNew: if a newer release has written it.
            LedgerDamaged: if it fails the integrity check that follows an unclean stop.
            StoreError: if it cannot be opened, with the reason.
            MissingExtra: for PostgreSQL without its driver.
            UsageError: for another kind of URL.

        """
        backend = _backend(url)
        connection = None
        try:
            backend.open()
            connection = backend.writing()
            with connection.begin():
                migrate(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            backend.close(clean=False)
            reason = named(error, backend.place)
            if reason is not None:
                raise reason from error
            raise
        return cls(backend, connection, clock)

    def read(self, op: Op[_T]) -> _T:
        """Run an operation that writes nothing, in this thread, on one snapshot of what is committed."""
        self._writer.require()
        try:
            with self._backend.reading() as connection:
                return op(connection)
        except Exception as error:
            reason = named(error, self._backend.place)
            if reason is not None:
                raise reason from error
            raise

    def write(self, op: Op[_T]) -> "Future[_T]":
        """Queue an operation; the future has its result once that is durable, or its error, and then nothing changed.

        Operations that wait are committed together. One that raises fails alone. When the commit fails, so do all of
        them: with ``StorageFull`` when the disk is full, and later ones may succeed; with ``LedgerFailed`` when the
        disk has failed, and the ledger does nothing more until it is opened again.
        """
        return self._writer.submit(op)

    def between(self, op: Op[_T]) -> "Future[_T]":
        """Queue an operation that runs between two commits: it reads what is committed, and nothing is written then.

        So what it finds stays true until it returns. It must not write to the ledger, and should be short.
        """
        return self._writer.submit(op, between=True)

    def close(self) -> None:
        """Finish what is queued, and close; again does nothing."""
        self._backend.close(clean=self._writer.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _backend(url: str) -> Backend:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise UsageError("expected sqlite:///path or postgresql://user@host/database", at="ledger URL") from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite") and parsed.database not in (None, "", ":memory:"):
        return Sqlite(parsed)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return Postgres(parsed.set(drivername="postgresql+psycopg"))
    raise UsageError(
        f"expected sqlite:///path or postgresql://user@host/database, got a URL of {parsed.drivername!r:.40}: a ledger "
        "is a file or a database server",
        at="ledger URL",
    )
