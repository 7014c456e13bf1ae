"""A node short of memory or of disk, and one whose files were damaged while it was down."""

import json
import signal

import numpy as np
import pytest

import umbel
from federation import Federation, wait_for
from test_node_killed import APP
from umbel.strategy import fedavg

NODES = ("north", "south")
ROUNDS = 3
SIZE = 60_000  # float32: a blob
MODEL = 200_000_000  # bytes
# Of a process with NumPy, aiohttp and their threads, before there is any model; measured 130 MB.
BASE = 180_000_000

ECHO = '''
from umbel.app import ClientApp
from umbel.records import MetricsRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    """Allocate nothing: the reply and the state are what was sent."""
    model = message.content.parameters_records["model"]
    context.state.parameters_records["model"] = model
    return message.create_reply(RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": 1})}))
'''


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path / "federation", tmp_path)
    yield made
    made.close()


def test_a_model_that_is_larger_than_the_memory_of_the_node(federation):
    """Node and handler's process together may allocate less than one model, beyond what they have without any."""
    (federation.app_folder / "site_app.py").write_text(ECHO)
    federation.serve()
    most = BASE + MODEL // 4
    federation.node("north", limits={"RLIMIT_DATA": most}, policy={"memory": most})
    model = {"w": np.random.default_rng(5).random(MODEL // 8)}
    run = federation.submit(model, nodes=["north"], rounds=2)
    federation.completed(run, 180)
    status = federation.status("north")
    assert (status.failed, status.last_error) == (0, "")


def test_a_node_without_room_on_its_disk_says_so_and_goes_on(federation):
    """Files of the node may have no more than a few kilobytes, as on a disk that is full."""
    (federation.app_folder / "site_app.py").write_text(ECHO)
    federation.serve()
    north = federation.node("north", limits={"RLIMIT_FSIZE": 100_000})
    run = federation.submit({"w": np.zeros(SIZE, np.float32)}, nodes=["north"], rounds=1)
    reason = wait_for(lambda: federation.view(run).questions and federation.view(run).questions[0].reason, "it answers")
    assert "File too large" in reason
    small = federation.submit({"w": np.zeros(9, np.float32)}, nodes=["north"], rounds=1)
    federation.completed(small)
    assert north.is_running


@pytest.mark.parametrize(
    ("step", "folder", "said"),
    [
        ("node.leased", "tasks", "damaged"),  # the instruction: it is handed out again
        ("node.training", "blobs", ""),  # the model in it: fetched again, without a word
        ("node.trained", "blobs", "damaged"),  # the reply, and the state it leads to: made again
    ],
)
def test_files_that_were_damaged_while_the_node_was_down(federation, step, folder, said):
    view, told = _interrupted(federation, step, lambda node: _newest(node / folder))
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    settings = {"nodes": NODES, "rounds": ROUNDS, "seed": 7, "run_config": told}
    assert view.digest == umbel.simulate(space["app"], fedavg(), _zeros(), **settings).digest
    assert [each for each in view.questions if each.outcome != "accepted"] == []
    wait_for(lambda: said in federation.status("north").last_error, "the node says so too")


def test_a_run_whose_state_was_damaged_does_not_begin_anew_in_silence(federation):
    view, _ = _interrupted(federation, "node.leased", _state)
    asked = {(each.round, each.phase): each.reason for each in view.questions if each.node == "north"}
    assert asked[1, "train"] == ""
    assert all("restore the node's folder from a copy, or delete" in asked[number, "train"] for number in (2, 3))


def _zeros():
    return {"w": np.zeros(SIZE, np.float32)}


def _newest(folder):
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def _state(node):
    """The array that the node keeps for its first run."""
    kept = json.loads((node / "runs" / "1.json").read_text().partition("\n")[2])
    return node / "blobs" / kept["state"]["records"][0]["part"]["digest"].removeprefix("blake3:")


def _interrupted(federation, step, which):
    """Kill north in the second round, damage a file of it, and let it go on."""
    (federation.app_folder / "site_app.py").write_text(APP)
    federation.serve()
    federation.node("south")
    north = federation.node("north", f"{step}:kill:3")
    told = {"log": str(federation.folder / "handled.log"), "seconds": 0.0}
    run = federation.submit(_zeros(), nodes=list(NODES), rounds=ROUNDS, seed=7, **told)
    assert north.wait() == -signal.SIGKILL
    path = which(federation.folder / "north")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    federation.node("north")
    return federation.completed(run), told
