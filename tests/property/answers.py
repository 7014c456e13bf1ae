"""Nodes whose answers are there already, and a mean that notes how many updates came at once."""

import numpy as np

from umbel.aggregation import Aggregator, by_examples, weighted_mean
from umbel.grid import Node
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, load, save
from umbel.rounds import RoundCompleted, UpdateRefused, begin, train
from umbel.strategy import strategy

COUNT = 40
ARRAYS = [np.random.default_rng(turn).standard_normal(1000, np.float32) for turn in range(COUNT)]
FIRST = ParametersRecord.from_numpy([np.zeros(1000, np.float32)])


class Recorded:
    """The weighted mean, with a list of how many updates came at once."""

    streaming = True
    proves_finite = True

    def __init__(self):
        self.inner = weighted_mean().reduce
        self.sizes = []

    def start(self, template):
        return self.inner.start(template)

    def add(self, acc, updates):
        self.sizes.append(len(updates))
        return self.inner.add(acc, updates)

    def finish(self, acc, updates=()):
        self.sizes.append(len(updates))
        return self.inner.finish(acc, updates)

    def proven(self, template, updates):
        return self.finish(self.start(template), updates)


class Answers:
    """A grid of nodes whose answers are there already."""

    def __init__(self, records, companions=None, losses=None):
        self._records, self._companions, self._asked = records, companions or {}, []
        self._losses, self._digits = losses or {}, max(2, len(str(len(records) - 1)))

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return [Node(f"node-{place:0{self._digits}}", place + 1) for place in range(len(self._records))]

    def send(self, messages):
        self._asked = list(messages)

    def replies(self):
        for message in self._asked:
            place = message.metadata.dst_node_id - 1
            records = {"model": self._records[place]}
            records |= {name: others[place] for name, others in self._companions.items()}
            metrics = {"metrics": MetricsRecord({"num-examples": place + 1, "loss": self._losses.get(place, 1.0)})}
            yield message.create_reply(RecordSet(records, metrics))

    def cancel(self, message_ids):
        pass


def mapped(folder, arrays, name="model"):
    found = []
    for turn, array in enumerate(arrays):
        save(ParametersRecord.from_numpy([array]), folder / f"{name}-{turn}")
        found.append(load(folder / f"{name}-{turn}").parameters_records["model"])
    return found


def in_memory(records):
    return [ParametersRecord.from_numpy(record.to_numpy()) for record in records]


def run(records, fold=None, companions=None, plan=None, first=FIRST, **parts):
    fold = fold or Recorded()
    plan = plan or strategy(aggregator=Aggregator("recorded", by_examples, fold), **parts)
    events = list(train(Answers(records, companions), plan, begin(plan, first), rounds=1))
    (done,) = [event for event in events if isinstance(event, RoundCompleted)]
    return fold, events, done


def spoilt(place, value=np.nan):
    arrays = [array.copy() for array in ARRAYS[:8]]
    arrays[place][7] = value
    return arrays


def refused(events):
    return [(event.node, event.reason) for event in events if isinstance(event, UpdateRefused)]
