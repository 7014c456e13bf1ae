"""The server is killed at each of its steps and started again: the run ends as one that was left alone, to the byte."""

import contextlib
import resource

import numpy as np
import pytest

import umbel
from federation import Federation, wait_for
from umbel.errors import ServerUnreachable
from umbel.strategy import fedadam

APP = """
import numpy as np
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    noise = np.random.default_rng(context.seed)
    model = message.content.parameters_records["model"].to_numpy()
    made = {name: (array + noise.random(array.shape)).astype(array.dtype) for name, array in model.items()}
    with open(context.run_config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    metrics = {"metrics": MetricsRecord({"num-examples": int(noise.integers(1, 9))})}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(made)}, metrics))


@app.evaluate()
def evaluate(message, context):
    mean = float(message.content.parameters_records["model"]["w"].numpy().mean())
    return message.create_reply(RecordSet(metrics_records={"m": MetricsRecord({"num-examples": 1, "mean": mean})}))
"""
ROUNDS, SEED, NODES = 3, 7, ("north", "south")
SMALL, LARGE = 9, 60_000  # float32: inside the description, and as a blob

#: Where the server is killed, and for the how manieth time that the place is passed.
QUICK = [("server.planned", 1), ("server.state-stored", 1)]
SLOW = [
    ("server.run-accepted", 1),
    ("server.planned", 4),
    ("server.handed-out", 1),
    ("server.handed-out", 6),
    ("server.reply-stored", 1),
    ("server.reply-stored", 6),
    ("server.blob-half", 1),
    ("server.blob-half", 3),
    ("server.quorum", 1),
    ("server.aggregating", 3),
    ("server.state-stored", 3),
    ("server.round-committed", 1),
    ("server.round-committed", 3),
    ("server.evaluating", 2),
    ("server.collecting", 2),
    ("server.run-finished", 1),
]


@pytest.fixture
def app_folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def federation(tmp_path, app_folder):
    made = Federation(tmp_path / "federation", app_folder)
    yield made
    made.close()


def model(size, dtype="float32"):
    return {"w": np.zeros(size, dtype)}


def alone(app_folder, size, dtype="float32"):
    """The history of the run in one process, which nothing interrupts."""
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    config = {"log": str(app_folder / "alone.log")}
    return umbel.simulate(
        space["app"], fedadam(), model(size, dtype), nodes=NODES, rounds=ROUNDS, seed=SEED, run_config=config
    )


def submit(federation, size, dtype="float32"):
    """Submit the run; the server may be killed before it says that it has it."""
    settings = {"nodes": list(NODES), "rounds": ROUNDS, "seed": SEED, "strategy": {"name": "fedadam"}}
    with contextlib.suppress(ServerUnreachable):
        federation.submit(model(size, dtype), **settings, log=str(federation.folder / "handled.log"))


def handled(federation):
    """How often each round was trained by each node."""
    lines = (federation.folder / "handled.log").read_text().splitlines()
    return {line: lines.count(line) for line in lines}


@pytest.mark.parametrize(("step", "nth"), [*QUICK, *(pytest.param(*step, marks=pytest.mark.slow) for step in SLOW)])
def test_the_server_is_killed(federation, app_folder, step, nth):
    assert_same_after_a_kill(federation, app_folder, step, nth)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "nth"), [*QUICK, *SLOW])
def test_the_server_is_killed_over_postgresql(federation, app_folder, step, nth, postgres):
    federation.settings["database"] = postgres.create()
    assert_same_after_a_kill(federation, app_folder, step, nth)


def assert_same_after_a_kill(federation, app_folder, step, nth):
    server = federation.serve(f"{step}:kill:{nth}")
    for name in NODES:
        federation.node(name)
    submit(federation, LARGE)
    assert server.wait() == -9, f"{step} was passed {nth} times"
    federation.serve()
    if not federation.call("list_runs").runs:  # the model was on its way: nothing was acknowledged yet
        submit(federation, LARGE)
    (run,) = federation.call("list_runs").runs
    view = federation.completed(run.run)
    expected = alone(app_folder, LARGE)
    assert view.digest == expected.digest
    assert [report["metrics"] for report in view.reports] == [dict(each.metrics) for each in expected.rounds]
    assert handled(federation) == {f"{name} {number}": 1 for name in NODES for number in range(1, ROUNDS + 1)}
    assert {question.outcome for question in view.questions} == {"accepted"}
    assert len(view.restarts) == (step != "server.run-finished" and (step, nth) != ("server.blob-half", 1))


# What FedAdam keeps of a model in float16 is in float32: an update fits where the state does not.
@pytest.mark.parametrize("dtype", ["float32", "float16"], ids=["update", "state"])
@pytest.mark.slow
def test_a_disk_without_room_makes_the_run_wait_until_there_is_some(federation, app_folder, dtype):
    server, size = federation.serve(), 400_000
    submit(federation, size, dtype)
    # The kernel lets the server write no file beyond a mebibyte.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    for name in NODES:
        federation.node(name)
    log = federation.folder / "handled.log"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == len(NODES), "the nodes have trained")
    if dtype == "float16":
        wait_for(lambda: "waits for the disk" in federation.view(1).row.reason, "it says what it waits for")
    assert federation.view(1).row.completed == 0
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    view = federation.completed(1)
    assert view.digest == alone(app_folder, size, dtype).digest
    assert handled(federation) == {f"{name} {number}": 1 for name in NODES for number in range(1, ROUNDS + 1)}
