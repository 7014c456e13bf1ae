"""An app that trains in a moment; ``umbel`` called through typer's runner in an empty folder, or as processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from umbel.cli._main import app

PYPROJECT = """\
[tool.umbel]
client = "app:app"
initial = "app:initial"
nodes = "app:nodes"
evaluate = "app:evaluate"
rounds = 4
seed = 3

[tool.umbel.config]
rate = 0.5
"""

APP = """\
import numpy as np

from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


def nodes(config):
    return {f"site-{i}": {"target": float(i)} for i in range(4)}


def initial(config):
    return {"w": np.zeros(3)}


@app.train()
def train(message, context):
    w = message.content.parameters_records["model"].to_numpy()["w"]
    gap = context.node_config["target"] - w
    w = w + context.run_config["rate"] * gap + np.random.default_rng(context.seed).normal(0, 0.01, 3)
    metrics = MetricsRecord({"num-examples": 10, "gap": float(np.abs(gap).mean())})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy({"w": w})}, {"metrics": metrics}))


def evaluate(round, model):
    print("evaluating")
    return {"distance": float(abs(model.to_numpy()["w"].mean() - 1.5))}


def report(history, config):
    return f"report after {len(history.rounds)} rounds\\x1b[31m with rate {config['rate']}"
"""


@pytest.fixture
def umbel(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        return CliRunner().invoke(app, list(map(str, args)))

    return call


@pytest.fixture
def site(tmp_path):
    """Write the app, with some of its text replaced, and return its folder."""

    def write(settings=(), code=(), name="my app"):
        return write_app(tmp_path / name, settings, code)

    return write


def _replaced(text, changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def only_run(tmp_path):
    """Return the folder of the one run that there is."""

    def find():
        (run,) = (tmp_path / "runs").iterdir()
        return run

    return find


UMBEL = [sys.executable, "-c", "from umbel.cli import main; main()"]
DEADLINE = 30


class Federation:
    """A server and nodes as processes, and what else ``umbel`` does beside them; nothing of them outlives a test."""

    def __init__(self, folder):
        self.folder = folder
        self.told = {"UMBEL_CONFIG_DIR": str(folder / "config"), "XDG_DATA_HOME": str(folder / "share")}
        self.env = os.environ | self.told | {"NO_COLOR": "1"}
        self.processes = []
        self.url = ""
        self.joins = []

    def start(self, *args, output, **env):
        """Start ``umbel`` with what it prints in files, ``output.out`` and ``output.err``."""
        with (self.folder / f"{output}.out").open("w") as out, (self.folder / f"{output}.err").open("a") as err:
            process = subprocess.Popen(
                [*UMBEL, *map(str, args)], cwd=self.folder, env=self.env | env, stdout=out, stderr=err
            )
        self.processes.append(process)
        return process

    def serve(self, *args, **env):
        """Start the server, with TLS, and wait until it listens; the second start takes the port of the first."""
        port = self.url.rpartition(":")[2] or 0
        listens = ("--host", "127.0.0.1", "--port", port)
        process = self.start("server", "--data", "server", *listens, "--json", *args, output="server", **env)
        said = self.folder / "server.out"
        wait_for(lambda: process.poll() is not None or said.read_text().endswith("\n"), said)
        assert process.poll() is None, (self.folder / "server.err").read_text()
        told = json.loads(said.read_text())
        self.url, self.joins = told["url"], told["joins"]
        return process

    def node(self, app, name, *args, join=None, **env):
        """Start a node and wait until it has joined, or ended."""
        return self.nodes(app, [name], *args, joins=[join or self.joins.pop(0)], **env)[0]

    def nodes(self, app, names, *args, joins=None, **env):
        """Start nodes and wait until all of them have joined, or ended."""
        lines = joins or [self.joins.pop(0) for _ in names]
        started = [
            self.start(
                *("node", "--join", line, "--app", app, "--name", name, "--data", name, *args), output=name, **env
            )
            for name, line in zip(names, lines, strict=True)
        ]
        for process, name in zip(started, names, strict=True):
            joined = self.folder / name / "member.json"
            wait_for(lambda p=process, j=joined: p.poll() is not None or j.exists(), self.folder / f"{name}.err")
        return started

    def status(self, name):
        """What the server says of a node."""
        rows = json.loads(self.umbel("nodes", "--json").stdout)["nodes"]
        return next((row["status"] for row in rows if row["name"] == name), None)

    def umbel(self, *args, **env):
        """Call ``umbel`` in this process, in the folder, as the operator unless ``env`` makes it somebody else."""
        back = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(app, list(map(str, args)), env=self.told | env)
        finally:
            os.chdir(back)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(args, result.exit_code, result.stdout, result.stderr)

    def close(self):
        """End whatever is still there."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(condition, what):
    """Wait until a condition holds, or fail with what the file ``what`` says by then."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what.read_text()
        time.sleep(0.05)


def write_app(folder, settings=(), code=()):
    """Write the app into a folder, with some of its text replaced."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(_replaced(PYPROJECT, settings))
    (folder / "app.py").write_text(_replaced(APP, code))
    return folder


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def federation_of():
    return Federation


@pytest.fixture(scope="session")
def app_of():
    return write_app


@pytest.fixture(scope="session")
def wait_until():
    return wait_for
