"""The machine of the server loses power: an update that was acknowledged, and not flushed, is made again."""

import contextlib

import numpy as np
import pytest

import umbel
from federation import Federation
from umbel.errors import ServerUnreachable
from umbel.strategy import fedavg

APP = """
import numpy as np
from umbel.app import ClientApp
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    known = context.state.configs_records
    count = known["s"]["n"] if "s" in known else 0
    model = message.content.parameters_records["model"].to_numpy()
    made = {"w": model["w"] + np.random.default_rng(context.seed).random(model["w"].shape, np.float32) + count}
    context.state.configs_records["s"] = ConfigsRecord({"n": count + 1})
    with open(context.run_config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    metrics = {"metrics": MetricsRecord({"num-examples": 1})}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(made)}, metrics))
"""
NODES, ROUNDS, SEED = ("north", "south"), 3, 5


def model():
    return {"w": np.zeros(60_000, np.float32)}


def alone(folder):
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    settings = {"nodes": NODES, "rounds": ROUNDS, "seed": SEED, "run_config": {"log": str(folder / "alone.log")}}
    return umbel.simulate(space["app"], fedavg(), model(), **settings).digest


@pytest.fixture
def federation(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    made = Federation(tmp_path / "federation", tmp_path)
    yield made
    made.close()


def spoil_updates(federation):
    """Overwrite what a disk that lost power could have lost: all blobs that were not flushed."""
    blobs = [path for path in (federation.folder / "server" / "blobs").glob("??/*") if path.name[0] != "."]
    newest = max(blobs, key=lambda path: path.stat().st_mtime_ns)
    size = newest.stat().st_size
    newest.unlink()
    newest.write_bytes(bytes(size))
    return newest


@pytest.mark.parametrize("fate", ["zeroed", "gone"])
def test_an_update_that_was_lost_with_the_power_is_made_again(federation, tmp_path, fate):
    server = federation.serve("server.reply-stored:kill:3")  # the first reply of the second round
    nodes = [federation.node(name) for name in NODES]
    log = federation.folder / "handled.log"
    with contextlib.suppress(ServerUnreachable):
        federation.submit(model(), nodes=list(NODES), rounds=ROUNDS, seed=SEED, log=str(log))
    server.wait()
    lost = spoil_updates(federation)
    if fate == "gone":
        lost.unlink()
    (federation.folder / "server" / "boot").write_text("another boot")
    federation.serve()
    view = federation.completed(1)
    assert view.digest == alone(tmp_path)
    assert all(node.is_running for node in nodes)
    assert sorted(set(log.read_text().splitlines())) == sorted(f"{name} {n}" for name in NODES for n in (1, 2, 3))


def test_nothing_is_looked_at_again_on_the_same_boot(federation):
    federation.serve().end()
    before = (federation.folder / "server" / "boot").stat().st_mtime_ns
    federation.serve()
    assert (federation.folder / "server" / "boot").stat().st_mtime_ns == before
