"""Ensembles of trees as one round in the midst of a run has them, grown by the real XGBoost.

Rows are random and belong to fifty nodes, of which each boosts once a round. They are grown once, in the environment
of this script, and go as bytes to those who add them up: a peer needs no XGBoost of its own.
"""

# ruff: noqa: PLC0415 - XGBoost is an extra

from pathlib import Path
from typing import Any

import numpy as np
from _aggregate_worker import Arrays
from _peers import PeerUnavailable
from _strategies_worker import write

from umbel.aggregation import Update, aggregate, bagged_trees
from umbel.records import ParametersRecord

ROWS, FEATURES = 400, 20
#: Rounds that were before, in each of which every node added a tree.
BEFORE = 4


class Nodes:
    """Nodes with rows, and the ensemble that they have come to. ``PeerUnavailable`` where XGBoost is not installed."""

    def __init__(self, count: int) -> None:
        try:
            import xgboost
        except ImportError as error:
            raise PeerUnavailable("the extra xgboost is not installed") from error
        from umbel.interop.xgboost import first

        random = np.random.default_rng(4)
        X = random.standard_normal((count * ROWS, FEATURES))
        y = X[:, 0] + X[:, 1] * X[:, 2] + random.standard_normal(len(X)) / 2 > 0
        self._data = [xgboost.DMatrix(X[node::count], label=y[node::count]) for node in range(count)]
        # Every tree of a round corrects the ensemble by itself: the rate is divided by about the number of nodes.
        self._params = {
            "objective": "binary:logistic",
            "max_depth": 6,
            "eta": 2 / count,
            "base_score": 0.5,
            "nthread": 1,
        }
        self.model = self.none = first(self._params, FEATURES)
        self.one = self._grown(0)
        for _ in range(BEFORE):
            self._play()

    def _play(self) -> None:
        updates = [Update(f"node-{node:03}", 1.0, self._grown(node), {}) for node in range(len(self._data))]
        self.model = aggregate(bagged_trees(), self.model, updates)

    def _grown(self, node: int, **options: Any) -> ParametersRecord:
        from umbel.interop.xgboost import grow

        return grow(self._params, self._data[node], self.model, **options)

    def added(self) -> list[Arrays]:
        """Return the trees that each node adds to the model."""
        return [self._grown(node).to_numpy() for node in range(len(self._data))]

    def passed_on(self) -> list[Arrays]:
        """Return the model with the new trees of one node."""
        return [self._grown(0, whole=True).to_numpy()]


def write_round(folder: Path, nodes: Nodes, replies: list[Arrays]) -> None:
    """Write what a strategy of trees is given in a round: replies, the model, and a smallest round to begin with."""
    write(folder, replies)
    for name, record in (("model", nodes.model), ("none", nodes.none), ("one", nodes.one)):
        np.savez(folder / f"{name}.npz", **record.to_numpy())  # type: ignore[arg-type]  # none is an option
