"""What the tests of a whole system share: a federation, a run, and what holds of the run whatever was done to it."""

import functools
import os
import re
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import sqlalchemy as sa

import umbel
from federation import Federation
from test_node_killed import APP as SLEEPING
from umbel.errors import ServerUnreachable
from umbel.strategy import fedadam

NODES, SEED, ROUNDS = ("north", "south"), 7, 3
SMALL, LARGE = 9, 60_000  # float32: inside the description, and as a blob
# Where a test fakes the time of day, `time.sleep` is no longer what it was.
APP = SLEEPING.replace("import time", "import select").replace("time.sleep(", "select.select([], [], [], ")
START = 5.0  # CPU seconds that a restart may cost


@contextmanager
def federating(folder, *, server=None, nodes=NODES, failpoint="", **settings):
    """A federation whose server and nodes run; ``server`` is what the server is told, and ``settings`` the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site_app.py").write_text(APP)
    made = Federation(folder / "federation", folder, settings=server or {}, **settings)
    try:
        made.serving = made.serve(failpoint)
        for name in nodes:
            made.node(name)
        yield made
    finally:
        made.close()


@functools.cache
def alone(size=SMALL, rounds=ROUNDS):
    """The history of the run in one process, which nothing interrupts."""
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    config = {"log": os.devnull, "seconds": 0.0}
    told = {"nodes": NODES, "rounds": rounds, "seed": SEED, "run_config": config}
    return umbel.simulate(space["app"], fedadam(), {"w": np.zeros(size, np.float32)}, **told)


def submit(federation, size=SMALL, rounds=ROUNDS, seconds=0.0, nodes=NODES):
    """Submit the run, whose handlers take ``seconds``, and return its number."""
    told = {"nodes": list(nodes), "rounds": rounds, "seed": SEED, "strategy": {"name": "fedadam"}}
    model = {"w": np.zeros(size, np.float32)}
    return federation.submit(model, **told, log=str(log_of(federation)), seconds=seconds)


def begin(federation, size=SMALL, rounds=ROUNDS, seconds=0.0):
    """Submit the run to a server that may be killed before it says that it has it."""
    with suppress(ServerUnreachable):
        submit(federation, size, rounds, seconds)


def begun(federation, earlier, size=SMALL, rounds=ROUNDS, seconds=0.0):
    """The number of the run that is not among the ``earlier`` ones, submitted again if the server has none."""
    new = runs(federation) - earlier
    return new.pop() if new else submit(federation, size, rounds, seconds)


def runs(federation):
    """The numbers of all runs."""
    return {row.run for row in federation.call("list_runs").runs}


def log_of(federation):
    return federation.folder / "handled.log"


def handled(federation):
    """How often each round was trained by each node since the log was removed."""
    path = log_of(federation)
    lines = path.read_text().splitlines() if path.exists() else []
    return {line: lines.count(line) for line in lines}


def each_once(rounds=ROUNDS):
    return {f"{name} {number}": 1 for name in NODES for number in range(1, rounds + 1)}


def check(federation, run, size=SMALL, rounds=ROUNDS, seconds=60.0):
    """The run ends by itself, with the bytes and figures of one that was left alone, and each reply counts once."""
    view = federation.completed(run, seconds)
    expected = alone(size, rounds)
    assert view.digest == expected.digest
    assert [report["metrics"] for report in view.reports] == [dict(each.metrics) for each in expected.rounds]
    each = sorted(
        (number, phase, name)
        for number in range(1, rounds + 1)
        for phase in ("train", "evaluate")
        for name in NODES
        if phase == "train" or number in evaluated(view)
    )
    assert sorted((asked.round, asked.phase, asked.node) for asked in view.questions) == each
    assert {asked.outcome for asked in view.questions} == {"accepted"}
    assert sorted(counted(federation, run)) == [(*asked, True, "accepted") for asked in each]
    said = (federation.folder / "server.log").read_text()
    assert not any(fault in said for fault in ("met a fault", "Exception in", "never retrieved")), said
    return view


def evaluated(view):
    return {asked.round for asked in view.questions if asked.phase == "evaluate"}


def counted(federation, run):
    """The replies that a ledger has of a run: of whom, in which round and phase, and whether each counted."""
    url = federation.settings.get("database") or f"sqlite:///{federation.folder}/server/ledger.db"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    text = """SELECT m.round, m.phase, n.name, r.counted, m.status FROM replies r
        JOIN messages m ON m.run = r.run AND m.message = r.message JOIN members n ON n.id = m.node WHERE r.run = :run"""
    with engine.connect() as connection:
        found = connection.execute(sa.text(text), {"run": run}).all()
    engine.dispose()
    return [(row.round, row.phase, row.name, bool(row.counted), row.status) for row in found]


def blobs_of(federation):
    """The files of the server's blobs by the hex digits of their digests, the oldest first."""
    paths = [path for path in (federation.folder / "server" / "blobs").glob("??/*") if path.name[0] != "."]
    return {f"{path.parent.name}{path.name}": path for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)}


def digests_of(federation, query):
    """The hex digits of the digests that a column of the ledger names."""
    ledger = sqlite3.connect(f"file:{federation.folder}/server/ledger.db?mode=ro", uri=True)
    text = "".join(row[0] or "" for row in ledger.execute(query))
    ledger.close()
    return set(re.findall(r"blake3:([0-9a-f]{64})", text))


def cpu_seconds(pid):
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_memory(pid):
    """The anonymous memory of a process in bytes; what is mapped from files is not its own."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024
