"""The benchmark of FLUTE (Garcia et al. 2022, arXiv:2203.13789): logistic regression, many clients, few a round.

784 features and 10 classes, 1,000 clients of 60 samples (synthetic, of the shape of MNIST), 10 of them a round for 100
rounds; each trains for 1 epoch in batches of 10 at a learning rate of 0.03.

    python _flute.py ROUNDS

runs the plain loop, and ``_flute_<library>.py ROUNDS`` a library, by the Python that has it. Each prints what it took.

Every library draws cohorts of its own and calls this `train`. That all did the same work is checked afterwards: the
plain loop is given the same clients, and must arrive at the same model.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

FEATURES, CLASSES = 784, 10
CLIENTS, SAMPLED, SAMPLES = 1_000, 10, 60
BATCH, RATE = 10, np.float32(0.03)

Model = dict[str, Any]
Task = tuple[int, int]  # a client and a seed

trained: list[Task] = []  # what this process trained, round after round


def new_model() -> Model:
    return {"weight": np.zeros((FEATURES, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}


@cache
def data(client: int) -> tuple[Any, Any]:
    """Return the samples of a client, made on first use and kept, as if they had been loaded."""
    rng = np.random.default_rng(client)
    return rng.random((SAMPLES, FEATURES), np.float32), rng.integers(0, CLASSES, SAMPLES)


@cache
def load() -> None:
    """Make the samples of all clients, once in a process."""
    for client in range(CLIENTS):
        data(client)


def train(model: Model, client: int, seed: int) -> Model:
    """Train a model, which is changed, for one epoch of softmax regression."""
    trained.append((client, seed))
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


def loop(rounds: int) -> Model:
    """The plain loop: draw, copy, train, take the mean."""
    draw = np.random.default_rng(0)
    return over([(int(c), number) for c in draw.choice(CLIENTS, SAMPLED, replace=False)] for number in range(rounds))


def over(cohorts: Iterable[list[Task]]) -> Model:
    model = new_model()
    for cohort in cohorts:
        total = {name: np.zeros_like(array) for name, array in model.items()}
        for client, seed in cohort:
            new = train({name: array.copy() for name, array in model.items()}, client, seed)
            for name, array in new.items():
                total[name] += np.float32(SAMPLES) * array
        model = {name: array / np.float32(SAMPLES * SAMPLED) for name, array in total.items()}
    return model


def difference(model: Model, tasks: Iterable[Task]) -> float:
    """How far a model is from what the plain loop makes of the same tasks, relative to the largest of its weights."""
    every = list(tasks)
    expected = over(every[start : start + SAMPLED] for start in range(0, len(every), SAMPLED))
    apart = [np.abs(np.asarray(model[name]) - array).max() for name, array in expected.items()]
    return float(max(apart) / np.abs(expected["weight"]).max())


def measure(run: Callable[[int], Model], rounds: int) -> None:
    """Take the time of a library that trains in this process, after a first run of one round."""
    load()
    run(1)
    trained.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    model = run(rounds)
    report(time.perf_counter() - wall, time.process_time() - cpu, difference(model, trained))


def report(seconds: float, cpu: float, apart: float) -> None:
    print(json.dumps({"seconds": seconds, "cpu": cpu, "difference": apart}), flush=True)


if __name__ == "__main__":
    measure(loop, int(sys.argv[1]))
