"""How a ledger is opened, migrated and closed, and what it makes of the errors of databases."""

import errno
import sqlite3
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from umbel.errors import (
    LedgerDamaged,
    LedgerFailed,
    LedgerInUse,
    MissingExtra,
    SchemaTooNew,
    StorageFull,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from umbel.store import Ledger, _sqlite, audit, members
from umbel.store._faults import named
from umbel.store._migrations import STEPS, VERSION, migrate
from umbel.store._tables import METADATA
from umbel.testing._scene import submit


def note(connection):
    return audit.append(connection, actor="test", action="note", now=1.0).seq


def url_of(folder):
    return f"sqlite:///{folder}/ledger.db"


def test_the_steps_make_the_tables(ledger_url):
    def differences(connection):
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [each for each in compare_metadata(context, METADATA) if "alembic_version" not in str(each)]

    with Ledger.open(ledger_url) as ledger:
        assert ledger.read(differences) == []
        assert ledger.read(lambda c: c.execute(sa.select(VERSION)).scalars().all()) == [STEPS[-1][0]]


def test_the_steps_say_the_same_as_the_tables(tmp_path):
    def statements(connection):
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name != 'alembic_version'")
        return {name: " ".join((sql or "").split()) for name, sql in found if "alembic" not in name}

    engine = sa.create_engine("sqlite://")
    with Ledger.open(url_of(tmp_path)) as ledger, engine.connect() as connection:
        METADATA.create_all(connection)
        assert ledger.read(statements) == statements(connection)
    engine.dispose()


def test_a_later_step_runs_on_what_is_there(ledger_url):
    with Ledger.open(ledger_url) as ledger:
        ledger.write(note).result()
    steps = (*STEPS, ("later", lambda op: op.add_column("audit", sa.Column("place", sa.Text))))
    with Ledger.open(ledger_url) as ledger:
        for _ in range(2):
            ledger.write(lambda c: migrate(c, steps)).result()
        assert ledger.read(audit.verify) == 1
        assert ledger.read(lambda c: c.execute(sa.text("SELECT place FROM audit")).scalars().all()) == [None]
        assert ledger.read(lambda c: c.execute(sa.select(VERSION)).scalars().all()) == ["later"]
    with pytest.raises(SchemaTooNew, match=f"expected schema {STEPS[-1][0]} or one before it, got later"):
        Ledger.open(ledger_url)


def test_a_step_that_fails_leaves_the_schema_as_it_was(ledger_url):
    def half(op):
        op.add_column("audit", sa.Column("place", sa.Text))
        raise RuntimeError("as it should")

    with Ledger.open(ledger_url) as ledger:
        with pytest.raises(RuntimeError):
            ledger.write(lambda c: migrate(c, (*STEPS, ("later", half)))).result()
        columns = ledger.read(lambda c: [each["name"] for each in sa.inspect(c).get_columns("audit")])
        assert "place" not in columns
        assert ledger.read(lambda c: c.execute(sa.select(VERSION)).scalars().all()) == [STEPS[-1][0]]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://host/db",
        "ledger.db",
        "postgresql+psycopg2://host/db",
        "sqlite+x:///a",
    ],
)
def test_a_url_of_another_kind_is_refused(url):
    with pytest.raises(UsageError, match="sqlite:///path"):
        Ledger.open(url)


def test_the_url_of_a_driver_is_taken(postgres):
    url = postgres.create().replace("postgresql:", "postgresql+psycopg:")
    with Ledger.open(url) as ledger:
        assert ledger.write(note).result() == 1


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"umbel\[postgres\]"):
        Ledger.open("postgresql://host/database")


def test_a_password_is_in_no_message(tmp_path):
    with pytest.raises(StoreError) as caught:
        Ledger.open(f"postgresql://umbel:geheim@/ledger?host={tmp_path}")
    assert "geheim" not in str(caught.value)


def test_what_is_refused_lets_go_of_the_file(tmp_path):
    with Ledger.open(url_of(tmp_path)) as ledger:
        ledger.write(lambda c: c.execute(sa.update(VERSION).values(version_num="9999")).rowcount).result()
    for _ in range(2):
        with pytest.raises(SchemaTooNew):
            Ledger.open(url_of(tmp_path))


def test_the_mark_is_there_while_the_ledger_is_open(tmp_path):
    mark = tmp_path / "ledger.db.open"
    with Ledger.open(url_of(tmp_path)):
        assert mark.exists()
    assert not mark.exists()
    assert not (tmp_path / "ledger.db-wal").exists()


def test_files_are_for_their_owner_alone(tmp_path):
    with Ledger.open(url_of(tmp_path)) as ledger:
        ledger.write(note).result()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_another_process_is_refused(tmp_path):
    script = "import sys\nfrom umbel.store import Ledger\nLedger.open(sys.argv[1])"
    with Ledger.open(url_of(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-c", script, url_of(tmp_path)], capture_output=True, text=True, timeout=60, check=False
        )
    assert "LedgerInUse" in done.stderr


def test_sqlite_is_set_up_to_lose_nothing(tmp_path):
    with Ledger.open(url_of(tmp_path)) as ledger:
        for ask in (ledger.read, lambda op: ledger.write(op).result()):
            found = [
                ask(lambda c, p=pragma: c.exec_driver_sql(f"PRAGMA {p}").scalar())
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
            ]
            assert found == ["wal", 2, 1, 0]


def test_reading_cannot_write(ledger_url):
    with Ledger.open(ledger_url) as ledger:
        with pytest.raises((StoreError, sa.exc.DBAPIError)):
            ledger.read(note)
        assert ledger.read(audit.verify) == 0


def test_the_log_is_copied_into_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_sqlite, "_COMMITS", 10)
    with Ledger.open(url_of(tmp_path)) as ledger:
        for _ in range(200):
            ledger.write(note).result()
            ledger.read(audit.head)  # its connection stays: closing the last one would copy the log as well
        assert (tmp_path / "ledger.db-wal").stat().st_size < 60 * 4096


def test_a_long_reader_only_puts_that_off(tmp_path, monkeypatch):
    monkeypatch.setattr(_sqlite, "_COMMITS", 10)
    with Ledger.open(url_of(tmp_path)) as ledger:

        def slow(connection):
            before = audit.verify(connection)
            for _ in range(50):
                ledger.write(note).result()
            return before, audit.verify(connection)

        assert ledger.read(slow) == (0, 0)
        assert ledger.read(audit.verify) == 50


def test_a_future_that_is_cancelled_is_not_run(tmp_path):
    hold, busy = threading.Event(), threading.Event()

    def wait(_):
        busy.set()
        hold.wait(30)

    with Ledger.open(url_of(tmp_path)) as ledger:
        ledger.write(wait)
        busy.wait(30)
        futures = [ledger.write(note) for _ in range(3)]
        assert futures[1].cancel()
        hold.set()
        assert [futures[0].result(), futures[2].result()] == [1, 2]


def test_an_operation_may_raise_anything(tmp_path):
    def leave(_):
        raise SystemExit(3)

    with Ledger.open(url_of(tmp_path)) as ledger:
        with pytest.raises(SystemExit):
            ledger.write(leave).result()
        with pytest.raises(SystemExit):
            ledger.between(leave).result()
        assert ledger.write(note).result() == 1


def test_threads_and_files_are_given_back(tmp_path):
    before = threading.active_count()
    for _ in range(5):
        with Ledger.open(url_of(tmp_path)) as ledger:
            ledger.write(note).result()
            ledger.read(members.every)
    assert threading.active_count() == before
    with Ledger.open(url_of(tmp_path)) as ledger:
        assert ledger.read(audit.verify) == 5


def sqlite_error(code):
    error = sqlite3.OperationalError("it went wrong")
    error.sqlite_errorcode = code
    return error


class Said(Exception):
    """An error as a driver of PostgreSQL raises it."""

    def __init__(self, sqlstate):
        super().__init__("it went wrong")
        self.sqlstate = sqlstate


OperationalError = type("OperationalError", (Said,), {})
DataError = type("DataError", (Said,), {})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite_error(13), StorageFull),
        (sqlite_error(4874), StorageFull),
        (sqlite_error(10), LedgerFailed),
        (sqlite_error(1034), LedgerFailed),
        (sqlite_error(11), LedgerDamaged),
        (sqlite_error(26), LedgerDamaged),
        (sqlite_error(8), StoreError),
        (sqlite_error(14), StoreError),
        (sqlite_error(5), StoreUnavailable),
        (sqlite_error(1), type(None)),
        (Said("53100"), StorageFull),
        (Said("53300"), StoreUnavailable),
        (Said("58030"), LedgerFailed),
        (Said("XX001"), LedgerDamaged),
        (Said("57P01"), StoreUnavailable),
        (Said("08006"), StoreUnavailable),
        (Said("28P01"), StoreError),
        (Said("3D000"), StoreError),
        (Said("42501"), StoreError),
        (Said("42601"), type(None)),
        (OperationalError(None), StoreUnavailable),
        (DataError("22003"), UsageError),
        (OverflowError(), UsageError),
        (sa.exc.TimeoutError("no connection was free"), StoreUnavailable),
        (OSError(errno.EIO, "no"), type(None)),
        (LedgerInUse("no"), type(None)),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_what_databases_say_is_named(error, kind):
    found = named(error, "here")
    assert type(found) is kind
    assert found is None or found.at == "here"


def test_two_runs_of_one_second_have_names_of_their_own(tmp_path, monkeypatch):
    drawn = iter("aaaaaaaabbbb")
    monkeypatch.setattr("secrets.choice", lambda _: next(drawn))
    with Ledger.open(url_of(tmp_path)) as ledger:
        names = [submit(ledger, owner).name for owner in ("ada", "eve")]
    assert [name[-4:] for name in names] == ["aaaa", "bbbb"]
