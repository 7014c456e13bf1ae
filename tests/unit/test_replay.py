"""Where rounds overlap, whoever is lost makes room for another: a run told again by its arrivals loses the same."""

import numpy as np
import pytest

from arrivals import ArrivalGrid
from umbel import strategy as named
from umbel.app import ClientApp
from umbel.engines import LocalGrid, Population, Replay
from umbel.history import RoundReport
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, dumps
from umbel.rounds import RoundCompleted, begin, train
from umbel.strategy import during, fixed, oort, quorum, strategy, tiers

NODES, SEED = 8, 5


def app():
    """Nodes that fail now and then."""
    made = ClientApp()

    @made.train()
    def handle(message, context):
        if context.seed % 3 == 0:
            raise ValueError("not today")
        model = message.content.parameters_records["model"].to_numpy()
        trained = {"w": model["w"] * 0.5 + np.random.default_rng(context.seed).standard_normal(5)}
        metrics = {"metrics": MetricsRecord({"num-examples": context.node_id})}
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(trained)}, metrics))

    return made


def seconds(asked):
    return float(np.random.default_rng([asked.message_id % 2**32, asked.dst_node_id]).gamma(2.0) + 0.1)


def play(whole, grid):
    """The last event of a run, and the reports of its rounds."""
    events = list(
        train(grid, whole, begin(whole, ParametersRecord.from_numpy({"w": np.zeros(5)}), seed=SEED), rounds=8)
    )
    return events[-1], [event.report for event in events if isinstance(event, RoundCompleted)]


@pytest.mark.parametrize(
    "whole",
    [named.fedbuff(concurrency=5, buffer=3), named.fedasync(concurrency=3), named.fedat(count=2, number=2)],
    ids=["fedbuff", "fedasync", "fedat"],
)
def test_whoever_was_lost_is_lost_again(whole):
    end, reports = play(whole, ArrivalGrid(app(), NODES, seconds, seed=SEED))
    saved = [RoundReport.from_json(report.to_json()) for report in reports]
    assert any(arrival.lost for report in saved for arrival in report.arrivals)
    again, retold = play(whole, Replay(LocalGrid(app(), Population(NODES), seed=SEED), saved))
    assert again.digest == end.digest
    assert [report.arrivals for report in retold] == [report.arrivals for report in saved]
    assert b"".join(dumps(again.state)) == b"".join(dumps(end.state))


@pytest.mark.parametrize(
    "whole",
    [
        named.fedavg(policy=quorum(0.5), evaluate_fraction=0),
        named.fedavg(policy=quorum(quantile=0.5, factor=2.0), evaluate_fraction=0),
        strategy(select=tiers(3, number=2)),
        strategy(select=oort(3)),
        strategy(select=during({"node-[0-3]": (0, 1e-4)}, fixed(4), period=3e-4)),
    ],
    ids=["quorum", "deadline", "tiers", "oort", "during"],
)
def test_arrivals_lead_to_the_same_model(whole):
    end, reports = play(whole, ArrivalGrid(app(), NODES, seconds, seed=SEED))
    again, _ = play(whole, Replay(LocalGrid(app(), Population(NODES), seed=SEED), reports))
    assert all(report.arrivals for report in reports)
    assert again.digest == end.digest
