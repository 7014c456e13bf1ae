"""The loop by itself: statistics, folds that keep their updates, reused memory, and the state between rounds."""

import tracemalloc

import numpy as np
import pytest

from umbel.aggregation import Aggregator, uniform
from umbel.app import ClientApp
from umbel.engines import LocalGrid, Population
from umbel.errors import RoundFailed, StrategyError
from umbel.gate import Gate
from umbel.history import RoundReport
from umbel.message import Error
from umbel.optimizers import Optimizer, momentum, replace
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import (
    NodeLost,
    RoundCompleted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
    begin,
    train,
)
from umbel.strategy import Selector, fedavg, fedxgb_bagging, krum, strategy

MODEL = ParametersRecord.from_numpy({"w": np.zeros(3)})


def run(app, plan, *, nodes=4, rounds=1, state=None):
    state = begin(plan, MODEL, seed=2, run_config={"lr": 0.5}) if state is None else state
    return list(train(LocalGrid(app, Population(nodes), seed=2), plan, state, rounds=rounds))


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def content_of(values, examples=1):
    model = ParametersRecord.from_numpy({"w": np.asarray(values, dtype=np.float64)})
    return RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": examples})})


def app_with(train_handler, query_handler=None):
    app = ClientApp()
    app.train()(train_handler)
    if query_handler is not None:
        app.query()(query_handler)
    return app


def echo(message, context):
    return message.create_reply(content_of(np.full(3, context.node_id)))


def unchanged(message, context):
    model = message.content.parameters_records["model"]
    return message.create_reply(RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": 1})}))


def statistics_of(arrays):
    return RecordSet({"statistics": ParametersRecord.from_numpy(arrays)})


def test_statistics_are_summed_over_every_node_and_sent_along():
    seen = []

    def count(message, context):
        assert message.content.configs_records["config"]["round"] == 0
        return message.create_reply(statistics_of({"rows": np.array([context.node_id]), "sum": np.full(2, 0.5)}))

    def look(message, context):
        seen.append(message.content.parameters_records["statistics"].to_numpy())
        return echo(message, context)

    events = run(app_with(look, count), fedavg(fraction=0.5, statistics=True), rounds=2)
    (collected,) = of_kind(events, StatisticsCollected)
    assert collected.report.accepted == 4
    assert len(seen) == 4
    for statistics in seen:
        assert statistics["rows"].tolist() == [10]
        assert statistics["sum"].tolist() == [2, 2]
    again = run(app_with(look), fedavg(statistics=True), rounds=1, state=collected.state)
    assert of_kind(again, StatisticsCollected) == []


def test_statistics_of_another_layout_than_most_nodes_have_do_not_count():
    def count(message, context):
        odd = context.node_name == "node-0"
        return message.create_reply(statistics_of({"rows": np.ones(7 if odd else 2)}))

    events = run(app_with(echo, count), fedavg(statistics=True))
    (collected,) = of_kind(events, StatisticsCollected)
    assert (collected.report.round, collected.report.cohort, collected.report.accepted) == (0, 4, 3)
    assert [node for node, _ in collected.report.refused] == ["node-0"]
    assert min(collected.report.bytes.values()) > 0
    assert list(collected.report.seconds) == ["query"]
    assert collected.state.parameters_records["statistics"].to_numpy()["rows"].tolist() == [3, 3]
    (refused,) = of_kind(events, UpdateRefused)
    assert (refused.node, refused.phase, refused.round) == ("node-0", "query", 0)
    assert "rows: float64[2], got rows: float64[7]" in refused.reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RecordSet, "expected a parameters record 'statistics'"),
        (lambda: statistics_of({"rows": np.full(2, np.nan)}), "2 NaN"),
        (lambda: statistics_of({"rows": np.array([True])}), "which has no sum"),
    ],
)
def test_statistics_that_cannot_be_used_end_the_run_with_the_reason(answer, reason):
    with pytest.raises(RoundFailed, match=reason):
        run(app_with(echo, lambda message, context: message.create_reply(answer())), fedavg(statistics=True))


def test_sums_that_overflow_end_the_run_by_name():
    def count(message, context):
        return message.create_reply(statistics_of({"rows": np.array([2**63 - 1])}))

    with pytest.raises(RoundFailed, match=r"the statistics of the nodes have no sum.*; send a wider dtype") as caught:
        run(app_with(echo, count), fedavg(statistics=True))
    assert "Gate" not in str(caught.value)


def test_layouts_that_nodes_invent_take_bounded_memory():
    def count(message, context):
        honest = context.node_id > 40
        rows = np.ones(250_000 + (0 if honest else context.node_id))
        return message.create_reply(statistics_of({"rows": rows}))

    tracemalloc.start()
    events = run(app_with(echo, count), fedavg(statistics=True), nodes=44)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (collected,) = of_kind(events, StatisticsCollected)
    assert collected.state.parameters_records["statistics"].to_numpy()["rows"][0] == 4
    assert len(collected.report.refused) == 40
    assert sum("more than 8 layouts" in reason for _, reason in collected.report.refused) == 33
    assert peak < 40_000_000


def test_an_app_without_a_query_handler_has_no_statistics():
    with pytest.raises(RoundFailed, match="no handler for messages of type 'query'"):
        run(app_with(echo), fedavg(statistics=True))


class Median:
    """A fold that has to see all updates at once."""

    streaming = False

    def start(self, template):
        return []

    def add(self, acc, updates):
        return [*acc, *updates]

    def finish(self, acc, updates=()):
        return ParametersRecord.from_numpy({"w": np.median([each.record.to_numpy()["w"] for each in acc], axis=0)})


def reusing(memory):
    """A handler that replies with a view of memory that every node writes to, as one PyTorch model for all would."""

    def handler(message, context):
        memory[:] = context.node_id
        record = ParametersRecord.from_numpy({"w": memory}, copy=False)
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 1})}))

    return handler


@pytest.mark.parametrize(
    ("plan", "expected"), [(fedavg(), 2.5), (strategy(aggregator=Aggregator("median", uniform, Median())), 2.5)]
)
def test_nodes_may_use_their_memory_again(plan, expected):
    events = run(app_with(reusing(np.zeros(3))), plan)
    (end,) = of_kind(events, RunCompleted)
    assert end.state.parameters_records["model"].to_numpy()["w"].tolist() == [expected] * 3


class Made(Median):
    """A fold whose result is whatever it is told."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def finish(self, acc, updates=()):
        return ParametersRecord.from_numpy(self.arrays) if self.arrays else None


@pytest.mark.parametrize("optimizer", [replace(), Optimizer("own", lambda model: {}, replace().update)])
@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"v": np.zeros(3)}, r"renamed 'w' to 'v'"),
        ({"w": np.zeros(1)}, r"expected shape \[3\], got \[1\] - at parameters_records.model\['w'\]"),
        ({"w": np.zeros(3, np.float32)}, "expected dtype float64, got 'float32'"),
        ({"w": np.array([0, np.nan, 0])}, "expected finite numbers, got 1 NaN"),
        ({}, "expected a ParametersRecord, got a NoneType"),
    ],
)
def test_a_fold_of_ones_own_makes_a_record_like_the_model(arrays, reason, optimizer):
    plan = strategy(aggregator=Aggregator("made", uniform, Made(**arrays)), optimizer=optimizer)
    expected = f"do not make a model: its aggregator 'made' made something else than a record like .*: .*{reason}"
    with pytest.raises(RoundFailed, match=expected):
        run(app_with(echo), plan)


def test_a_fold_of_ones_own_keeps_the_order_and_may_pass_on_what_the_gate_lets_through():
    initial = ParametersRecord.from_numpy({"w": np.zeros(3), "b": np.zeros(1)})
    plan = strategy(aggregator=Aggregator("made", uniform, Made(b=np.zeros(1), w=np.zeros(3))))
    with pytest.raises(RoundFailed, match="expected the arrays in the order 'w', 'b'"):
        run(app_with(unchanged), plan, state=begin(plan, initial))
    made = Made(w=np.array([0, np.inf, 0]))
    events = run(app_with(echo), strategy(aggregator=Aggregator("made", uniform, made), gate=Gate(finite=False)))
    assert events[-1].state.parameters_records["model"].to_numpy()["w"].tolist() == [0, np.inf, 0]


def test_folds_of_the_house_have_looked_themselves():
    assert all(each.aggregator.reduce.checked for each in (fedavg(), krum(byzantine=1), fedxgb_bagging()))


def test_updates_that_do_not_make_a_model_fail_the_round():
    def diverge(message, context):
        return message.create_reply(content_of([np.inf, 0, 0]))

    with pytest.raises(RoundFailed, match="do not make a model"):
        run(app_with(diverge), strategy(gate=Gate(finite=False)))


def test_a_mistake_of_all_nodes_is_one_line():
    def grown(message, context):
        return message.create_reply(content_of(np.zeros(4)))

    with pytest.raises(RoundFailed) as caught:
        run(app_with(grown), fedavg(), nodes=12)
    _, line = str(caught.value).split("\n")
    names = ", ".join(f"node-{place}" for place in [0, 1, 10, 11, *range(2, 8)])
    assert line.startswith(f"  {names} and 2 more: expected shape [3], got [4] - at parameters_records.model")


def test_every_completed_round_carries_a_state_to_go_on_from():
    plan = fedavg(optimizer=momentum(beta=0.5))
    events = run(app_with(echo), plan, rounds=3)
    completed = of_kind(events, RoundCompleted)
    for first, event in enumerate(completed[:-1], start=1):
        assert event.state.configs_records["run"]["round"] == first
        assert "optimizer.momentum" in event.state.parameters_records
        later = run(app_with(echo), plan, rounds=3, state=event.state)
        assert later[-1].digest == events[-1].digest
        assert later[0] == RunStarted(1, "fedavg", 2, 3, first, 4)
        assert len(of_kind(later, RoundCompleted)) == 3 - first


def test_what_is_done_to_the_state_of_an_event_is_not_done_to_the_run():
    def play(touch):
        state = begin(plan, MODEL, seed=2)
        app = app_with(echo, lambda message, _context: message.create_reply(statistics_of({"n": np.ones(1)})))
        for event in train(LocalGrid(app, Population(4), seed=2), plan, state, rounds=3):
            last = event
            touch(getattr(event, "state", None))
        return last.digest, last.rounds

    def spoil(state):
        if state is not None:
            state.parameters_records["optimizer.momentum"] = state.parameters_records["model"] = MODEL
            state.parameters_records.pop("statistics")
            state.configs_records["run"]["round"] = 7

    plan = fedavg(optimizer=momentum(), statistics=True)
    assert play(spoil) == play(id)


def test_a_state_with_all_rounds_behind_it_completes_at_once():
    state = run(app_with(echo), fedavg(), rounds=2)[-1].state
    assert [type(event) for event in run(app_with(echo), fedavg(), rounds=1, state=state)] == [RunStarted, RunCompleted]


def test_a_loop_that_is_not_read_on_does_not_run_on():
    ran = []

    def note(message, context):
        ran.append(context.node_name)
        return echo(message, context)

    plan = fedavg()
    grid = LocalGrid(app_with(note), Population(4), seed=2)
    for event in train(grid, plan, begin(plan, MODEL), rounds=5):
        if isinstance(event, UpdateAccepted) and event.node == "node-1":
            break
    assert ran == ["node-0", "node-1"]


def test_message_ids_are_never_used_twice():
    ids = []

    def note(message, context):
        ids.append(message.metadata.message_id)
        return echo(message, context)

    app = app_with(note)
    app.evaluate()(note)
    run(app, fedavg(), rounds=4)
    assert len(ids) == len(set(ids)) == 4 * 2 * 4
    assert min(ids) > 0


@pytest.mark.parametrize("positions", [[0, 4], [-1, 2]])
def test_a_selector_that_points_beside_the_nodes_is_named(positions):
    plan = strategy(select=Selector("mine()", lambda count, seed: positions))
    with pytest.raises(StrategyError, match=r"expected positions among 4 nodes from mine\(\)"):
        run(app_with(echo), plan)


@pytest.mark.parametrize("positions", [[0.0, 1.0], ["node-1", 2], np.array([True, False, True, False]), None, 2])
def test_a_selector_whose_positions_are_no_integers_is_named(positions):
    plan = strategy(select=Selector("mine()", lambda count, seed: positions))
    with pytest.raises(
        StrategyError, match=r"expected positions, which are whole numbers, from mine\(\), got .* - at sel"
    ):
        run(app_with(echo), plan)


@pytest.mark.parametrize("positions", [[3, 1, 3], {1, 3}, np.array([3, 1, 3]), np.array([3, 1], np.uint8)])
def test_a_selector_may_name_a_node_twice_and_in_any_order(positions):
    plan = strategy(select=Selector("mine()", lambda count, seed: positions))
    accepted = of_kind(run(app_with(echo), plan), UpdateAccepted)
    assert [event.node for event in accepted] == ["node-1", "node-3"]


def test_a_cohort_of_nobody_fails_the_round():
    with pytest.raises(RoundFailed, match=r"at least 1, as min_updates .* needs, got 0 of 4 nodes from nobody\(\)"):
        run(app_with(echo), strategy(select=Selector("nobody()", lambda count, seed: [])))


def test_a_report_says_how_many_metrics_were_left_out_of_a_mean():
    def reply(message, context):
        odd = float("nan") if context.node_config["partition-id"] < 3 else 1.0
        metrics = MetricsRecord({"num-examples": 2, "loss": odd, "curve": [1.0, odd], "fine": 1.0})
        return message.create_reply(RecordSet(message.content.parameters_records, {"metrics": metrics}))

    app = app_with(reply)
    app.evaluate()(reply)
    events = run(app, fedavg(), nodes=5)
    report = of_kind(events, RoundCompleted)[0].report
    assert report.metrics["train.num-examples"] == 10
    assert report.metrics["train.loss"] == 1.0
    counts = {"train.loss": 3, "train.curve": 3, "evaluate.loss": 3, "evaluate.curve": 3}
    assert report.not_finite == counts
    assert RoundReport.from_json(report.to_json()).not_finite == counts


def test_a_reason_that_never_ends_is_told_from_both_ends():
    def failing(message, context):
        if context.node_id == 1:
            return message.create_error_reply(Error(2, f"begin {'and so on ' * 100_000} end"))
        return echo(message, context)

    (lost,) = of_kind(run(app_with(failing), fedavg(evaluate_fraction=0)), NodeLost)
    assert lost.reason.startswith("begin")
    assert lost.reason.endswith("end")
    assert len(lost.reason) < 20_100


@pytest.mark.parametrize(
    ("plan", "nodes", "message"),
    [
        (
            krum(byzantine=2, fraction=0.1),
            20,
            (
                "7, as krum(byzantine=2) needs, got 2 of 20 nodes from fraction(0.1, min_nodes=1): select more of "
                "them, such as with min_nodes=7; nobody was asked - at round 1"
            ),
        ),
        (
            fedavg(min_updates=3, statistics=True),
            2,
            (
                "3, as min_updates of the strategy needs, got 2 of 2 nodes from everyone(): start more nodes; nobody "
                "was asked - at round 0"
            ),
        ),
    ],
)
def test_a_cohort_that_is_too_small_is_refused_before_anybody_works(plan, nodes, message):
    def never(message, context):
        raise AssertionError

    with pytest.raises(RoundFailed) as caught:
        run(app_with(never, never), plan, nodes=nodes)
    assert str(caught.value) == f"expected a cohort of at least {message}"
