"""What a simulated round costs beside training: Python calls a node, which no other work on the machine changes."""

import sys

import numpy as np
import pytest

from umbel import simulate
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import strategy

MOST_CALLS = 220
#: Of these, for each array: what decodes it, and what serialises it.
MOST_CALLS_AN_ARRAY = 3


def calls_of(nodes: int, arrays: int) -> int:
    """How many Python functions are called in a round of clients that do next to nothing."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        model = message.content.parameters_records["model"].to_numpy(copy=False)
        record = ParametersRecord.from_numpy({name: array + np.float32(1) for name, array in model.items()}, copy=False)
        metrics = MetricsRecord({"num-examples": context.node_id})
        return message.create_reply(RecordSet({"model": record}, {"metrics": metrics}))

    model = {f"layer{place}": np.zeros((100, 100), np.float32) for place in range(arrays)}
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        simulate(app, strategy(), model, nodes=nodes, rounds=1)
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(autouse=True)
def _warm():
    calls_of(1, 1)


def test_a_node_costs_few_calls():
    assert (calls_of(40, 10) - calls_of(20, 10)) / 20 <= MOST_CALLS


def test_an_array_of_a_node_costs_hardly_any():
    few, many = ((calls_of(12, arrays) - calls_of(2, arrays)) / 10 for arrays in (10, 40))
    assert (many - few) / 30 <= MOST_CALLS_AN_ARRAY
