"""A whole federation in one call: it learns, it is reproducible to the bit, and it says what happened."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import umbel
from umbel.app import ClientApp
from umbel.errors import AppError, BadName, RoundFailed, StrategyError, UsageError
from umbel.optimizers import momentum
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, digest
from umbel.rounds import RoundCompleted, RoundStarted, RunCompleted, RunStarted, UpdateAccepted
from umbel.strategy import fedavg, fixed, strategy

FEATURES = 5
TRUTH = np.array([2.0, -1.0, 0.5, 0.0, 1.5])


def rows(node, count=80):
    rng = np.random.default_rng(node)
    X = rng.standard_normal((count, FEATURES)) + 0.3 * (node % 10)
    y = rng.random(count) < 1 / (1 + np.exp(-(X @ TRUTH - 1)))
    return X, y.astype(float)


def logistic_app():
    app = ClientApp()

    @app.train()
    def train(message, context):
        model = message.content.parameters_records["model"].to_numpy()
        X, y = rows(context.node_config["partition-id"])
        rng = np.random.default_rng(context.seed)
        for batch in np.array_split(rng.permutation(len(y)), 8):
            error = 1 / (1 + np.exp(-(X[batch] @ model["w"] + model["b"]))) - y[batch]
            model["w"] -= context.run_config["lr"] * error @ X[batch] / len(batch)
            model["b"] -= context.run_config["lr"] * error.mean()
        record = ParametersRecord.from_numpy(model)
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": len(y)})}))

    @app.evaluate()
    def evaluate(message, context):
        model = message.content.parameters_records["model"].to_numpy(copy=False)
        X, y = rows(1_000 + context.node_config["partition-id"])
        accuracy = float((((X @ model["w"] + model["b"]) > 0) == y).mean())
        metrics = MetricsRecord({"num-examples": len(y), "accuracy": accuracy})
        return message.create_reply(RecordSet(metrics_records={"metrics": metrics}))

    return app


INITIAL = {"w": np.zeros(FEATURES), "b": np.zeros(1)}


def run(plan=None, **options):
    arguments = {"nodes": 6, "rounds": 15, "seed": 3, "run_config": {"lr": 0.5}} | options
    return umbel.simulate(logistic_app(), plan or fedavg(fraction=0.5), INITIAL, **arguments)


def test_a_federation_learns():
    history = run()
    accuracy = history.metrics["evaluate.accuracy"]
    assert accuracy[-1] > 0.8
    assert accuracy[-1] > accuracy[0]
    direction = history.model.to_numpy()["w"]
    assert direction @ TRUTH / np.linalg.norm(direction) / np.linalg.norm(TRUTH) > 0.95


def test_the_same_seed_gives_the_same_bits():
    first, second = run(), run()
    assert first.digest == second.digest == digest(first.model)
    assert [each.digest for each in first.rounds] == [each.digest for each in second.rounds]
    assert first.metrics.to_dict() == second.metrics.to_dict()
    assert run(seed=4).digest != first.digest


def test_this_digest_is_the_same_on_every_machine():
    app = ClientApp()

    @app.train()
    def train(message, context):
        model = message.content.parameters_records["model"].to_numpy()
        model["w"] += np.float32(context.seed % 1_000) / np.float32(7)
        model["b"] += np.float32(context.seed % 1_000) / np.float32(7)
        metrics = MetricsRecord({"num-examples": 1 + context.seed % 50})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))

    initial = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(3, 0.1, np.float32)}
    plan = fedavg(fraction=0.4, optimizer=momentum(beta=0.5))
    history = umbel.simulate(app, plan, initial, nodes=20, rounds=4, seed=12)
    assert history.digest == "blake3:04340c72273dae3ab3f63a2b855666a5f5ce8852755cbe6f3ee3922b55bcb9de"


def test_events_tell_the_run_in_order():
    events = []
    history = run(fedavg(evaluate_fraction=0), rounds=2, nodes=3, on_event=events.append)
    kinds = [type(event) for event in events]
    one_round = [RoundStarted, *[UpdateAccepted] * 3, RoundCompleted]
    assert kinds == [RunStarted, *one_round, *one_round, RunCompleted]
    assert [event.node for event in events if isinstance(event, UpdateAccepted)] == ["node-0", "node-1", "node-2"] * 2
    assert events[0] == RunStarted(run_id=1, strategy="fedavg", seed=3, rounds=2, completed=0, nodes=3)
    assert [event.report for event in events if isinstance(event, RoundCompleted)] == list(history.rounds)
    assert events[-1].digest == history.digest
    with pytest.raises(dataclasses.FrozenInstanceError):
        events[0].seed = 1


def test_a_report_counts_nodes_and_bytes_and_times_phases():
    history = run(fedavg(fraction=0.5, evaluate_fraction=0.5), rounds=1, evaluate=lambda number, model: {"n": number})
    (report,) = history.rounds
    assert (report.cohort, report.accepted, report.refused, report.lost) == (3, 3, (), ())
    assert report.bytes["sent"] > 6 * history.model.count_bytes()
    assert report.bytes["received"] > 3 * history.model.count_bytes()
    assert list(report.seconds) == ["train", "aggregate", "evaluate", "central"]
    assert report.metrics["central.n"] == 1
    assert report.metrics["train.num-examples"] == report.metrics["evaluate.num-examples"] == 3 * 80


def test_the_cohort_is_drawn_anew_every_round():
    events = []
    run(strategy(select=fixed(2)), nodes=10, rounds=10, on_event=events.append)
    cohorts = {}
    for event in events:
        if isinstance(event, UpdateAccepted):
            cohorts.setdefault(event.round, []).append(event.node)
    assert all(len(cohort) == 2 for cohort in cohorts.values())
    assert len(set(map(tuple, cohorts.values()))) > 5


def test_a_million_nodes_cost_no_more_than_a_thousand():
    def peak(nodes):
        tracemalloc.start()
        run(strategy(select=fixed(100)), nodes=nodes, rounds=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_000)  # what is imported and cached on first use is not a cost of nodes
    assert peak(1_000_000) < peak(1_000) + 100_000


def test_names_and_configs_reach_their_nodes():
    app = ClientApp()
    seen = {}

    @app.train()
    def train(message, context):
        seen[context.node_name] = (dict(context.node_config), dict(context.run_config))
        seen["round"] = message.content.configs_records["config"]["round"]
        seen["lr"] = message.content.configs_records["config"]["lr"]
        return message.create_reply(
            RecordSet(message.content.parameters_records, {"metrics": MetricsRecord({"num-examples": 1})})
        )

    nodes = {"zurich": {"beds": 3}, "basel": {"beds": 4}}
    umbel.simulate(app, fedavg(), [np.zeros(2)], nodes=nodes, rounds=2, run_config={"lr": 0.5})
    assert seen == {
        "zurich": ({"beds": 3}, {"lr": 0.5}),
        "basel": ({"beds": 4}, {"lr": 0.5}),
        "round": 2,
        "lr": 0.5,
    }


def test_the_initial_model_is_left_alone():
    initial = {"w": np.zeros(FEATURES), "b": np.zeros(1)}
    record = ParametersRecord.from_numpy(initial)
    before = digest(record)
    umbel.simulate(logistic_app(), fedavg(), record, nodes=2, rounds=2, run_config={"lr": 1.0})
    assert digest(record) == before


def test_no_rounds_return_the_initial_model():
    history = run(rounds=0)
    assert history.rounds == ()
    assert history.metrics.to_dict() == {"round": []}
    assert history.digest == digest(ParametersRecord.from_numpy(INITIAL))


def test_an_instruction_can_be_changed_by_the_strategy():
    app = ClientApp()
    rates = []

    @app.train()
    def train(message, context):
        rates.append(message.content.configs_records["config"]["lr"])
        return message.create_reply(
            RecordSet(message.content.parameters_records, {"metrics": MetricsRecord({"num-examples": 1})})
        )

    def decay(content, number):
        changed = content.copy()
        changed.configs_records["config"]["lr"] = 0.5**number
        return changed

    umbel.simulate(app, strategy(instruct=decay), [np.zeros(1)], nodes=1, rounds=3, run_config={"lr": 1.0})
    assert rates == [0.5, 0.25, 0.125]


def test_a_fault_in_central_evaluation_is_the_callers():
    def fail(number, model):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(evaluate=fail)


@pytest.mark.parametrize(
    ("returned", "message"),
    [(None, "metrics by name from evaluate, .* got NoneType"), ({"auc": "high"}, "from evaluate: .* str 'high'.*auc")],
)
def test_what_is_no_metric_of_central_evaluation_is_the_apps_error(returned, message):
    with pytest.raises(AppError, match=message):
        run(rounds=1, evaluate=lambda number, model: returned)


def test_central_metrics_that_are_not_finite_are_none():
    history = run(rounds=1, evaluate=lambda number, model: {"auc": float("nan"), "curve": [1.0, float("inf")]})
    assert history.rounds[0].metrics["central.auc"] is None
    assert history.metrics["central.curve"] == [[1.0, None]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "gpu"}, UsageError, r"the name of an engine, .* got 'gpu' \(known: local, processes, ray\)"),
        ({"engine": "proces"}, UsageError, "got 'proces'; did you mean \"processes\""),
        ({"workers": 2}, UsageError, "no workers for the engine 'local'"),
        ({"workers": 0, "engine": "processes"}, UsageError, "number of workers, 1 or more, got 0"),
        ({"rounds": -1}, UsageError, "number of rounds"),
        ({"nodes": 0}, UsageError, "at least one node"),
        ({"seed": -1}, UsageError, "seed from 0"),
        ({"seed": 2**63}, UsageError, "seed from 0"),
        ({"resume": True}, UsageError, "checkpoint=FOLDER"),
        ({"run_config": {"round": 3}}, UsageError, "without 'round'"),
        ({"plan": fedavg(min_nodes=7)}, StrategyError, "at least 7 nodes"),
        ({"plan": fedavg(min_updates=7)}, RoundFailed, "at least 7, as min_updates of the strategy needs, got"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_a_handler_of_the_nodes_is_no_central_evaluation():
    app = ClientApp()

    @app.train()
    def train(message, context):
        raise AssertionError("it was refused before anybody trained")

    with pytest.raises(UsageError, match="the node's handler of 'train' messages"):
        umbel.simulate(app, fedavg(), INITIAL, nodes=1, rounds=1, evaluate=train)


def test_an_instruction_is_content_and_what_is_done_to_it_leaves_the_model_alone():
    app = ClientApp()

    @app.train()
    def train(message, context):
        model = ParametersRecord.from_numpy([np.zeros(1)])
        return message.create_reply(RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": 1})}))

    def empty(content, number):
        content.parameters_records["model"].clear()
        return content

    def forget(content, number):
        content.parameters_records["model"].clear()

    history = umbel.simulate(app, strategy(instruct=empty), [np.zeros(1)], nodes=1, rounds=2)
    assert [report.accepted for report in history.rounds] == [1, 1]
    with pytest.raises(StrategyError, match="expected a RecordSet, the content to send, got NoneType"):
        umbel.simulate(app, strategy(instruct=forget), [np.zeros(1)], nodes=1, rounds=2)


def test_a_central_evaluation_cannot_change_the_model():
    app = ClientApp()

    @app.train()
    def train(message, context):
        content = RecordSet(message.content.parameters_records, {"metrics": MetricsRecord({"num-examples": 1})})
        return message.create_reply(content)

    def evaluate(number, model):
        model.clear()
        return {}

    history = umbel.simulate(app, strategy(), [np.zeros(1)], nodes=1, rounds=2, evaluate=evaluate)
    assert list(history.model) == ["0"]


def test_an_array_that_no_checkpoint_can_name_is_refused_before_any_node_trains():
    with pytest.raises(BadName, match="control character"):
        umbel.simulate(ClientApp(), fedavg(), {"a\nb": np.zeros(1)}, nodes=1, rounds=1)
