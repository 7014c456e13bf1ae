"""Settings of all tests, and a PostgreSQL server for those that want one.

Hypothesis judges what a test finds, never how long it took.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

# On a build server the same examples are tried each time, so that a change fails for what it changed.
settings.register_profile("umbel", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("umbel")

# PostgreSQL refuses to run as root.
PEOPLE = ("postgres", "nobody")
PLACES = (*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), None)


class PostgresServer:
    """A real PostgreSQL of our own, in a folder of its own, reached through a socket in that folder."""

    def __init__(self):
        self._programs = Path(next(found for place in PLACES if (found := _program("initdb", place)))).parent
        self.folder = Path(tempfile.mkdtemp(prefix="umbel-pg-"))
        self._user = {}
        if os.geteuid() == 0:
            person = _person()
            os.chown(self.folder, person.pw_uid, person.pw_gid)
            self._user = {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
        data = ["-D", self.folder / "data", "--username=umbel", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", *data, "--locale=C.UTF-8")
        self._databases = 0
        self.process = None

    def start(self):
        """Start the server, and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [self._programs / "postgres", "-D", self.folder / "data", *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **self._user)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)

    def _answers(self):
        try:
            return self.do("SELECT 1") is not None
        except sa.exc.OperationalError:
            return False

    def stop(self, how=signal.SIGINT):
        """Stop the server: SIGINT at once and in order, SIGQUIT as if it had crashed."""
        self.process.send_signal(how)
        self.process.wait(60)

    def url(self, database="postgres"):
        return f"postgresql://umbel@/{database}?host={self.folder}"

    def create(self):
        """Make an empty database, and return its URL."""
        self._databases += 1
        name = f"test{self._databases}"
        self.do(f"CREATE DATABASE {name}")
        return self.url(name)

    def do(self, statement):
        """Run a statement as the superuser, outside of any transaction."""
        engine = sa.create_engine(self.url().replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return connection.exec_driver_sql(statement).rowcount

    def remove(self):
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program, *arguments):
        subprocess.run(
            [self._programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=120, **self._user
        )


def _program(name, place):
    return shutil.which(name, path=place)


def _person():
    return next((entry for name in PEOPLE for entry in pwd.getpwall() if entry.pw_name == name), None)


def _why_no_postgres():
    if not any(_program("initdb", place) for place in PLACES):
        return "PostgreSQL is not installed here"
    if os.geteuid() == 0 and _person() is None:
        return "PostgreSQL does not run as root, and there is nobody else"
    return ""


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server; skips where there is none."""
    if why := _why_no_postgres():
        pytest.skip(why)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request, tmp_path):
    """The URL of an empty ledger, once for each kind of database."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres").create()
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(scope="session")
def s3():
    """The settings with which the server is reached, and a bucket called umbel."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/umbel", method="PUT"), timeout=30).close()
    yield {
        "endpoint": f"http://{host}:{port}",
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
        "virtual_hosted_style_request": "false",
    }
    running.stop()
