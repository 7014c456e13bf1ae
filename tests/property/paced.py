"""What the tests of policies share: nodes that take as long as they are told, and what became of them."""

import numpy as np

from arrivals import ArrivalGrid
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import RoundCompleted, begin, train

NODES = 8
FIRST = {"w": np.linspace(-1, 1, 5), "n": np.arange(2)}


def app():
    made = ClientApp()

    @made.train()
    def handle(message, context):
        model = message.content.parameters_records["model"].to_numpy()
        rng = np.random.default_rng(context.seed)
        trained = {"w": model["w"] * 0.5 + context.node_id + rng.standard_normal(5), "n": model["n"] + 1}
        metrics = MetricsRecord({"num-examples": context.node_id, "loss": float(trained["w"].sum())})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(trained)}, {"metrics": metrics}))

    return made


def slow(asked):
    """Nodes 1 to 8 take as many seconds."""
    return float(asked.dst_node_id)


def events_of(whole, grid, rounds=3, state=None):
    begun = begin(whole, ParametersRecord.from_numpy(FIRST), seed=5) if state is None else state
    return list(train(grid, whole, begun, rounds=rounds))


def play(whole, seconds=slow, rounds=3, state=None):
    grid = ArrivalGrid(app(), NODES, seconds, seed=5)
    return events_of(whole, grid, rounds, state), grid


def reports(events):
    return [event.report for event in events if isinstance(event, RoundCompleted)]


def nodes_of(events, kind, number=None):
    return [each.node for each in events if isinstance(each, kind) and (number is None or each.round == number)]
