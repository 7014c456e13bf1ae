"""Each step of a server and of a node is killed in a whole system, over both kinds of database."""

import signal
from contextlib import suppress

import pytest

from federation import wait_for
from system import (
    LARGE,
    NODES,
    START,
    begin,
    begun,
    check,
    cpu_seconds,
    each_once,
    federating,
    handled,
    log_of,
    runs,
    submit,
)
from umbel.errors import ServerUnreachable

#: Where the server is killed: each restart of one run is killed at the next place, the how manieth time it is passed.
CHAINS = {
    "S1 to S13": [
        "server.blob-half:kill",  # S5: nobody has submitted anything yet
        "server.run-accepted:kill",  # S1
        "server.planned:kill",  # S2
        "server.handed-out:kill",  # S3
        "server.reply-stored:kill",  # S4
        "server.quorum:kill",  # S6
        "server.aggregating:kill",  # S7
        "server.state-stored:kill",  # S8
        "server.round-committed:kill",  # S9
        "server.evaluating:kill",  # S10
        "server.collecting:kill:2",  # S11
        "server.run-finished:kill",  # S13; S12 is below
    ],
    "what it keeps": [
        *("store.upload-staged:kill", "store.upload-finished:kill:2", "server.blob-half:kill:3"),
        *("store.upload-staged:kill:2", "store.blob-begun:kill:2", "store.blob-written:kill:2", "store.writing:kill:6"),
        *("store.committed:kill:7", "store.committed:kill:10", "server.reply-stored:kill:3"),
    ],
    "in short": ["server.planned:kill", "server.reply-stored:kill:3", "store.committed:kill:7"],
}
NODE = {
    "N1 a message is there": "node.leased:kill:2",
    "N2 it is handled": "node.training:kill:2",
    "N3 it was handled": "node.trained:kill:2",
    "N4 the answer is on its way": "node.uploading:kill:2",
    "N5 it is there, unanswered": "node.uploaded:kill:2",
    "N6 it is acknowledged": "node.acknowledged:kill:2",
}
SLOW = pytest.mark.slow


def chains():
    for kind in ("sqlite", "postgres"):
        for name, points in CHAINS.items():
            is_quick = (kind, name) in (("sqlite", "S1 to S13"), ("postgres", "in short"))
            yield pytest.param(kind, points, id=f"{kind}-{name}", marks=[] if is_quick else [SLOW])


def steps():
    for kind in ("sqlite", "postgres"):
        for name, point in NODE.items():
            is_quick = kind == "postgres" and name.startswith("N5")
            yield pytest.param(kind, point, id=f"{kind}-{name}", marks=[] if is_quick else [SLOW])


@pytest.fixture(scope="module")
def federation(request, tmp_path_factory):
    """One federation for all points of a kind of database; the server on it is ``serving``."""
    server = {"database": request.getfixturevalue("postgres").create()} if request.param == "postgres" else {}
    with federating(tmp_path_factory.mktemp(request.param), server=server) as made:
        yield made


@pytest.fixture
def trained(federation):
    """A federation in which nothing was trained yet."""
    log_of(federation).unlink(missing_ok=True)
    return federation


def again(federation):
    """Start a server that was killed, on the same command line; that costs little."""
    federation.serving = federation.serve()
    assert cpu_seconds(federation.serving.process.pid) < START


@pytest.mark.parametrize(("federation", "points"), list(chains()), indirect=["federation"], scope="module")
def test_the_server_is_killed(trained, points):
    # A model of its own for each chain: what the store has already would not be uploaded again.
    earlier, rounds, size = runs(trained), 12, LARGE + len(points)
    trained.serving.end()
    for point in points:
        server = trained.serve(point)
        with suppress(ServerUnreachable):
            if not runs(trained) - earlier:
                begin(trained, size, rounds)
        assert server.wait() == -signal.SIGKILL, point
    again(trained)
    view = check(trained, begun(trained, earlier, size, rounds), size, rounds)
    assert handled(trained) == each_once(rounds), "nothing was trained twice"
    assert len(points) - 2 <= len(view.restarts) <= len(points), "the run says how often it was taken up"


def newest(federation, name):
    return next(each for each in reversed(federation.processes) if each.log.stem == name)


@pytest.mark.parametrize(("federation", "point"), list(steps()), indirect=["federation"], scope="module")
def test_a_node_is_killed(trained, point):
    newest(trained, "north").end()
    north = trained.node("north", point)
    run = submit(trained, LARGE)
    assert north.wait() == -signal.SIGKILL
    trained.node("north")
    check(trained, run, LARGE)
    twice = [key for key, count in handled(trained).items() if count > 1]
    assert len(twice) <= point.startswith("node.training"), "only what was being trained is trained again"


@pytest.mark.parametrize("federation", ["sqlite"], indirect=True, scope="module")
def test_server_and_nodes_are_killed_at_once(trained):
    earlier = runs(trained)
    trained.serving.end()
    server = trained.serve("server.reply-stored:kill:3")
    begin(trained, LARGE)
    assert server.wait() == -signal.SIGKILL
    for name in NODES:
        newest(trained, name).end()
    again(trained)
    for name in NODES:
        trained.node(name)
    check(trained, begun(trained, earlier, LARGE), LARGE)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=SLOW)])
def test_the_server_is_killed_while_it_makes_its_ledger(kind, tmp_path, request):
    """S12, on the first start, when there is nothing yet."""
    server = {"database": request.getfixturevalue("postgres").create()} if kind == "postgres" else {}
    with federating(tmp_path, server=server, nodes=(), failpoint="store.migrating:kill") as federation:
        assert federation.serving.wait() == -signal.SIGKILL
        federation.serve()
        for name in NODES:
            federation.node(name)
        check(federation, submit(federation))


@SLOW
@pytest.mark.parametrize("nth", [1, 2])
def test_the_server_is_killed_while_it_starts(tmp_path, nth):
    """At the commits of a start that takes up a run: killed again and again, it goes on in the end."""
    with federating(tmp_path) as federation:
        run = submit(federation, seconds=0.3)
        wait_for(lambda: federation.view(run).row.completed, "a round is complete")
        federation.serving.end()
        for _ in range(2):
            assert federation.serve(f"store.committed:kill:{nth}").wait() == -signal.SIGKILL
        federation.serve()
        check(federation, run)
