"""The ledger in a database of PostgreSQL, held by an advisory lock of the connection that writes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import sqlalchemy as sa

from umbel.errors import LedgerInUse, MissingExtra

_READERS: Final = 8
_MORE_READERS: Final = 24
_LOCK: Final = 0x756D62656C  # "umbel"
_LOCK_MS: Final = 3_000
_LOCK_NOT_AVAILABLE: Final = "55P03"
_CONNECT_SECONDS: Final = 10


class Postgres:
    """One database, the lock in it, and a pool of connections."""

    def __init__(self, url: sa.URL) -> None:
        self.place = url.render_as_string(hide_password=True)
        try:
            self._engine = sa.create_engine(
                url,
                connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "umbel"},
                pool_size=_READERS,
                max_overflow=_MORE_READERS,
                pool_pre_ping=True,
            )
        except ImportError as error:
            raise MissingExtra(
                "a ledger in PostgreSQL needs psycopg, which is not installed: `pip install 'umbel[postgres]'`"
            ) from error

    def open(self) -> None:
        """Do nothing: the first connection finds out whether the database is there, and free."""

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection for one snapshot."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._engine.connect().execution_options(**options) as connection:
            yield connection

    def writing(self) -> sa.Connection:
        """Return a connection that may write: the lock is its own, so that no two processes ever do.

        The lock of a process that was killed is free as soon as the database has noticed, which is waited for.
        """
        connection = self._engine.connect()
        connection.detach()
        try:
            connection.exec_driver_sql(f"SET synchronous_commit = on; SET lock_timeout = {_LOCK_MS}")
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            connection.exec_driver_sql("SET lock_timeout = 0")
            connection.commit()
        except BaseException as error:
            connection.close()
            if getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise self._in_use() from error
            raise
        return connection

    def _in_use(self) -> LedgerInUse:
        hint = "stop it, or give this server a database of its own"
        return LedgerInUse(f"another process has this ledger open: {hint}", at=self.place)

    def settle(self, connection: sa.Connection) -> None:
        """Do nothing: the database looks after itself."""

    def close(self, *, clean: bool) -> None:  # noqa: ARG002 - what PostgreSQL does after an unclean stop is its own
        """Close everything."""
        with suppress(Exception):  # a connection that cannot be closed is closed with the process
            self._engine.dispose()
