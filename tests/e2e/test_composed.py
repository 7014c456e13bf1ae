"""A strategy of parts over nodes: the main of an app puts it together, and hands it to the one loop."""

import pytest

from apps import digest_of, write_main_app

SITES = [f"site-{place}" for place in range(4)]
ALWAYS = ["site-1", "site-3"]

SETTINGS = """\
[tool.umbel]
client = "app:app"
main = "app:server"
initial = "app:initial"
nodes = ["site-0", "site-1", "site-2", "site-3"]
seed = 3

[tool.umbel.config]
log = "trained"
always = "site-1 site-3"
"""

APP = """\
import numpy as np

from umbel.app import ClientApp, ServerApp
from umbel.optimizers import momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import RunCompleted, begin, train
from umbel.strategy import strategy, these

app, server = ClientApp(), ServerApp()


def initial(config):
    return {"w": np.zeros(50)}


@app.train()
def train_here(message, context):
    w = message.content.parameters_records["model"].to_numpy()["w"]
    w = w + np.random.default_rng(context.seed).normal(0, 0.01, w.shape)
    with open(context.run_config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    metrics = {"metrics": MetricsRecord({"num-examples": 1})}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy({"w": w})}, metrics))


@server.main()
def main(grid, context):
    plan = strategy(select=these(context.run_config["always"].split()), optimizer=momentum(beta=0.5))
    model = context.state.parameters_records["model"]
    state = begin(plan, model, seed=context.seed, run_config=context.run_config)
    for event in train(grid, plan, state, rounds=3, run_id=context.run_id):
        if isinstance(event, RunCompleted):
            context.state.parameters_records["model"] = event.state.parameters_records["model"]
"""


@pytest.fixture
def app(tmp_path):
    return write_main_app(tmp_path, SETTINGS, APP)


def test_the_same_nodes_are_asked_in_every_round_over_each_engine_and_over_a_server(federation, app, tmp_path):
    log, digests = tmp_path / "trained", []
    expected = sorted(f"{name} {number}" for name in ALWAYS for number in (1, 2, 3))
    federation.server = federation.serve("--tokens", len(SITES))
    federation.nodes(app, SITES)
    for options in ([], ["--engine", "processes", "--workers", "2"], ["--server", federation.url]):
        digests.append(digest_of(federation.umbel("run", "app", *options)))
        assert sorted(log.read_text().splitlines()) == expected
        log.unlink()
    assert len(set(digests)) == 1


def test_a_node_that_nobody_has_is_refused_with_the_nearest(federation, app):
    result = federation.umbel("run", "app", "--set", "always=site-1 site3")
    assert result.returncode != 0
    assert "there is no 'site3' among the 4 of round 1" in result.stderr
    assert 'did you mean "site-3"?' in result.stderr
