"""A run that ends at any instant goes on from its checkpoint and ends with the same bits."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import umbel
from umbel import checkpoint
from umbel.app import ClientApp
from umbel.errors import CheckpointError, UsageError
from umbel.optimizers import momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import RoundCompleted, UpdateAccepted
from umbel.strategy import fedavg, fixed, strategy

ROUNDS = 5
INITIAL = {"w": np.zeros(4, np.float32), "n": np.zeros((), np.int64)}
PLAN = fedavg(fraction=0.6, optimizer=momentum(beta=0.5), statistics=True)


def app_with_memory():
    """Nodes whose updates depend on what they keep: on the arrays and numbers of every round they took part in."""
    app = ClientApp()

    @app.query()
    def count(message, context):
        record = ParametersRecord.from_numpy({"rows": np.array([context.node_id])})
        return message.create_reply(RecordSet({"statistics": record}))

    @app.train()
    def train(message, context):
        rng = np.random.default_rng(context.seed)
        model = message.content.parameters_records["model"].to_numpy()
        rows = message.content.parameters_records["statistics"].to_numpy()["rows"]
        kept = context.state.parameters_records.get("momentum")
        velocity = np.zeros(4, np.float32) if kept is None else kept.to_numpy()["v"]
        velocity = np.float32(0.9) * velocity + rng.standard_normal(4).astype(np.float32) / np.float32(rows[0])
        context.state.parameters_records["momentum"] = ParametersRecord.from_numpy({"v": velocity})
        seen = context.state.metrics_records.setdefault("seen", MetricsRecord({"rounds": []}))
        seen["rounds"] = [*seen["rounds"], message.content.configs_records["config"]["round"]]
        model["w"] += velocity
        model["n"] = model["n"] + len(seen["rounds"])
        metrics = MetricsRecord({"num-examples": 1 + context.seed % 5, "loss": float(velocity[0])})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))

    @app.evaluate()
    def evaluate(message, context):
        context.state.metrics_records["evaluated"] = MetricsRecord({"times": 1})
        return message.create_reply(RecordSet(metrics_records={"metrics": MetricsRecord({"loss": 1.0})}))

    return app


def run(plan=PLAN, initial=INITIAL, **options):
    arguments = {"nodes": 5, "rounds": ROUNDS, "seed": 6} | options
    return umbel.simulate(app_with_memory(), plan, initial, **arguments)


def timeless(history):
    return [dataclasses.replace(report, seconds={}) for report in (history.statistics, *history.rounds)]


class Stop(Exception):
    pass


def stop_at(is_last):
    def on_event(event):
        if is_last(event):
            raise Stop

    return on_event


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize("last", range(ROUNDS))
def test_a_run_stopped_after_a_round_goes_on(tmp_path, whole, last):
    stop = stop_at(lambda event: isinstance(event, RoundCompleted) and event.report.round == last)
    if last:
        with pytest.raises(Stop):
            run(checkpoint=tmp_path, on_event=stop)
    history = run(checkpoint=tmp_path, resume=True)
    assert history.digest == whole.digest
    assert timeless(history) == timeless(whole)
    assert history.model == whole.model


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_a_run_stopped_inside_a_round_goes_on(tmp_path, whole, number, phase):
    """Nodes that had changed their state when the run stopped begin the round anew from what they kept before it."""

    def inside(event):
        return isinstance(event, UpdateAccepted) and (event.round, event.phase) == (number, phase)

    with pytest.raises(Stop):
        run(checkpoint=tmp_path, on_event=stop_at(inside))
    history = run(checkpoint=tmp_path, resume=True)
    assert history.digest == whole.digest
    assert timeless(history) == timeless(whole)


def test_a_run_stopped_after_every_round_goes_on(tmp_path, whole):
    for rounds in range(ROUNDS + 1):
        history = run(rounds=rounds, checkpoint=tmp_path, resume=True)
        assert len(history.rounds) == rounds
    assert history.digest == whole.digest
    assert timeless(history) == timeless(whole)


def test_a_run_that_is_complete_returns_its_history(tmp_path, whole):
    first = run(checkpoint=tmp_path)
    events = []
    again = run(checkpoint=tmp_path, resume=True, on_event=events.append)
    assert again == first
    assert again.model == whole.model
    assert len(events) == 2


def test_a_run_does_not_go_back(tmp_path):
    run(rounds=3, checkpoint=tmp_path)
    with pytest.raises(UsageError, match="at least the 3 rounds that the run has behind it, got 2"):
        run(rounds=2, checkpoint=tmp_path, resume=True)


KILLED = """
import os, signal, sys
from test_resume import PLAN, run
from umbel.rounds import RoundCompleted, UpdateAccepted

def on_event(event):
    if isinstance(event, UpdateAccepted) and (event.round, event.phase) == (3, "evaluate"):
        os.kill(os.getpid(), signal.SIGKILL)

run(checkpoint=sys.argv[1], on_event=on_event)
"""


def test_a_killed_process_goes_on(tmp_path, whole):
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120 - a path for another process
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [report.round for report in checkpoint.read(tmp_path).reports] == [0, 1, 2]
    history = run(checkpoint=tmp_path, resume=True)
    assert history.digest == whole.digest
    assert timeless(history) == timeless(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, r"run\.seed is 6 in the checkpoint, 7 in this run"),
        ({"plan": PLAN._replace(name="other")}, r"strategy\.name is 'fedavg' in the checkpoint, 'other' in this run"),
        (
            {"plan": fedavg(fraction=0.5, optimizer=momentum(beta=0.5), statistics=True)},
            r"strategy\.select is 'fraction\(0\.6, .*\)' in the checkpoint, 'fraction\(0\.5, .*\)' in this run",
        ),
        (
            {"plan": fedavg(fraction=0.6, optimizer=momentum(beta=0.9), statistics=True)},
            r"strategy\.optimizer is '.*beta=0\.5\)' in the checkpoint, '.*beta=0\.9\)' in this run",
        ),
        ({"run_config": {"lr": 0.1}}, r"config\.lr is None in the checkpoint, 0\.1 in this run"),
        (
            {"initial": INITIAL | {"w": np.zeros((2, 2), np.float32)}},
            r"model\['w'\] is float32\[4\] in the checkpoint, float32\[2, 2\] in this run",
        ),
        ({"initial": {"w": INITIAL["w"]}}, r"model\['n'\] is int64\[\] in the checkpoint, absent in this run"),
        ({"initial": dict(reversed(INITIAL.items()))}, "another order"),
        ({"nodes": 9}, r"run\.nodes is '5 virtual nodes' in the checkpoint, '9 virtual nodes' in this run"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(tmp_path, change, message):
    run(rounds=1, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        run(checkpoint=tmp_path, resume=True, **change)


def test_a_config_that_is_not_a_number_is_no_other_config(tmp_path):
    nan = {"run_config": {"limit": float("nan")}}
    run(rounds=1, checkpoint=tmp_path, **nan)
    assert len(run(rounds=2, checkpoint=tmp_path, resume=True, **nan).rounds) == 2


def test_a_checkpoint_is_never_overwritten_by_accident(tmp_path):
    run(rounds=1, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="resume=True"):
        run(checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_runs_do_not_use_one_folder_at_a_time(tmp_path, whole):
    def begin_another(event):
        if isinstance(event, RoundCompleted) and event.report.round == 1:
            run(checkpoint=tmp_path, resume=True)

    with pytest.raises(CheckpointError, match="a folder that no other run uses"):
        run(checkpoint=tmp_path, on_event=begin_another)
    assert run(checkpoint=tmp_path, resume=True).digest == whole.digest


def test_a_different_initial_model_of_one_shape_is_no_obstacle(tmp_path, whole):
    run(rounds=2, checkpoint=tmp_path)
    other = {"w": np.ones(4, np.float32), "n": np.ones((), np.int64)}
    assert run(initial=other, checkpoint=tmp_path, resume=True).digest == whole.digest


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="a folder to write checkpoints to"):
        run(checkpoint=file / "below")


def test_a_cohort_of_a_large_population_resumes(tmp_path):
    plan = strategy(select=fixed(3))
    options = {"nodes": 100_000, "plan": plan, "initial": {"w": np.zeros(4, np.float32), "n": INITIAL["n"]}}
    app = ClientApp()

    @app.train()
    def train(message, context):
        arrays = message.content.parameters_records["model"].to_numpy()
        arrays["w"] += context.node_id % 97
        metrics = MetricsRecord({"num-examples": 1})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(arrays)}, {"metrics": metrics}))

    def simulate(**more):
        return umbel.simulate(app, options["plan"], options["initial"], nodes=options["nodes"], **more)

    simulate(rounds=2, checkpoint=tmp_path)
    assert simulate(rounds=4, checkpoint=tmp_path, resume=True).digest == simulate(rounds=4).digest
