"""The benchmark of FLUTE (Garcia et al. 2022, arXiv:2203.13789): logistic regression, many clients, few a round.

784 features and 10 classes, 1,000 clients of 60 samples (synthetic, of the shape of MNIST), 10 of them a round for 100
rounds; each trains for 1 epoch in batches of 10 at a learning rate of 0.03.
"""

from functools import cache
from typing import Any

import numpy as np

FEATURES, CLASSES = 784, 10
CLIENTS, SAMPLED, SAMPLES = 1_000, 10, 60
BATCH, RATE = 10, np.float32(0.03)

Model = dict[str, Any]


def new_model() -> Model:
    return {"weight": np.zeros((FEATURES, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}


@cache
def data(client: int) -> tuple[Any, Any]:
    """Return the samples of a client, made on first use and kept, as if they had been loaded."""
    rng = np.random.default_rng(client)
    return rng.random((SAMPLES, FEATURES), np.float32), rng.integers(0, CLASSES, SAMPLES)


def load() -> None:
    for client in range(CLIENTS):
        data(client)


def train(model: Model, client: int, seed: int) -> Model:
    """Train a model, which is changed, for one epoch of softmax regression."""
    X, y = data(client)
    order = np.random.default_rng(seed).permutation(SAMPLES)
    for start in range(0, SAMPLES, BATCH):
        rows = order[start : start + BATCH]
        x = X[rows]
        p = x @ model["weight"] + model["bias"]
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(BATCH), y[rows]] -= 1
        p *= RATE / BATCH
        model["weight"] -= x.T @ p
        model["bias"] -= p.sum(axis=0)
    return model


def loop(rounds: int) -> None:
    """The plain loop: draw, copy, train, take the mean."""
    model, draw = new_model(), np.random.default_rng(0)
    for number in range(rounds):
        total = {name: np.zeros_like(array) for name, array in model.items()}
        for client in draw.choice(CLIENTS, SAMPLED, replace=False):
            trained = train({name: array.copy() for name, array in model.items()}, int(client), number)
            for name, array in trained.items():
                total[name] += np.float32(SAMPLES) * array
        model = {name: array / np.float32(SAMPLES * SAMPLED) for name, array in total.items()}
