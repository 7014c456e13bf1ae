"""The engine over Ray passes the suite of all engines, and what is its own: one Ray for all tests."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

import umbel
from leftovers import left_behind, named_memory, processes_of
from umbel.engines import NodeStates, Population, RayCluster, RayGrid
from umbel.errors import AppError, UsageError
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import ParametersRecord, RecordSet
from umbel.strategy import fedavg
from umbel.testing import GridTests, grid_app

ray = pytest.importorskip("ray", reason="needs Ray, an extra of 200 MB: make test-ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

APP = """\
import os, time
from pathlib import Path

import numpy as np

from umbel.app import ClientApp
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    model = message.content.parameters_records["model"].to_numpy()
    model["w"] += np.float32(context.seed % 1_000)
    if context.node_name == "node-3" and context.run_config.get("dies"):
        os._exit(7)
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 9})
    context.state.metrics_records["seen"] = MetricsRecord({"round": context.seed % 99})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


@app.on("where")
def where(message, context):
    array = message.content.parameters_records["model"].to_numpy(copy=False)["w"]
    address = array.__array_interface__["data"][0]
    for line in open("/proc/self/maps"):
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            told = ConfigsRecord({"pid": os.getpid(), "path": [*line.split(), ""][5], "inode": line.split()[4]})
            return message.create_reply(RecordSet(configs_records={"told": told}))


@app.on("meet")
def meet(message, context):
    here = Path(context.run_config["here"])
    (here / context.node_name).touch()
    while len(list(here.iterdir())) < context.run_config["party"]:
        time.sleep(0.01)
    return message.create_reply(RecordSet())


@app.on("hang")
def hang(message, context):
    if context.node_name == "node-1":
        time.sleep(600)
    return message.create_reply(RecordSet())
"""


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Keep one cluster for the grids of this module: each would start its own."""
    with closing(RayGrid(grid_app, Population(1), workers=2)):
        yield


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Return an app that other processes can import."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "ray_app.py").write_text(APP)
    sys.path.insert(0, str(folder))
    import ray_app  # noqa: PLC0415 - it is there now

    yield ray_app.app
    sys.path.remove(str(folder))


def ask(grid, message_type, *, size=10, ttl=60.0, number=1):
    content = RecordSet({"model": ParametersRecord.from_numpy({"w": np.arange(size, dtype=np.float32)})})
    grid.send(
        Message(Metadata(1, 100 * number + place, 0, node.node_id, 0, number, ttl, message_type), content)
        for place, node in enumerate(grid.nodes())
    )
    return {f"node-{reply.metadata.src_node_id - 1}": reply for reply in grid.replies()}


class TestRayGrid(GridTests):
    def open_grid(self, nodes, seed):
        return closing(RayGrid(grid_app, Population(nodes), seed=seed))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_digest_is_that_of_the_local_engine(app, workers):
    def run(**options):
        initial = {"w": np.zeros(70_000, np.float32)}
        return umbel.simulate(app, fedavg(fraction=0.5), initial, nodes=31, rounds=3, seed=5, **options)

    local, spread = run(), run(engine="ray", workers=workers)
    assert spread.digest == local.digest
    assert spread.metrics.to_dict() == local.metrics.to_dict()


def test_a_process_that_dies_costs_the_message_that_it_was_at(app):
    states = NodeStates()
    grid = RayGrid(app, Population(12), workers=1, run_config={"dies": True}, states=states)
    with closing(grid):
        assert len(ask(grid, "where")) == 12  # short messages share a task; those beside the one that dies have to run
        replies = ask(grid, "train", number=2)
    failed = replies.pop("node-3")
    assert failed.error.code == ErrorCode.NODE_UNAVAILABLE
    assert "did not survive it: WorkerCrashedError" in failed.error.reason
    assert len(replies) == 11
    assert all(reply.has_content() for reply in replies.values())
    assert states.kept.keys() == replies.keys()


def test_a_model_is_read_where_the_object_store_has_it(app):
    with closing(RayGrid(app, Population(6), workers=2)) as grid:
        told = [reply.content.configs_records["told"] for reply in ask(grid, "where", size=1_000_000).values()]
    assert {each["path"].split("/")[1] for each in told} == {"dev"}
    assert len({each["inode"] for each in told}) == 1


def test_a_node_that_never_ends_costs_nobody_else(app, monkeypatch):
    monkeypatch.setattr("umbel.engines._raygrid._TOGETHER", 1.0)
    with closing(RayGrid(app, Population(8), workers=2)) as grid:
        assert len(ask(grid, "where")) == 8  # from then on, short messages share a task
        assert len(ask(grid, "hang", ttl=12.0, number=2)) == 7
        assert len(ask(grid, "where", number=3)) == 8


def test_a_node_that_is_late_takes_no_other_with_it(app):
    with closing(RayGrid(app, Population(8), workers=2)) as grid:
        assert len(ask(grid, "where")) == 8  # from then on, short messages share a task, if there is time for two
        assert len(ask(grid, "hang", ttl=6.0, number=2)) == 7


def test_closing_does_not_wait_for_a_node(app):
    with closing(RayGrid(app, Population(3), workers=2)) as grid:
        grid.send(
            Message(Metadata(1, 9 + node.node_id, 0, node.node_id, 0, 1, 600.0, "hang"), RecordSet())
            for node in grid.nodes()
        )
        next(grid.replies())
        began = time.monotonic()
    assert time.monotonic() - began < 10  # the node would have slept for ten minutes
    with closing(RayGrid(app, Population(4), workers=2)) as grid:
        assert len(ask(grid, "where")) == 4


def test_a_module_that_cannot_be_imported_again_is_refused_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "once_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    from once_app import app  # noqa: PLC0415 - it is there now

    (tmp_path / "once_app.py").write_text("raise OSError('no data here')")
    with (
        closing(RayGrid(app, Population(1), workers=1)) as grid,
        pytest.raises(AppError, match="cannot be imported by Ray: OSError: no data here - at once_app:app"),
    ):
        ask(grid, "where")


def test_a_cluster_without_room_is_refused(app):
    with pytest.raises(UsageError, match=r"with 1 CPU and 1 GPU for a node, got one with .*CPU"):
        RayGrid(app, Population(1), cluster=RayCluster(num_gpus=1))


def test_nodes_share_a_processor_if_they_may(app, tmp_path):
    # Two processors, and nobody answers before all four are there.
    met = {"here": str(tmp_path), "party": 4}
    cluster = RayCluster(num_cpus=0.5)
    with closing(RayGrid(app, Population(4), workers=4, cluster=cluster, run_config=met)) as grid:
        replies = ask(grid, "meet").values()
    assert [reply.has_content() for reply in replies] == [True] * 4


def test_only_who_has_the_token_may_join_the_cluster():
    assert os.environ["RAY_AUTH_MODE"] == "token"
    script = f"import ray; ray.init(address={ray.get_runtime_context().gcs_address!r}, log_to_driver=False)"
    environments = ({"RAY_AUTH_MODE": "disabled"}, {})
    joined = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | more, capture_output=True, check=False
        ).returncode
        for more in environments
    ]
    assert [status == 0 for status in joined] == [False, True]


SCRIPT = """\
import os, sys, time
from pathlib import Path

import numpy as np

import umbel
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import fedavg

app = ClientApp()


@app.train()
def train(message, context):
    folder = Path(context.run_config["folder"])
    if message.content.configs_records["config"]["round"] == 3 and (folder / "slow").exists():
        (folder / f"at-{context.node_name}").touch()
        time.sleep(600)
    model = message.content.parameters_records["model"].to_numpy()
    model["w"] += np.random.default_rng(context.seed).standard_normal(model["w"].shape)
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 9})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


if __name__ == "__main__":
    import script

    told = {"run_config": {"folder": os.getcwd()}, "checkpoint": sys.argv[1], "resume": True}
    first = {"w": np.zeros(5_000)}
    print(umbel.simulate(script.app, fedavg(), first, nodes=4, rounds=4, engine=sys.argv[1], **told).digest)
"""


def test_a_run_that_is_interrupted_leaves_nothing_but_a_run_that_goes_on(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    started = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "script.py"]
    straight = subprocess.run([*command, "local"], check=True, timeout=60, **started).stdout
    (tmp_path / "slow").touch()
    before = named_memory()
    with subprocess.Popen([*command, "ray"], start_new_session=True, **started) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("at-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no node came to round 3"
            time.sleep(0.05)
        assert len(processes_of(process.pid)) > 3  # with those of the cluster
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, err
    assert time.monotonic() - began < 10  # the nodes would have slept for ten minutes; most of it is Ray's own end
    assert processes_of(process.pid) == []
    assert left_behind(before) == set()
    (tmp_path / "slow").unlink()
    assert subprocess.run([*command, "ray"], check=True, timeout=120, **started).stdout == straight
