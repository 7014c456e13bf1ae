"""Selectors and weights in the regimes that they are for. FedAvg draws uniformly, and weights by examples."""

from typing import Any

import numpy as np
from _learning import Learner, Task, digits, skewed
from _runs import Pair, by_time, late, plain, run

from umbel import strategy as named
from umbel.aggregation import by_metric, uniform, weighted_mean
from umbel.engines import Trace, VirtualGrid, traced
from umbel.strategy import Strategy, fixed, quorum


def compared(ours: Strategy, theirs: Strategy, task: Task, seed: int, rounds: int) -> Pair:
    return late(run(Learner(task), ours, seed, rounds)), late(run(Learner(task), theirs, seed, rounds))


def by_name(count: int) -> list[int]:
    """Return so many nodes in the order of their names, which are no numbers: "node-10" is before "node-2"."""
    return sorted(range(count), key=lambda node: f"node-{node}")


def choosy(seed: int) -> Pair:
    task = skewed(digits(), 100, 0.3, seed)
    base = plain(aggregator=weighted_mean(uniform))._replace(select=fixed(3))
    ours = base._replace(select=named.power_of_choice(3, candidates=12))
    pair = [run(Learner(task, rate=0.05), each, seed, 60) for each in (ours, base)]
    # How fast it gets there: the mean over all rounds.
    return tuple(100 * float(np.mean(each.metrics["central.accuracy"])) for each in pair)  # type: ignore[return-value]


def by_size(seed: int) -> Pair:
    """Who has more rows is asked more often, and then all weigh the same; sizes differ a hundredfold."""
    (X, y), test = digits()
    rng = np.random.default_rng(seed)
    bounds = np.cumsum(rng.permutation(np.geomspace(1, 100, 50)))
    order = np.argsort(y + rng.uniform(0, 3, len(y)))  # neighbours have few digits
    task = Task((X, y), test, np.split(order, (bounds[:-1] / bounds[-1] * len(y)).astype(int)))
    sizes = [max(1, len(task.parts[node])) for node in by_name(50)]
    ours = plain(aggregator=weighted_mean(uniform))._replace(select=named.weighted(5, sizes))
    return compared(ours, plain(fraction=0.1), task, seed, 40)


def by_turns(seed: int) -> Pair:
    """In ten rounds everyone was asked, and nobody twice."""
    ours = plain()._replace(select=named.in_turn(5))
    return compared(ours, plain(fraction=0.1), skewed(digits(), 50, 0.1, seed), seed, 40)


def by_choice(seed: int) -> Pair:
    """A fifth of the nodes counts backwards; whoever runs the federation knows which, and asks all others."""
    task = skewed(digits(), 20, 1.0, seed)
    y = task.train[1].copy()
    for part in task.parts[::5]:
        y[part] = 9 - y[part]
    good = [f"node-{node}" for node in range(20) if node % 5]
    ours = plain()._replace(select=named.these(good))
    return compared(ours, plain(), Task((task.train[0], y), task.test, task.parts), seed, 30)


def by_distinct_rows(seed: int) -> Pair:
    """Every fifth node has each of its rows ten times, and so ten times the examples that it knows."""
    task = skewed(digits(), 20, 0.1, seed)
    parts = [np.repeat(part, 1 if node % 5 else 10) for node, part in enumerate(task.parts)]
    ours = plain(aggregator=weighted_mean(by_metric("distinct-rows")))
    return compared(ours, plain(), Task(task.train, task.test, parts), seed, 30)


HOUR, DAY = 3600.0, 24 * 3600.0


def by_hour(seed: int) -> Pair:
    """Every device is there for eight hours a day, from an hour of its own on, and takes about a minute."""
    rng = np.random.default_rng(seed)
    opens = {f"node-{node}": int(rng.integers(24)) for node in range(50)}
    traces = {name: Trace(60 * float(np.exp(rng.standard_normal())), daily(hour)) for name, hour in opens.items()}

    def engine(*parts: Any, **options: Any) -> VirtualGrid:
        return VirtualGrid(*parts, devices=traced(traces), **options)

    windows = {name: (hour, (hour + 8) % 24) for name, hour in opens.items()}
    ours = plain()._replace(select=named.during(windows, fixed(5)))
    base = plain(fraction=0.1, policy=quorum(1 - 1e-9))  # that is everyone, with arrivals on record
    learner = Learner(skewed(digits(), 50, 0.3, seed))
    found = [run(learner, each, seed, rounds, engine=engine) for each, rounds in ((ours, 100), (base, 10))]
    return by_time(found[0], 2 * DAY), by_time(found[1], 2 * DAY)


def daily(hour: int) -> list[tuple[float, float]]:
    """Return the windows of two months, the one of the day before them included."""
    starts = [HOUR * hour + DAY * day for day in range(-1, 60)]
    return [(start, start + 8 * HOUR) for start in starts]
