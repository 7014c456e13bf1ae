"""What lies between a node and its server is cut, held back or slow: nothing is trained again for that."""

import time

import numpy as np
import pytest

import umbel
from federation import Federation, wait_for
from proxy import Proxy
from test_node_killed import APP
from umbel.strategy import fedavg

NODES = ("north", "south")
ROUNDS = 2
SIZE = 6_000_000  # float32
BYTES = 4 * SIZE  # of a model, and a little for its header
BUFFERS = 6 * 2**20  # what the sockets on both sides of the proxy hold, and lose when it cuts


@pytest.fixture
def federation(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    made = Federation(tmp_path / "federation", tmp_path, poll=2.0)
    made.serve()
    yield made
    made.close()


@pytest.mark.slow
def test_a_node_says_that_it_is_back_as_soon_as_its_server_is(tmp_path):
    """Long before a poll that finds no work is answered."""
    (tmp_path / "site_app.py").write_text(APP)
    federation = Federation(tmp_path / "federation", tmp_path, poll=600.0)
    try:
        server = federation.serve()
        federation.node("north")
        wait_for(lambda: federation.state("north") == "connected", "the node has joined")
        for _ in range(2):
            server.end()
            wait_for(lambda: federation.state("north") == "away", "the node misses its server")
            server = federation.serve()
            wait_for(lambda: federation.state("north") == "connected", "the node is back")
    finally:
        federation.close()


@pytest.fixture
def proxy(federation):
    with Proxy(("127.0.0.1", federation.port)) as made:
        yield made


def begin(federation, proxy, size=SIZE, seconds=0.0):
    """Start both nodes, north behind the proxy, and a run."""
    federation.node("south")
    federation.node("north", url=f"http://127.0.0.1:{proxy.port}")
    told = {"log": str(federation.folder / "handled.log"), "seconds": seconds}
    return federation.submit({"w": np.zeros(size, np.float32)}, nodes=list(NODES), rounds=ROUNDS, seed=7, **told)


def check(federation, run, size=SIZE, seconds=0.0):
    """The run ends as it does in one process, and no round was trained twice."""
    log, alone = federation.folder / "handled.log", federation.folder / "alone.log"
    view = federation.completed(run, 120)
    assert [each for each in view.questions if each.outcome != "accepted"] == []
    lines = sorted(log.read_text().splitlines())
    assert lines == sorted(f"{name} {number}" for name in NODES for number in range(1, ROUNDS + 1))
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    told = {"nodes": NODES, "rounds": ROUNDS, "seed": 7, "run_config": {"log": str(alone), "seconds": 0.0}}
    assert view.digest == umbel.simulate(space["app"], fedavg(), {"w": np.zeros(size, np.float32)}, **told).digest


def begins(federation, number):
    path = federation.folder / "handled.log"
    wait_for(lambda: path.exists() and f"north {number}" in path.read_text(), "the handler runs")


def test_uploads_go_on_where_they_were_cut(federation, proxy):
    """No connection lives long enough for a whole model, so the run ends only if uploads go on."""
    proxy.set(cut_up=2 * BYTES // 3, cuts=1000)
    check(federation, begin(federation, proxy))
    assert sum(each.cut for each in proxy.passed) >= ROUNDS
    again = sum(each.up for each in proxy.passed) - ROUNDS * BYTES
    # What the sockets held is lost, once at the cut, and once where the server was still reading when it was asked.
    assert again < ROUNDS * 4 * BUFFERS


def test_downloads_go_on_where_they_were_cut(federation, proxy):
    """The same for downloads: the first model, that of round 2, and the last, to be evaluated; each byte once."""
    proxy.set(cut_down=2 * BYTES // 3, cuts=1000)
    check(federation, begin(federation, proxy))
    assert sum(each.cut for each in proxy.passed) >= ROUNDS + 1
    wait_for(lambda: federation.status("north").received >= (ROUNDS + 1) * BYTES, "the node says so")
    assert federation.status("north").received - (ROUNDS + 1) * BYTES < 10_000


@pytest.mark.parametrize("seconds", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_partition_while_the_handler_runs(federation, proxy, seconds):
    run = begin(federation, proxy, 9, seconds=0.5)
    begins(federation, 1)
    proxy.set(hold=True)
    time.sleep(seconds)  # the length of the fault itself
    proxy.clear()
    if seconds < 3 * federation.poll:
        check(federation, run, 9)
    else:  # the node was silent for longer than the server is patient: the round went on without it
        view = federation.completed(run, 120)
        lost = [each for each in view.questions if each.node == "north" and each.outcome != "accepted"]
        assert "silent" in lost[0].reason
        wait_for(lambda: federation.status("north").holding == 0, "the node lets go of what came too late")


def test_a_server_that_refuses_connections_for_a_while(federation, proxy):
    run = begin(federation, proxy, 9, seconds=0.5)
    begins(federation, 1)
    proxy.set(refuse=True, cut_up=1, cut_down=1, cuts=1000)
    wait_for(lambda: federation.status("north").state == "away", "the node sees that it is cut off")
    time.sleep(1.0)  # the length of the fault itself
    proxy.clear()
    back = time.time()
    check(federation, run, 9)
    assert federation.status("north").since - back < 2


def test_a_slow_line_with_jitter_and_connections_out_of_order(federation, proxy):
    proxy.set(latency=0.02, jitter=0.05, late_every=3, late_by=0.5)
    check(federation, begin(federation, proxy, 60_000), 60_000)
