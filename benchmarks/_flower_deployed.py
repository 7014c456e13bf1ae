"""Flower 1.41 deployed at the same work: a superlink, two supernodes, and clients that send the model plus a constant.

    python benchmarks/_flower_deployed.py BYTES ARRAYS ROUNDS

All on loopback without TLS, state in memory, which is how Flower is started by default.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from _peers import PeerUnavailable, peer_python
from _processes import Peak, cpu_seconds

PEER = "flwr-1.41.0"
NODES = 2
PATIENCE = 300.0  # seconds for all rounds
SUBMITTING = 120.0

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "echo"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "bench"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "echo_app:server"
clientapp = "echo_app:client"

[tool.flwr.app.config]
size = 36
arrays = 1
rounds = 3
marks = ""
"""

APP = """
import time

import flwr.app as fa
import numpy as np
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    step = np.float32(1e-6 * (1 + context.node_id % 1000 + message.content["config"]["server-round"]))
    moved = [array + step for array in message.content["arrays"].to_numpy_ndarrays()]
    metrics = fa.MetricRecord({"num-examples": 1})
    return fa.Message(fa.RecordDict({"arrays": fa.ArrayRecord(moved), "metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    told = context.run_config
    rng = np.random.default_rng(1)
    each = told["size"] // told["arrays"] // 4
    model = fa.ArrayRecord([rng.random(each, np.float32) for _ in range(told["arrays"])])

    def mark(number, _arrays):
        with open(told["marks"], "a") as file:
            file.write(f"{time.time()}\\n")

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy.start(grid=grid, initial_arrays=model, num_rounds=told["rounds"], evaluate_fn=mark)
"""


class Taken(NamedTuple):
    """Seconds of a round in the middle, CPU seconds a round and anonymous bytes at the peak over all processes."""

    seconds: float
    cpu: float
    together: int


def rounds(size: int, arrays: int, count: int) -> Taken:
    """Play so many rounds; raises ``PeerUnavailable`` if Flower cannot be had here, or does not come to an end."""
    python = peer_python(PEER)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="flower-bench-") as name:
        folder = Path(name)
        write_app(folder / "app")
        port = free_port()
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        with deployed(python.parent, folder, port) as processes:
            return play(python.parent, folder, processes, {"size": size, "arrays": arrays, "rounds": count})


def write_app(folder: Path) -> None:
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "LICENSE").write_text("To be measured, and for nothing else.\n")
    (folder / "echo_app.py").write_text(APP)


@contextmanager
def deployed(programs: Path, folder: Path, port: int) -> Iterator[list[int]]:
    """Start the superlink and the supernodes, and yield their processes."""
    started = [
        start(
            programs,
            folder,
            "flower-superlink",
            "--insecure",
            "--disable-runtime-dependency-installation",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        )
    ]
    try:
        wait_for(lambda: is_open(port), 60, "Flower's superlink listens", folder)
        for number in range(NODES):
            near = ("--superlink", f"127.0.0.1:{port}", "--host", "127.0.0.1", "--port", str(free_port()))
            started.append(start(programs, folder, "flower-supernode", "--insecure", *near, name=f"node-{number}"))
        yield [each.pid for each in started]
    finally:
        for each in started:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)  # what it has started is in its group
            each.wait()


def start(programs: Path, folder: Path, program: str, *arguments: str, name: str = "superlink") -> subprocess.Popen:
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [str(programs / program), *arguments],
            env=environment(programs, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def environment(programs: Path, folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **kept,
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": path,
    }


def play(programs: Path, folder: Path, processes: list[int], told: dict[str, int]) -> Taken:
    marks = folder / "marks"
    config = " ".join(f"{key}={value}" for key, value in told.items()) + f' marks="{marks}"'
    before = cpu_seconds(processes)
    with Peak(processes, 0.1) as peak:
        submit([str(programs / "flwr"), "run", str(folder / "app"), "here", "--run-config", config], programs, folder)
        wanted = told["rounds"] + 1  # one mark before the first round
        wait_for(
            lambda: marks.exists() and len(marks.read_text().split()) >= wanted, PATIENCE, "Flower is done", folder
        )
    cpu = cpu_seconds(processes) - before
    times = [float(line) for line in marks.read_text().split()]
    return Taken(
        median(after - at for at, after in pairwise(times)), cpu / told["rounds"], peak.together - peak.idle_together
    )


def submit(command: list[str], programs: Path, folder: Path) -> None:
    env = environment(programs, folder)
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=SUBMITTING)
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailable(f"flwr run did not end within {SUBMITTING:.0f} s") from error
    if done.returncode:
        raise PeerUnavailable(f"flwr run: {done.stdout[-1500:]} {done.stderr[-500:]}")


def wait_for(condition: Callable[[], bool], seconds: float, what: str, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = {path.name: path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.log"))}
            raise PeerUnavailable(f"waited {seconds:.0f} s in vain until {what}: {json.dumps(logs, indent=1)}")
        time.sleep(0.05)


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    print(rounds(*map(int, sys.argv[1:])))
