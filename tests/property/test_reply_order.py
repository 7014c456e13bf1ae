"""Replies may come in any order, twice, late or not at all: the model depends on who answered, not on when."""

import itertools
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.app import ClientApp
from umbel.engines import LocalGrid, Population
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import NodeLost, RoundCompleted, UpdateAccepted, UpdateRefused, begin, train
from umbel.strategy import fedavg

NODES = 5
ROUNDS = 2
BAD = "node-3"
PLAN = fedavg(statistics=True)


def client_app():
    app = ClientApp()

    def answer(message, context, name):
        rng = np.random.default_rng(context.seed)
        bad = context.node_name == BAD and name == "model"
        arrays = {"w": np.full(7, np.nan, np.float32) if bad else rng.standard_normal(7).astype(np.float32)}
        metrics = MetricsRecord({"num-examples": 1 + context.seed % 9, "loss": rng.random(), "many": [rng.random()]})
        return message.create_reply(RecordSet({name: ParametersRecord.from_numpy(arrays)}, {"metrics": metrics}))

    app.query()(lambda message, context: answer(message, context, "statistics"))
    app.train()(lambda message, context: answer(message, context, "model"))
    app.evaluate()(lambda message, context: answer(message, context, "evaluated"))
    return app


class ShufflingGrid:
    """A grid of its own over the local one: replies come in the order, number and selection that it is told."""

    def __init__(self, deliveries):
        self._inner = LocalGrid(client_app(), Population(NODES), seed=4)
        self._deliveries = deliveries
        self._late = []
        self.cancelled = []

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return self._inner.nodes(round, message_type)

    def send(self, messages):
        self._inner.send(list(messages))

    def replies(self):
        made = list(self._inner.replies())
        late, self._late = self._late, made
        # What was asked in the phase before comes again, as if a network had kept it.
        yield from late[:2]
        yield from (made[slot] for slot in next(self._deliveries))

    def cancel(self, message_ids):
        self.cancelled += message_ids

    def close(self):
        self._inner.close()


def outcome(deliveries):
    grid = ShufflingGrid(deliveries)
    state = begin(PLAN, ParametersRecord.from_numpy({"w": np.zeros(7, np.float32)}), seed=4)
    events = list(train(grid, PLAN, state, rounds=ROUNDS))
    reports = [event.report for event in events if isinstance(event, RoundCompleted)]
    told = [(each.digest, each.metrics, each.refused, each.lost, each.accepted, each.bytes) for each in reports]
    return told, events, grid


@cache
def in_order():
    told, _, _ = outcome(itertools.repeat(range(NODES)))
    return told


def permutations():
    phases = 1 + 2 * ROUNDS
    return st.lists(st.permutations(range(NODES)), min_size=phases, max_size=phases)


@settings(deadline=None, max_examples=50)
@given(orders=permutations())
def test_the_order_of_arrival_changes_nothing(orders):
    told, _, grid = outcome(iter(orders))
    assert told == in_order()
    assert told[0][2][0][0] == BAD
    assert grid.cancelled == []


@settings(deadline=None, max_examples=50)
@given(orders=permutations(), again=st.lists(st.integers(0, NODES - 1), max_size=2 * NODES))
def test_a_reply_counts_once_however_often_it_comes(orders, again):
    told, events, _ = outcome(iter([[*order, *again] for order in orders]))
    assert told == in_order()
    outcomes = [event for event in events if isinstance(event, UpdateAccepted | UpdateRefused | NodeLost)]
    # That what was accepted has NaN in it shows when it is added.
    taken_back = [event for event in outcomes if isinstance(event, UpdateRefused)]
    assert [event.node for event in taken_back] == [BAD] * ROUNDS
    assert len(outcomes) - len(taken_back) == NODES * (1 + 2 * ROUNDS)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), orders=permutations())
def test_a_missing_reply_is_a_lost_node(data, orders):
    """An engine that stops waiting: the same nodes answer in two different orders, the others never do."""
    silent = data.draw(st.sets(st.integers(0, NODES - 1), max_size=3))
    partial = [[slot for slot in order if slot not in silent] for order in orders]
    told, _, grid = outcome(iter(partial))
    expected, events, _ = outcome(itertools.repeat([slot for slot in range(NODES) if slot not in silent]))
    assert told == expected
    names = {f"node-{slot}" for slot in silent}
    lost = [event for event in events if isinstance(event, NodeLost)]
    assert {event.node for event in lost} == names
    assert all(event.reason == "no reply came" for event in lost)
    assert len(grid.cancelled) == len(silent) * (1 + 2 * ROUNDS)
