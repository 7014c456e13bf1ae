"""Ray clusters that are there already, of several machines, or not there after all."""

import socket
import subprocess
import sys

import numpy as np
import pytest

import umbel
from umbel.records import ParametersRecord, save
from umbel.strategy import fedavg

ray = pytest.importorskip("ray", reason="needs Ray, an extra of 200 MB: make test-ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

APP = """\
import os
from pathlib import Path

import numpy as np

from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    import ray

    if ray.is_initialized():
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        Path(context.run_config["folder"], f"{ray.get_runtime_context().get_node_id()}-{gpu}").touch()
    model = message.content.parameters_records["model"].to_numpy()
    model["w"] += np.random.default_rng(context.seed).standard_normal(model["w"].shape)
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 9})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))
"""

#: Two machines of one processor and one GPU each, as far as Ray knows.
SCRIPT = """\
import sys
from functools import partial

import numpy as np
from ray.cluster_utils import Cluster

import umbel
from machines import app
from umbel.engines import RayCluster, RayGrid
from umbel.strategy import fedavg

size = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=size)
cluster.add_node(num_cpus=1, num_gpus=1)
engine = partial(RayGrid, cluster=RayCluster(address=cluster.address, num_cpus=0.5, num_gpus=0.5))
config = {"folder": sys.argv[1]}
history = umbel.simulate(app, fedavg(), {"w": np.zeros(70_000)}, nodes=24, rounds=3, engine=engine, run_config=config)
print(history.digest, len([each for each in cluster.list_all_nodes()]))
"""


def test_nodes_run_on_all_machines_of_a_cluster_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "machines.py").write_text(APP)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "at").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of this test alone, and long enough")
    command = [sys.executable, "script.py", str(tmp_path / "at")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    import machines  # noqa: PLC0415 - it is there now

    config = {"folder": str(tmp_path / "at")}
    first = {"w": np.zeros(70_000)}
    local = umbel.simulate(machines.app, fedavg(), first, nodes=24, rounds=3, run_config=config)
    assert done.stdout.split()[-2:] == [local.digest, "2"]
    places = [path.name.rpartition("-") for path in (tmp_path / "at").iterdir()]
    assert len({machine for machine, _, _ in places}) == 2
    assert {gpu for _, _, gpu in places} == {"0"}


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_an_address_with_nobody_there_is_refused_at_once(tmp_path, address):
    """In a process of its own: one that is connected to a cluster stays with it."""
    (tmp_path / "machines.py").write_text(APP)
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        where = address.format(port=taken.getsockname()[1])
        _is_refused(tmp_path, where)


def _is_refused(tmp_path, where):
    script = (
        "from machines import app\nfrom umbel.engines import Population, RayCluster, RayGrid\n"
        f"RayGrid(app, Population(1), cluster=RayCluster(address={where!r}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert f"UsageError: expected a Ray cluster at {where}, got none" in done.stderr


TWO = """\
from contextlib import closing

from ray.cluster_utils import Cluster

from machines import app
from umbel.engines import Population, RayCluster, RayGrid
from umbel.errors import UsageError

first, second = (Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False}) for _ in "12")
port = first.address.rpartition(":")[2]
for same in (first.address, first.address, f"127.0.0.1:{port}", f"localhost:{port}", "auto", None):
    with closing(RayGrid(app, Population(1), cluster=RayCluster(same))):
        pass
for other in (second.address, "192.0.2.77:6379", "ray://192.0.2.77:10001"):
    try:
        RayGrid(app, Population(1), cluster=RayCluster(other))
    except UsageError as error:
        print(str(error).replace(first.address, "FIRST").replace(other, "OTHER"))
import ray

ray.shutdown()
with closing(RayGrid(app, Population(1), cluster=RayCluster(second.address))):
    print(ray.get_runtime_context().gcs_address == second.address)
"""


def test_a_process_that_is_connected_refuses_another_cluster(tmp_path, monkeypatch):
    (tmp_path / "machines.py").write_text(APP)
    (tmp_path / "two.py").write_text(TWO)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of this test alone, and long enough")
    command = [sys.executable, "two.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    *refused, reached = done.stdout.splitlines()
    expected = (
        "expected the Ray cluster at OTHER, but this process is connected to the one at FIRST, and it can have one"
    )
    assert len(refused) == 3
    assert all(line.startswith(expected) and "call ray.shutdown() first" in line for line in refused)
    assert reached == "True"


SETTINGS = """\
[tool.umbel]
client = "machines:app"
initial = "first.safetensors"
nodes = 6
rounds = 2
cluster = { num_cpus = 0.5 }

[tool.umbel.config]
folder = "."
"""

COMMANDS = """\
import json, subprocess, sys

from ray.cluster_utils import Cluster

cluster = Cluster(True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
umbel = [sys.executable, "-c", "from umbel.cli import main; main()"]
run = [*umbel, "run", ".", "--json", "--set", f"folder={sys.argv[1]}"]
for options in (["--engine", "local"], ["--cluster", cluster.address, "--num-gpus", "0.25"]):
    done = subprocess.run([*run, *options], capture_output=True, text=True, check=False)
    print(json.loads(done.stdout.splitlines()[-1])["digest"] if done.returncode == 0 else done.stderr)
print(subprocess.run([*run, "--cluster", cluster.address, "--num-gpus", "2"], capture_output=True, text=True).stderr)
"""


def test_a_command_names_the_cluster_and_what_a_node_takes(tmp_path, monkeypatch):
    for name, text in (("machines.py", APP), ("pyproject.toml", SETTINGS), ("commands.py", COMMANDS)):
        (tmp_path / name).write_text(text)
    save(ParametersRecord.from_numpy({"w": np.zeros(70_000)}), tmp_path / "first.safetensors")
    (tmp_path / "at").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of this test alone, and long enough")
    command = [sys.executable, "commands.py", str(tmp_path / "at")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    local, spread, refused = done.stdout.split("\n", 2)
    assert local == spread
    assert {path.name.rpartition("-")[2] for path in (tmp_path / "at").iterdir()} == {"0"}
    assert "expected a Ray cluster with 0.5 CPU and 2 GPU for a node, got one with" in refused
