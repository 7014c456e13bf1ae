"""The machine of the server loses power: an update that was acknowledged, and not flushed, is made again."""

import contextlib

import numpy as np
import pytest

import umbel
from federation import Federation
from system import blobs_of, digests_of
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


def spoil_updates(federation, fate):
    """Do to all blobs that were not flushed what a disk that lost power could have done; return how many these are."""
    flushed = digests_of(federation, "SELECT digest FROM blob_references WHERE holder NOT LIKE 'message %'")
    lost = [path for digest, path in blobs_of(federation).items() if digest not in flushed]
    for path in lost:
        size = path.stat().st_size
        path.unlink()
        if fate == "zeroed":
            path.write_bytes(bytes(size))
    return len(lost)


@pytest.mark.parametrize("fate", ["zeroed", "gone"])
@pytest.mark.parametrize(
    "point",
    [
        "server.reply-stored:kill:3",  # the first reply of the second round
        "store.upload-finished:kill:4",  # its update is there, its reply is not: the first upload was the model
    ],
)
def test_an_update_that_was_lost_with_the_power_is_made_again(federation, tmp_path, point, fate):
    server = federation.serve(point)
    nodes = [federation.node(name) for name in NODES]
    log = federation.folder / "handled.log"
    with contextlib.suppress(ServerUnreachable):
        federation.submit(model(), nodes=list(NODES), rounds=ROUNDS, seed=SEED, log=str(log))
    server.wait()
    assert spoil_updates(federation, fate)
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
