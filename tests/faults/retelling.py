"""What the tests of rounds that go by arrivals share: an app, and a run told again by its arrivals."""

import json

import numpy as np

import umbel
from umbel.engines import engine, replaying
from umbel.grid import Node
from umbel.history import RoundReport
from umbel.strategy import named

APP = '''
import os
import time
import numpy as np
from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()


@app.train()
def train(message, context):
    """Train at the speed of the node; one waits for a file to go, if there is one."""
    config = context.run_config
    with open(config["log"], "a") as log:
        log.write(f"{context.node_name} {message.metadata.group_id}\\n")
    time.sleep(config.get(f"seconds-{context.node_name}", 0.0))
    while context.node_name == config["slow"] and os.path.exists(config["gate"]):
        time.sleep(0.01)
    noise = np.random.default_rng(context.seed)
    model = message.content.parameters_records["model"].to_numpy()
    made = {name: (array * 0.5 + noise.random(array.shape)).astype(array.dtype) for name, array in model.items()}
    metrics = {"metrics": MetricsRecord({"num-examples": int(noise.integers(1, 9))})}
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(made)}, metrics))
'''
NODES, SEED, SIZE = ("east", "north", "south"), 7, 60_000


def model(size=SIZE):
    return {"w": np.zeros(size, np.float32)}


def strategy_of(told):
    return named(told["name"], {name: value for name, value in told.items() if name != "name"})


def reports_of(view):
    return [RoundReport.from_json(json.dumps(report)) for report in view.reports]


def arrivals(view):
    """Every reply, in the order in which it came."""
    return [arrival for report in reports_of(view) for arrival in report.arrivals]


def outcomes(view, number):
    """What became of whom in a round."""
    return {asked.node: (asked.outcome, asked.reason) for asked in view.questions if asked.round == number}


def retold(view, log, nodes=NODES, rosters=None):
    """The digest to which the arrivals that the reports list lead in one process.

    ``rosters`` are the names of the nodes that were there in each round, if that changed.
    """
    space: dict = {}
    exec(compile(APP, "site_app", "exec"), space)
    told = {"nodes": nodes, "rounds": len(view.reports), "seed": SEED}
    config = {"log": str(log), "slow": "", "gate": ""}
    grid = (
        "local" if rosters is None else lambda *parts, **options: _Rosters(engine("local")(*parts, **options), rosters)
    )
    again = replaying(reports_of(view), grid)
    whole = strategy_of(view.spec.strategy)
    return umbel.simulate(space["app"], whole, model(), engine=again, run_config=config, **told).digest


class _Rosters:
    """A grid of which, in each round, some nodes are there."""

    def __init__(self, grid, rosters):
        self._grid, self._rosters = grid, rosters
        self.send, self.replies, self.cancel, self.close = grid.send, grid.replies, grid.cancel, grid.close

    def nodes(self, round=0, message_type="train"):  # noqa: A002 - the field's word
        there = {node.name: node for node in self._grid.nodes(round, message_type)}
        return [Node(*there[name]) for name in self._rosters.get(round, sorted(there))]
