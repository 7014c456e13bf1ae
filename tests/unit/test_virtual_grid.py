"""The virtual clock: replies come when devices would be done, in that order, and nobody waits."""

import itertools
import time
from math import inf

import numpy as np
import pytest

import umbel
from umbel import _clock
from umbel.app import ClientApp
from umbel.engines import LocalGrid, NodeStates, Population, Trace, VirtualGrid, drawn, replaying, traced
from umbel.errors import UsageError
from umbel.grid import Node
from umbel.message import ErrorCode, Message, Metadata
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import fedavg, fixed, quorum, strategy, tiers

DAY = 86_400.0


def counting_app(ran=None):
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen = context.state.metrics_records.setdefault("seen", MetricsRecord({"n": 0}))
        seen["n"] += 1
        if ran is not None:
            ran.append(context.node_name)
        metrics = MetricsRecord({"num-examples": 1 + context.seed % 7, "n": seen["n"]})
        model = ParametersRecord.from_numpy({"w": np.full(3, float(context.seed % 1_000))})
        return message.create_reply(RecordSet({"model": model}, {"metrics": metrics}))

    return app


def message(node_id, message_id, ttl=10_000.0):
    return Message(Metadata(1, message_id, 0, node_id, 0, 1, ttl, "train"), RecordSet())


def taking(*seconds):
    """Devices that take so many seconds, node by node; None never replies."""
    return lambda node, _, at: None if seconds[node.node_id - 1] is None else at + seconds[node.node_id - 1]


def grid_of(*seconds, app=None, **options):
    return VirtualGrid(app or counting_app(), Population(len(seconds)), devices=taking(*seconds), **options)


def test_replies_come_in_the_order_of_their_arrival_and_carry_it():
    grid = grid_of(30.0, 10.0, 20.0)
    grid.send(message(node, node) for node in (1, 2, 3))
    assert grid.now == 0
    found = [(reply.metadata.src_node_id, reply.metadata.created_at, grid.now) for reply in grid.replies()]
    assert found == [(2, 10.0, 10.0), (3, 20.0, 20.0), (1, 30.0, 30.0)]


def test_nothing_is_waited_for():
    began = time.monotonic()
    grid = grid_of(1e9)
    grid.send([message(1, 1, ttl=1e10)])
    assert len(list(grid.replies())) == 1
    assert (grid.now, time.monotonic() - began < 60) == (1e9, True)


def test_how_long_a_node_takes_here_is_nobodys_business():
    grid = grid_of(5e-7, 2e-6)
    grid.send(message(node, node, ttl=1e-6) for node in (1, 2))
    first, second = grid.replies()
    assert (first.metadata.src_node_id, first.metadata.created_at, first.has_content()) == (1, 5e-7, True)
    assert second.error.code == ErrorCode.NODE_UNAVAILABLE


def test_days_on_this_machine_cost_nobody_the_reply(monkeypatch):
    app, counting = ClientApp(), counting_app()

    @app.train()
    def slow(message, context):
        monkeypatch.setattr("umbel._clock._START", _clock._START + 20_000)
        return counting(message, context)

    def run(**options):
        plan = fedavg(evaluate_fraction=0, policy=quorum(0.999))
        return umbel.simulate(app, plan, {"w": np.zeros(3)}, nodes=6, rounds=1, **options)

    history = run(engine=VirtualGrid)
    told = run(engine=replaying(history))
    assert [(each.rounds[0].accepted, each.rounds[0].lost) for each in (history, told)] == [(6, ())] * 2


def test_deadlines_that_a_trace_kept_are_kept_when_it_is_told_again():
    def run(engine):
        plan = fedavg(evaluate_fraction=0, policy=quorum(0.75, quantile=0.5, first_deadline=2e-7))
        return umbel.simulate(counting_app(), plan, {"w": np.zeros(3)}, nodes=8, rounds=5, engine=engine)

    def virtual(*parts, **options):
        return VirtualGrid(*parts, devices=drawn(seconds=2e-7, spread=2.0), **options)

    history = run(virtual)
    assert {report.accepted for report in history.rounds} <= set(range(1, 8))
    assert any(len(report.lost) > 2 for report in history.rounds)  # the deadline came before the quorum
    told = run(replaying(history))
    assert told.digest == history.digest == run(virtual).digest
    assert [report.arrivals for report in told.rounds] == [report.arrivals for report in history.rounds]


@pytest.mark.parametrize(
    "plan",
    [
        strategy(select=fixed(8), evaluate=None),
        strategy(select=tiers(count=4, number=3), evaluate=None),
        fedavg(evaluate_fraction=0, policy=quorum(0.6)),
    ],
    ids=["fixed", "tiers", "quorum"],
)
def test_the_clock_of_a_resumed_run_goes_on(tmp_path, plan):
    clocks = []

    def virtual(*parts, **options):
        clocks.append(VirtualGrid(*parts, devices=drawn(seconds=9_000, online=0.3, dropout=0.1), **options))
        return clocks[-1]

    def run(rounds, **options):
        model = {"w": np.zeros(3)}
        return umbel.simulate(counting_app(), plan, model, nodes=12, rounds=rounds, engine=virtual, **options)

    whole = run(7)
    for rounds in (2, 3, 7):
        resumed = run(rounds, checkpoint=tmp_path / "run", resume=True)
    assert (resumed.digest, clocks[-1].now) == (whole.digest, clocks[0].now)
    assert any(report.lost for report in whole.rounds)
    assert [report.lost for report in resumed.rounds] == [report.lost for report in whole.rounds]
    assert [report.arrivals for report in resumed.rounds] == [report.arrivals for report in whole.rounds]


def test_a_node_runs_when_its_reply_is_taken():
    ran = []
    grid = grid_of(2.0, 1.0, app=counting_app(ran))
    grid.send(message(node, node) for node in (1, 2))
    replies = grid.replies()
    assert ran == []
    next(replies)
    assert ran == ["node-1"]


def test_what_is_sent_between_two_replies_is_sent_at_the_first_ones_arrival():
    grid = grid_of(10.0, 25.0, 5.0)
    grid.send(message(node, node) for node in (1, 2))
    arrivals = {}
    for reply in grid.replies():
        arrivals[reply.metadata.reply_to_message] = reply.metadata.created_at
        if reply.metadata.reply_to_message == 1:
            grid.send([message(3, 3)])
    assert arrivals == {1: 10.0, 3: 15.0, 2: 25.0}


def test_the_messages_of_a_node_come_one_after_the_other():
    grid = grid_of(10.0, 1.0)
    grid.send([message(1, 1), message(1, 2), message(2, 3), message(1, 4)])
    found = {reply.metadata.reply_to_message: reply for reply in grid.replies()}
    assert {number: reply.metadata.created_at for number, reply in found.items()} == {3: 1, 1: 10, 2: 20, 4: 30}
    assert [found[number].content.metrics_records["metrics"]["n"] for number in (1, 2, 4)] == [1, 2, 3]
    grid.send([message(1, 5)])
    assert next(grid.replies()).metadata.created_at == 40


def test_a_reply_that_never_comes_is_an_error_when_its_time_is_over():
    grid = grid_of(None, 20_000.0, 5.0)
    grid.send(message(node, node) for node in (1, 2, 3))
    first, *lost = grid.replies()
    assert first.metadata.src_node_id == 3
    for reply in lost:
        assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
        assert reply.error.reason == "no reply within 10,000 s, on the virtual clock"
        assert reply.metadata.created_at == pytest.approx(10_000)
        assert reply.metadata.created_at + reply.metadata.ttl <= 10_000
    assert grid.now == pytest.approx(10_000)


def test_cancelled_messages_do_not_run_and_take_no_time():
    ran = []
    grid = grid_of(10.0, 20.0, None, app=counting_app(ran))
    grid.send(message(node, node) for node in (1, 2, 3))
    grid.cancel([2, 3])
    assert [reply.metadata.src_node_id for reply in grid.replies()] == [1]
    assert (ran, grid.now) == (["node-0"], 10.0)
    grid.send([message(2, 4)])
    assert next(grid.replies()).metadata.created_at == 30.0


def test_a_run_has_the_result_of_the_local_engine():
    def run(**options):
        return umbel.simulate(counting_app(), fedavg(fraction=0.5), {"w": np.zeros(3)}, nodes=20, rounds=5, **options)

    made = []

    def virtual(*args, **options):
        made.append(VirtualGrid(*args, devices=drawn(online=0.5), **options))
        return made[0]

    assert run(engine=virtual).digest == run().digest
    assert made[0].now > 0


def test_states_are_those_of_the_local_engine():
    states = {}
    for engine in (LocalGrid, VirtualGrid):
        states[engine] = NodeStates()
        grid = engine(counting_app(), Population(5), states=states[engine])
        for number in (1, 2):
            grid.send(message(node, 10 * number + node) for node in range(1, 6))
            list(grid.replies())
    assert dict(states[LocalGrid].kept) == dict(states[VirtualGrid].kept)


def test_a_device_is_the_same_whenever_it_is_asked():
    node, asked = Node("node-7", 8), message(8, 5).metadata
    first, second = drawn(seed=3, online=0.4, dropout=0.3), drawn(seed=3, online=0.4, dropout=0.3)
    assert first(node, asked, 100.0) == second(node, asked, 100.0)
    others = {drawn(seed=seed)(node, asked, 100.0) for seed in range(20)}
    assert len(others) == 20


def test_devices_differ_as_much_as_is_said():
    def took(**options):
        devices = drawn(seconds=100.0, **options)
        return np.log([devices(Node(f"node-{n}", n), message(1, n).metadata, 50.0) - 50.0 for n in range(1, 3_001)])

    assert np.ptp(took(spread=0, jitter=0)) < 1e-9
    differing = took(spread=1.0, jitter=0.5)
    assert np.exp(np.median(differing)) == pytest.approx(100, rel=0.1)
    assert differing.std() == pytest.approx(np.sqrt(1.25), rel=0.05)


def test_dropouts_are_as_frequent_as_is_said():
    devices = drawn(dropout=0.2)
    lost = sum(devices(Node("a", 1), message(1, n).metadata, 0.0) is None for n in range(5_000))
    assert lost == pytest.approx(1_000, rel=0.1)


@pytest.mark.parametrize("online", [0.25, 0.9])
def test_work_is_done_only_in_the_windows_of_a_device(online):
    devices = drawn(seconds=5_000.0, spread=1.5, jitter=0, online=online, seed=1)
    always = drawn(seconds=5_000.0, spread=1.5, jitter=0, seed=1)
    length = online * DAY
    for number, at in itertools.product(range(1, 200), (0.0, 12_345.0, 10 * DAY + 0.5)):
        node, asked = Node(f"node-{number}", number), message(1, 1).metadata
        work = always(node, asked, 0.0)
        done = devices(node, asked, at)
        late = done - at - work
        assert late >= -1e-3
        assert late <= (work // length + 1) * (DAY - length) + 1e-3
        assert devices(node, asked, done + 1e-3) >= done + work  # the window is open, and one has to work as long again
        assert (devices(node, asked, at + DAY) - done) == pytest.approx(DAY, abs=1e-3)


def test_given_traces_say_when_a_device_is_there():
    devices = traced(
        {"a": Trace(10.0, [(0.0, 5.0), (100.0, 103.0), (200.0, inf)]), "b": Trace(2.0), "c": Trace(5.0, [(0, 9)])}
    )
    asked = message(1, 1).metadata
    assert [devices(Node("a", 1), asked, at) for at in (0.0, 4.0, 50.0, 500.0)] == [202.0, 206.0, 207.0, 510.0]
    assert devices(Node("b", 2), asked, 7.0) == 9.0
    assert [devices(Node("c", 3), asked, at) for at in (4.0, 4.5)] == [9.0, None]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: drawn(online=0), "from 1e-06 to 1, got 0 - at online"),
        (lambda: drawn(dropout=1.1), "from 0 to 1, got 1.1 - at dropout"),
        (lambda: drawn(seconds=inf), "from 0, finite, got inf - at seconds"),
        (lambda: drawn(spread=float("nan")), "got nan - at spread"),
        (lambda: traced({"a": Trace(-1.0)}), "got -1.0 - at seconds of 'a'"),
        (lambda: traced({"a": Trace(1.0, [(2, 1)])}), "windows in order of time, .* - at trace of a"),
        (lambda: traced({})(Node("a", 1), message(1, 1).metadata, 0.0), "a trace for every node .* - at trace of a"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_a_hundred_thousand_devices_go_through_a_month_on_their_own_clock():
    ids = itertools.count(1)
    rng = np.random.default_rng(0)
    grid = VirtualGrid(counting_app(), Population(100_000), devices=drawn(seconds=7_200, online=0.3, dropout=0.05))

    def draw():
        return message(int(rng.integers(100_000)) + 1, next(ids), ttl=7 * DAY)

    grid.send([draw() for _ in range(20)])
    answered, arrivals = 0, []
    for reply in grid.replies():
        answered += reply.has_content()
        arrivals.append(reply.metadata.created_at)
        if grid.now < 30 * DAY:
            grid.send([draw()])
    assert arrivals == sorted(arrivals)
    assert 30 * DAY <= grid.now < 40 * DAY
    assert answered > 500
