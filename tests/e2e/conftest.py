"""An app that trains in a moment, and ``umbel`` called through typer's runner in an empty folder."""

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
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "pyproject.toml").write_text(_replaced(PYPROJECT, settings))
        (folder / "app.py").write_text(_replaced(APP, code))
        return folder

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
