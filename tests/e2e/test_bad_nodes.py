"""Nodes that go wrong: refused or lost with the reason, and the model is that of the federation without them."""

import math

import numpy as np
import pytest

import umbel
from umbel.aggregation import weighted_mean
from umbel.app import ClientApp
from umbel.errors import RoundFailed
from umbel.message import Error, Message
from umbel.records import Array, MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import NodeLost, UpdateRefused
from umbel.strategy import fedavg

INITIAL = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
NAMES = ["amber", "birch", "cedar", "dogwood"]
BAD = "birch"


def trained(context):
    rng = np.random.default_rng(context.seed)
    return {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in INITIAL.items()}


def content_of(arrays, examples=5):
    return RecordSet(
        {"model": ParametersRecord.from_numpy(arrays)}, {"metrics": MetricsRecord({"num-examples": examples})}
    )


def with_array(context, name, array):
    return content_of(trained(context) | {name: array})


def raises(message, context):
    raise ValueError("the disk is full")


def exits(message, context):
    raise SystemExit(3)


def rename(message, context):
    arrays = trained(context)
    return message.create_reply(content_of({"weights": arrays["w"], "b": arrays["b"]}))


def cut(message, context):
    content = content_of(trained(context))
    whole = content.parameters_records["model"]["b"]
    content.parameters_records["model"]["b"] = Array(whole.dtype, whole.shape, whole.stype, bytes(whole.data[:-1]))
    return message.create_reply(content)


def reply(make):
    return lambda message, context: message.create_reply(make(context))


def not_finite(value):
    return reply(lambda context: with_array(context, "b", np.array([0, value, 0], np.float32)))


def weighing(weight):
    return reply(lambda context: content_of(trained(context), weight))


REFUSED = {
    "nan": (not_finite(math.nan), "1 NaN"),
    "infinite": (not_finite(-math.inf), "1 infinite"),
    "shape": (reply(lambda context: with_array(context, "w", np.zeros((3, 2), np.float32))), "expected shape"),
    "broadcastable": (reply(lambda context: with_array(context, "b", np.zeros(1, np.float32))), "expected shape"),
    "dtype": (reply(lambda context: with_array(context, "b", np.zeros(3))), "expected dtype float32"),
    "renamed": (rename, "renamed 'w' to 'weights'"),
    "missing": (reply(lambda context: content_of({"w": trained(context)["w"]})), "missing 'b'"),
    "extra": (reply(lambda context: with_array(context, "c", np.zeros(1))), "unexpected 'c'"),
    "cut": (cut, "cannot be decoded"),
    "negative weight": (weighing(-8), "weight"),
    "infinite weight": (weighing(math.inf), "weight"),
    "nan weight": (weighing(math.nan), "weight"),
    "no weight": (weighing(0), "weight"),
    "huge weight": (weighing(10**18), "weight"),
    "list weight": (weighing([5, 5]), "number of examples"),
    "no metrics": (reply(lambda context: RecordSet(content_of(trained(context)).parameters_records)), "examples"),
    "nothing": (reply(lambda context: RecordSet()), "expected a parameters record 'model'"),
    "another name": (
        reply(lambda context: RecordSet({"weights": ParametersRecord.from_numpy(trained(context))})),
        "got 'weights'",
    ),
}
LOST = {
    "raises": (raises, "ValueError: the disk is full"),
    "exits": (exits, "SystemExit: 3"),
    "no message": (lambda message, context: None, "expected a Message"),
    "error reply": (lambda message, context: message.create_error_reply(Error(0, "out of hours")), "out of hours"),
    "error without reason": (lambda message, context: message.create_error_reply(Error(7)), "error 7"),
    "another's reply": (
        lambda message, context: Message(message.metadata, content_of(trained(context))),
        "expected a reply to message",
    ),
}


def federation(names, bad=None, **options):
    """Train four nodes for two rounds; ``bad`` is the handler of one of them."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        if bad is not None and context.node_name == BAD:
            return bad(message, context)
        return message.create_reply(content_of(trained(context), 5 + len(context.node_name)))

    return umbel.simulate(app, fedavg(), INITIAL, nodes=names, rounds=2, seed=1, **options)


WITHOUT = [name for name in NAMES if name != BAD]


@pytest.mark.parametrize("fault", REFUSED)
def test_a_refused_update_counts_as_if_the_node_were_not_there(fault):
    handler, reason = REFUSED[fault]
    events = []
    history = federation(NAMES, handler, on_event=events.append)
    assert history.digest == federation(WITHOUT).digest
    assert [(each.accepted, each.cohort, each.lost) for each in history.rounds] == [(3, 4, ())] * 2
    for report in history.rounds:
        ((node, why),) = report.refused
        assert node == BAD
        assert reason in why
    refusals = [event for event in events if isinstance(event, UpdateRefused)]
    assert [(event.round, event.phase, event.node) for event in refusals] == [(1, "train", BAD), (2, "train", BAD)]
    assert all(reason in event.reason for event in refusals)


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_node_counts_as_if_it_were_not_there(fault):
    handler, reason = LOST[fault]
    events = []
    history = federation(NAMES, handler, on_event=events.append)
    assert history.digest == federation(WITHOUT).digest
    assert [(each.accepted, each.cohort, each.refused) for each in history.rounds] == [(3, 4, ())] * 2
    for report in history.rounds:
        ((node, why),) = report.lost
        assert node == BAD
        assert reason in why
    losses = [event for event in events if isinstance(event, NodeLost)]
    assert [(event.round, event.phase, event.node) for event in losses] == [(1, "train", BAD), (2, "train", BAD)]
    assert all(reason in event.reason for event in losses)


def test_a_round_with_bad_nodes_alone_fails_with_every_reason():
    app = ClientApp()

    @app.train()
    def train(message, context):
        if context.node_name == "amber":
            raise ValueError("the disk is full")
        if context.node_name == "birch":
            return message.create_reply(RecordSet())
        return message.create_reply(content_of(trained(context), -1))

    events = []
    with pytest.raises(RoundFailed) as failure:
        umbel.simulate(app, fedavg(), INITIAL, nodes=NAMES, rounds=2, on_event=events.append)
    text = str(failure.value)
    assert "round 1" in text
    assert "got 0 from a cohort of 4" in text
    for name, reason in [
        ("amber", "the disk is full"),
        ("birch", "parameters record 'model'"),
        ("cedar", "weight"),
        ("dogwood", "weight"),
    ]:
        assert any(name in line and reason in line for line in text.splitlines()), name
    assert sum(isinstance(event, UpdateRefused | NodeLost) for event in events) == 4


def test_too_few_updates_fail_the_round():
    with pytest.raises(RoundFailed, match="at least 4 usable replies to 'train', got 3 from a cohort of 4"):
        umbel.simulate(federation_app(), fedavg(min_updates=4), INITIAL, nodes=NAMES, rounds=1)


def federation_app():
    app = ClientApp()

    @app.train()
    def train(message, context):
        if context.node_name == BAD:
            raises(message, context)
        return message.create_reply(content_of(trained(context)))

    @app.evaluate()
    def evaluate(message, context):
        if context.node_name == "amber":
            raise ValueError("no test rows")
        weight = -1 if context.node_name == "cedar" else 10
        metrics = MetricsRecord({"num-examples": weight, "loss": float(len(context.node_name))})
        return message.create_reply(RecordSet(metrics_records={"metrics": metrics}))

    return app


def test_bad_evaluations_are_left_out_of_the_mean_and_reported():
    history = umbel.simulate(federation_app(), fedavg(), INITIAL, nodes=NAMES, rounds=1)
    (report,) = history.rounds
    assert report.metrics["evaluate.loss"] == (5 + 7) / 2
    assert report.metrics["evaluate.num-examples"] == 20
    assert ("amber", "in evaluate: ValueError: no test rows") in report.lost
    ((node, why),) = report.refused
    assert node == "cedar"
    assert why.startswith("in evaluate: expected a finite number of examples")


def test_a_sum_of_weights_is_no_way_to_overflow():
    app = ClientApp()

    @app.train()
    def train(message, context):
        big = {name: np.full(array.shape, 3e38, np.float32) for name, array in INITIAL.items()}
        return message.create_reply(content_of(big, 10**9))

    history = umbel.simulate(app, fedavg(), INITIAL, nodes=4, rounds=1)
    assert np.allclose(history.model.to_numpy()["b"], 3e38)


def test_metrics_without_a_weight_cost_one_node_its_update():
    app = ClientApp()

    @app.train()
    def train(message, context):
        metrics = MetricsRecord() if context.node_name == BAD else MetricsRecord({"loss": 2.0})
        return message.create_reply(RecordSet(message.content.parameters_records, {"metrics": metrics}))

    by_loss = weighted_mean(lambda metrics: 1 / metrics["metrics"]["loss"])
    history = umbel.simulate(app, fedavg(aggregator=by_loss, evaluate_fraction=0), INITIAL, nodes=NAMES, rounds=1)
    ((node, why),) = history.rounds[0].refused
    assert (node, history.rounds[0].accepted) == (BAD, 3)
    assert why.startswith("expected metrics that have a weight, got KeyError: 'loss'")


def test_a_list_of_metrics_that_got_a_text_later_is_refused():
    def spoil(message, context):
        content = content_of(trained(context))
        content.metrics_records["metrics"]["losses"] = [0.5]
        content.metrics_records["metrics"]["losses"].append("half")
        return message.create_reply(content)

    history = federation(NAMES, spoil)
    assert history.digest == federation(WITHOUT).digest
    assert history.rounds[0].refused == ((BAD, "expected a list of numbers - at metrics_records.metrics['losses']"),)


@pytest.mark.parametrize("folder", [None, "checkpoint"])
def test_a_state_that_no_file_can_hold_loses_the_node(tmp_path, folder):
    def keep(message, context):
        context.state.parameters_records["kept"] = ParametersRecord({"a": Array("float32", [7], "raw", b"123")})
        return message.create_reply(content_of(trained(context)))

    history = federation(NAMES, keep, checkpoint=folder and tmp_path / folder)
    assert history.digest == federation(WITHOUT).digest
    ((node, why),) = history.rounds[0].lost
    assert node == BAD
    assert "context.state" in why


def test_who_was_lost_in_the_statistics_is_in_the_history(tmp_path):
    def simulate(**options):
        return umbel.simulate(app, fedavg(statistics=True), INITIAL, nodes=NAMES, **options)

    app = ClientApp()

    @app.query()
    def count(message, context):
        if context.node_name == BAD:
            raise ValueError("the disk is full")
        return message.create_reply(RecordSet({"statistics": ParametersRecord.from_numpy({"rows": np.ones(1)})}))

    app.train()(reply(lambda context: content_of(trained(context))))
    report = simulate(rounds=1, checkpoint=tmp_path).statistics
    assert report.lost == ((BAD, "in query: ValueError: the disk is full"),)
    assert (report.round, report.cohort, report.accepted) == (0, 4, 3)
    again = simulate(rounds=2, checkpoint=tmp_path, resume=True)
    assert again.statistics == report
    assert [each.round for each in again.rounds] == [1, 2]
