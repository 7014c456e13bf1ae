"""Real processes over TLS: a run ends with the bytes of `umbel.simulate`, whatever happens to its server."""

import signal
import time

import numpy as np
import pytest

import umbel
from federation import Federation, wait_for
from umbel.http import wire
from umbel.strategy import named

APP = """
import time
import numpy as np
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.query()
def statistics(message, context):
    site = float(context.node_config["site"])
    sums = {"sum": np.arange(3.0) * site, "count": np.array([site])}
    return message.create_reply(RecordSet({"statistics": ParametersRecord.from_numpy(sums)}))


@app.train()
def train(message, context):
    time.sleep(context.run_config["seconds"])
    records = message.content.parameters_records
    rng, total = np.random.default_rng(context.seed), float(records["statistics"]["sum"].numpy().sum())
    made = {name: array + rng.normal(size=array.shape) * total for name, array in records["model"].to_numpy().items()}
    steps = MetricsRecord({"num-examples": int(rng.integers(1, 99)), "loss": float(rng.random())})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(made)}, {"metrics": steps}))


@app.evaluate()
def evaluate(message, context):
    largest = float(np.abs(message.content.parameters_records["model"]["w"].numpy()).max())
    return message.create_reply(RecordSet(metrics_records={"metrics": MetricsRecord({"largest": largest})}))
"""
SITES = {"north": {"site": 1}, "south": {"site": 2}}
ROUNDS, SEED = 4, 11
STRATEGY = {"name": "fedyogi", "statistics": True}


@pytest.fixture
def app_folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["tls", "plain"])
def federation(tmp_path, app_folder, request):
    made = Federation(tmp_path / "federation", app_folder, plain=request.param)
    yield made
    made.close()


def model():
    return {"w": np.zeros((100, 100)), "b": np.zeros(3)}


def alone(seconds=0.0):
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    options = {key: value for key, value in STRATEGY.items() if key != "name"}
    settings = {"nodes": SITES, "rounds": ROUNDS, "seed": SEED, "run_config": {"seconds": seconds}}
    return umbel.simulate(space["app"], named("fedyogi", options), model(), **settings)


def begin(federation, seconds=0.0):
    for name, config in SITES.items():
        federation.node(name, config=config)
    return federation.submit(model(), nodes=list(SITES), rounds=ROUNDS, seed=SEED, strategy=STRATEGY, seconds=seconds)


def assert_same(view, history):
    assert view.digest == history.digest
    reports = [history.statistics, *history.rounds]
    assert [report["digest"] for report in view.reports] == [each.digest for each in reports]
    assert [report["metrics"] for report in view.reports] == [dict(each.metrics) for each in reports]
    assert [report["bytes"] for report in view.reports] == [dict(each.bytes) for each in reports]
    asked = len(SITES) * (1 + 2 * ROUNDS)
    assert [question.outcome for question in view.questions] == ["accepted"] * asked


def test_the_same_bytes_as_in_one_process(federation):
    federation.serve()
    assert_same(federation.completed(begin(federation)), alone())


def test_a_server_killed_in_the_middle_of_a_round(federation):
    server = federation.serve()
    run = begin(federation, 0.2)
    wait_for(lambda: federation.view(run).row.completed == 1, "the first round is complete")
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    begun = time.monotonic()
    federation.serve()
    assert time.monotonic() - begun < 20  # on a busy machine; alone it takes one or two
    view = federation.completed(run)
    assert_same(view, alone(0.2))
    assert len(view.restarts) == 1


@pytest.mark.slow
def test_a_server_that_is_told_to_stop_goes_on_with_the_same_command(federation):
    server = federation.serve()
    run = begin(federation, 0.2)
    wait_for(lambda: federation.view(run).row.completed == 1, "the first round is complete")
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.log.read_text()
    federation.serve()
    assert_same(federation.completed(run), alone(0.2))


@pytest.mark.slow
def test_a_node_that_falls_silent_is_lost_with_the_reason_and_comes_back(tmp_path, app_folder):
    federation = Federation(tmp_path / "federation", app_folder, poll=0.5, settings={"patience": 3.0})
    try:
        federation.serve()
        nodes = {name: federation.node(name, config=config) for name, config in SITES.items()}
        told = {"nodes": list(SITES), "rounds": 6, "seed": SEED, "strategy": STRATEGY, "seconds": 0.3}
        run = federation.submit(model(), **told)
        wait_for(lambda: federation.view(run).row.completed == 1, "the first round is complete")
        nodes["south"].process.send_signal(signal.SIGSTOP)
        wait_for(lambda: federation.view(run).row.completed == 3, "the run goes on without it")
        assert {row.name: row.status for row in federation.call("list_nodes").nodes}["south"] == "silent"
        nodes["south"].process.send_signal(signal.SIGCONT)
        view = federation.completed(run)
        lost = [each for each in view.questions if each.outcome in ("lost", "late")]
        assert {each.node for each in lost} == {"south"}
        assert all("was silent for" in each.reason for each in lost)
        assert view.reports[-1]["cohort"] == 2, "it is asked again once it is back"
    finally:
        for node in federation.processes:
            if node.is_running:
                node.process.send_signal(signal.SIGCONT)
        federation.close()


def test_a_token_is_for_one_and_a_shut_out_node_ends(federation):
    federation.serve()
    north = federation.node("north", config=SITES["north"])
    wait_for(lambda: federation.call("list_nodes").nodes, "the node has joined")
    (row,) = federation.call("list_nodes").nodes
    federation.call("revoke_member", wire.Done(), member=row.member)
    assert north.wait() != 0
