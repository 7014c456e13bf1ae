"""A run of the convergence suite, and what it is judged by."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from _learning import Learner, Task, accuracy, digits, skewed

import umbel
from umbel import strategy as named
from umbel.engines import VirtualGrid, drawn
from umbel.history import History
from umbel.strategy import Strategy, quorum

Pair = tuple[float, float]
SEEDS = (1, 2, 3)
LATE = 5  # the last rounds, whose mean is a run's figure


class Regime(NamedTuple):
    strategy: str
    regime: str
    unit: str
    measure: Callable[[int], Pair]


def run(learner: Learner, strategy: Strategy, seed: int, rounds: int, **options: Any) -> History:
    task = learner.task
    first = options.pop("first", None) or task.first(seed)

    def evaluate(_number: int, model: Mapping[str, Any]) -> dict[str, float]:
        arrays = {name: array.numpy() for name, array in model.items()}
        return {"accuracy": accuracy(arrays, task.test)} if arrays.keys() >= {"w1", "w2"} else {}

    return umbel.simulate(
        learner.app(), strategy, first, nodes=len(task.parts), rounds=rounds, seed=seed, evaluate=evaluate, **options
    )


def late(history: History) -> float:
    return 100 * float(np.mean(history.metrics["central.accuracy"][-LATE:]))


def plain(**options: Any) -> Strategy:
    return named.fedavg(evaluate_fraction=0, **options)


def versus(
    strategy: Strategy, task_of: Callable[[int], Task], *, base: Strategy, rounds: int, **options: Any
) -> Callable[[int], Pair]:
    """Return the accuracy of the last rounds, in per cent, for a strategy and for FedAvg."""

    def measure(seed: int) -> Pair:
        ours, theirs = (late(run(Learner(task_of(seed), **options), each, seed, rounds)) for each in (strategy, base))
        return ours, theirs

    return measure


# Time: what is known of the test set after so many seconds of a virtual clock.

DEVICES = {"seconds": 60.0, "spread": 1.2, "jitter": 0.3}


def by_time(history: History, seconds: float) -> float:
    """Return the accuracy of the last model that was there by then."""
    best = 0.0
    for report in history.rounds:
        if report.arrivals and report.arrivals[-1].at <= seconds:
            best = float(report.metrics["central.accuracy"])
    return 100 * best


def on_time(strategy: Strategy, rounds: int, seconds: float = 3600.0) -> Callable[[int], Pair]:
    def measure(seed: int) -> Pair:
        task = skewed(digits(), 50, 0.3, seed)

        def engine(*parts: Any, **options: Any) -> VirtualGrid:
            return VirtualGrid(*parts, devices=drawn(seed=seed, **DEVICES), **options)

        base = plain(fraction=0.2, policy=quorum(1 - 1e-9))  # that is everyone, with arrivals on record
        runs = [(strategy, rounds), (base, 80)]
        found = [run(Learner(task), each, seed, count, engine=engine) for each, count in runs]
        return by_time(found[0], seconds), by_time(found[1], seconds)

    return measure
