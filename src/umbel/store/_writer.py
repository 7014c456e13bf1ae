"""The one thread that writes: everything that waits goes into one transaction, and one flush of the disk serves all."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from umbel.errors import LedgerFailed, StorageFull, StoreError, UmbelError
from umbel.failpoint import failpoint
from umbel.store._faults import is_fatal, named

_T = TypeVar("_T")
_BATCH: Final = 1_000


class Backend(Protocol):
    """What the writer wants of a database."""

    place: str

    def open(self) -> None:
        """Take hold of the database."""
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """Give a connection for one snapshot."""
        ...

    def writing(self) -> sa.Connection:
        """Return a new connection to write on, which no pool has."""
        ...

    def settle(self, connection: sa.Connection) -> None:
        """Do what is to be done now and then, between transactions."""
        ...

    def close(self, *, clean: bool) -> None:
        """Let go of the database."""
        ...


class _Job(NamedTuple):
    """An operation, and who waits for it."""

    op: Callable[[sa.Connection], Any]
    future: "Future[Any]"
    between: bool


_Done = tuple[_Job, Any, BaseException | None]


class _BatchFailed(Exception):
    """The transaction cannot be committed."""

    def __init__(self, reason: UmbelError) -> None:
        super().__init__(reason)
        self.reason = reason


class Writer:
    """Executes operations in the order in which they came."""

    def __init__(self, backend: Backend, connection: sa.Connection) -> None:
        self._backend = backend
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._dead: UmbelError | None = None
        self._connection: sa.Connection | None = connection
        self._thread = threading.Thread(target=self._run, name="umbel-ledger", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise if the ledger is closed, or its disk has failed."""
        if self._dead is not None:
            raise type(self._dead)(self._dead.message, at=self._dead.at) from self._dead
        if self._closed:
            raise StoreError("expected an open ledger, got one that is closed", at=self._backend.place)

    def submit(self, op: Callable[[sa.Connection], _T], *, between: bool = False) -> "Future[_T]":
        """Queue an operation."""
        future: Future[_T] = Future()
        with self._gate:
            self.require()
            self._jobs.put(_Job(op, future, between))
        return future

    def close(self) -> bool:
        """Finish what is queued and end the thread; return whether all was well."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()
        return self._dead is None

    def _run(self) -> None:
        more = True
        while more:
            jobs, more = self._take()
            try:
                self._execute(jobs)
            except BaseException as error:  # noqa: BLE001 - the thread must answer everyone who waits, whatever happened to it
                self._give_up(jobs, LedgerFailed(f"its writer failed: {error!r:.200}", at=self._backend.place))
        self._disconnect()

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job, and return it with those that came meanwhile; False with the last ones."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH or self._jobs.empty():
                return jobs, True
            job = self._jobs.get()
        return jobs, False

    def _execute(self, jobs: list[_Job]) -> None:
        """Run jobs in order; those that write, up to the next that runs between, in one transaction."""
        group: list[_Job] = []
        for job in jobs:
            if not job.future.set_running_or_notify_cancel():
                continue
            if not job.between:
                group.append(job)
                continue
            self._commit(group)
            self._between(job)
            group = []
        self._commit(group)

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            done = self._transact(jobs)
        except _BatchFailed as failed:
            self._give_up(jobs, failed.reason)
            return
        for job, result, error in done:
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)
        self._settle()

    def _transact(self, jobs: list[_Job]) -> list[_Done]:
        """Run jobs in one transaction and commit it; raise ``_BatchFailed`` if that does not come about."""
        try:
            self._require_alive()
            connection = self._connected()
            transaction = connection.begin()
            done = [self._attempt(connection, job, alone=len(jobs) == 1) for job in jobs]
            failpoint("store.writing")
            if all(error is not None for _, _, error in done):
                transaction.rollback()
            else:
                transaction.commit()
                failpoint("store.committed")
        except _BatchFailed:
            raise
        except Exception as error:  # of the database or its driver: operations keep theirs
            raise _BatchFailed(self._reason(error)) from error
        return done

    def _attempt(self, connection: sa.Connection, job: _Job, *, alone: bool) -> _Done:
        """Run one operation; if it fails, take back what it did, unless it is alone and all is taken back anyway."""
        if not alone:
            _driver(connection).execute("SAVEPOINT op")
        try:
            result = job.op(connection)
        except BaseException as error:  # noqa: BLE001 - whatever an operation raises is its caller's
            self._check(error)
            if not alone:
                _driver(connection).execute("ROLLBACK TO op")
            return job, None, named(error, self._backend.place) or error
        if not alone:
            _driver(connection).execute("RELEASE op")
        return job, result, None

    def _check(self, error: BaseException) -> None:
        """Raise ``_BatchFailed`` for an error after which the transaction is lost."""
        reason = named(error, self._backend.place)
        if isinstance(reason, StoreError):
            raise _BatchFailed(reason) from error

    def _between(self, job: _Job) -> None:
        try:
            self._require_alive()
            connection = self._connected()
            transaction = connection.begin()
            try:
                result = job.op(connection)
            finally:
                transaction.rollback()
        except BaseException as error:  # noqa: BLE001 - whatever an operation raises is its caller's
            reason = named(error, self._backend.place)
            if isinstance(reason, StoreError):
                self._give_up([job], reason)
            else:
                job.future.set_exception(reason or error)
        else:
            job.future.set_result(result)

    def _require_alive(self) -> None:
        if self._dead is not None:
            raise self._dead

    def _settle(self) -> None:
        try:
            self._backend.settle(self._connected())
        except Exception as error:  # noqa: BLE001 - of the database or its driver; what was committed is answered
            self._lost(self._reason(error))

    def _connected(self) -> sa.Connection:
        if self._connection is None:
            self._connection = self._backend.writing()
        return self._connection

    def _reason(self, error: BaseException) -> UmbelError:
        if isinstance(error, UmbelError):
            return error
        return named(error, self._backend.place) or StoreError(f"the database refused: {error}", at=self._backend.place)

    def _give_up(self, jobs: list[_Job], reason: UmbelError) -> None:
        self._lost(reason)
        _fail(jobs, reason)

    def _lost(self, reason: UmbelError) -> None:
        """Take back what was not committed, and let go of the connection; after some errors, of the ledger.

        On a full disk the connection stays: there may be no room to make another one.
        """
        if is_fatal(reason):
            self._dead = self._dead or reason
        if isinstance(reason, StorageFull) and self._connection is not None:
            with suppress(Exception):  # then it is not fit to stay
                self._connection.rollback()
                return
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            closers = [connection.close]
            # It may have failed before; that it fails again says nothing new. Below SQLAlchemy it must go too.
            with suppress(Exception):
                closers.append(_driver(connection).close)
            for close in closers:
                with suppress(Exception):
                    close()


def _driver(connection: sa.Connection) -> Any:
    """Return the driver's own connection: for three words a savepoint, the way through SQLAlchemy is long."""
    return connection.connection.dbapi_connection


def _fail(jobs: list[_Job], reason: BaseException) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(reason)
