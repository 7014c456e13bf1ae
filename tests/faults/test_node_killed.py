"""A node is killed at each of its steps and started again: the run ends with the bytes of one that was left alone."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import umbel
from federation import Federation, wait_for
from umbel.strategy import fedavg

APP = '''
import time
import numpy as np
from umbel.app import ClientApp
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    """Add noise that the seed decides, and what the state has counted: a state that is off by one shows."""
    config, count = context.run_config, 0
    if context.state.configs_records:
        count = context.state.configs_records["s"]["n"]
    with open(config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    if config["seconds"]:
        time.sleep(config["seconds"])
    noise = np.random.default_rng(context.seed)
    model = message.content.parameters_records["model"].to_numpy()
    made = {name: array + noise.random(array.shape, np.float32) + count for name, array in model.items()}
    context.state.configs_records["s"] = ConfigsRecord({"n": count + 1})
    context.state.parameters_records["m"] = ParametersRecord.from_numpy(made)
    metrics = {"metrics": MetricsRecord({"num-examples": 1 + count, "count": count})}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(made)}, metrics))


@app.evaluate()
def evaluate(message, context):
    mean = float(message.content.parameters_records["model"]["w"].numpy().mean())
    return message.create_reply(RecordSet(metrics_records={"m": MetricsRecord({"num-examples": 1, "mean": mean})}))
'''
ROUNDS, SEED, NODES = 4, 7, ("north", "south")
SMALL, LARGE = 9, 60_000  # float32: inside the description, and as a blob


@pytest.fixture
def app_folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def federation(tmp_path, app_folder):
    made = Federation(tmp_path / "federation", app_folder)
    yield made
    made.close()


def model(size):
    return {"w": np.zeros(size, np.float32)}


def alone(app_folder, size):
    """The digest of the run in one process, which nothing interrupts."""
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    config = {"log": str(app_folder / "alone.log"), "seconds": 0.0}
    settings = {"nodes": NODES, "rounds": ROUNDS, "seed": SEED, "run_config": config}
    return umbel.simulate(space["app"], fedavg(), model(size), **settings).digest


def submit(federation, size, seconds=0.0):
    log = federation.folder / "handled.log"
    return federation.submit(model(size), nodes=list(NODES), rounds=ROUNDS, seed=SEED, log=str(log), seconds=seconds)


def handled(federation):
    """How often each round was trained by each node."""
    path = federation.folder / "handled.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line: lines.count(line) for line in lines}


def each_once():
    return {f"{name} {number}": 1 for name in NODES for number in range(1, ROUNDS + 1)}


def handler_of(process):
    """The process in which a node runs its handlers; any thread of the node may have started it."""
    tasks = Path(f"/proc/{process.process.pid}/task").iterdir()
    found = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    assert len(found) == 1
    return found[0]


def is_gone(pid):
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("size", "plain"), [(SMALL, True), (LARGE, True), (LARGE, False)])
def test_nothing_happens(federation, app_folder, size, plain):
    federation.plain = plain
    federation.serve()
    for name in NODES:
        federation.node(name)
    view = federation.completed(submit(federation, size))
    assert view.digest == alone(app_folder, size)
    assert handled(federation) == each_once()
    wait_for(lambda: federation.status("north").completed == 2 * ROUNDS, "the node says so")
    assert federation.status("north").failed == 0


@pytest.mark.parametrize("nth", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("node.leased", False),
        ("node.training", True),
        ("node.trained", False),
        ("node.uploading", False),
        ("node.uploaded", False),
        ("node.acknowledged", False),
    ],
)
def test_a_node_is_killed(federation, app_folder, step, again, nth):
    federation.serve()
    federation.node("south")
    # A passing of `node.uploading` is a buffer, not a message: evaluations send none.
    north = federation.node("north", f"{step}:kill:{nth}")
    run = submit(federation, LARGE)
    assert north.wait() == -signal.SIGKILL
    federation.node("north")
    view = federation.completed(run)
    assert view.digest == alone(app_folder, LARGE)
    counts = handled(federation)
    assert dict.fromkeys(counts, 1) == each_once()
    twice = [key for key, count in counts.items() if count > 1]
    # It is killed when the handler may have begun; a handler that had not has left no line.
    assert twice == [] if not again else len(twice) <= 1


def test_a_node_is_killed_while_its_handler_runs(federation, app_folder):
    federation.serve()
    federation.node("south")
    north = federation.node("north")
    run = submit(federation, SMALL, seconds=0.5)
    wait_for(lambda: "north 2" in handled(federation), "the second round trains")
    handler = handler_of(north)
    assert north.end() == -signal.SIGKILL
    wait_for(lambda: is_gone(handler), "the handler's process ends with its node")
    federation.node("north")
    assert federation.completed(run).digest == alone(app_folder, SMALL)
    assert handled(federation) == each_once() | {"north 2": 2}


def test_the_handler_is_killed(federation):
    federation.serve()
    federation.node("south")
    north = federation.node("north")
    run = submit(federation, SMALL, seconds=0.5)
    wait_for(lambda: "north 2" in handled(federation), "the second round trains")
    os.kill(handler_of(north), signal.SIGKILL)
    view = federation.completed(run)
    asked = {(each.node, each.round, each.phase): each for each in view.questions}
    assert "killed by signal 9 (SIGKILL)" in asked["north", 2, "train"].reason
    assert asked["north", 3, "train"].outcome == "accepted"
    wait_for(lambda: "SIGKILL" in federation.status("north").last_error, "the node says so too")
    assert federation.status("north").failed == 1
    assert north.is_running


def test_a_node_that_is_asked_to_end_does_so_and_goes_on_later(federation, app_folder):
    federation.serve()
    federation.node("south")
    north = federation.node("north")
    run = submit(federation, SMALL, seconds=1.0)
    wait_for(lambda: "north 1" in handled(federation), "the first round trains")
    handler, began = handler_of(north), time.monotonic()
    assert north.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 2
    assert is_gone(handler)
    assert (federation.status("north").state, federation.status("north").reason) == ("ended", "it was told to stop")
    federation.node("north")
    assert federation.completed(run).digest == alone(app_folder, SMALL)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_server_is_killed_and_the_nodes_come_back(federation, app_folder, size):
    server = federation.serve()
    nodes = [federation.node(name) for name in NODES]
    run = submit(federation, size, seconds=0.3)
    for number in (2, 3):
        wait_for(lambda number=number: f"north {number}" in handled(federation), "it trains")
        server.end()
        wait_for(lambda: federation.status("north").state == "away", "the node sees that the server is away")
        server = federation.serve()
        up = time.time()
        wait_for(lambda: federation.status("north").state == "connected", "the node is back")
        assert federation.status("north").since - up < 2
    assert federation.completed(run).digest == alone(app_folder, size)
    assert handled(federation) == each_once()
    assert all(node.is_running for node in nodes)
