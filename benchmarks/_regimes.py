"""Each algorithm in the regime that its paper is for, beside plain FedAvg on the same data, seeds and rounds.

A regime is a function of a seed that returns two numbers of which more is better: the algorithm's and FedAvg's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from _cohorts import by_choice, by_distinct_rows, by_hour, by_size, by_turns, choosy
from _learning import Learner, Model, Rows, Task, accuracy, always, digits, mnist, skewed
from _runs import Pair, Regime, late, on_time, plain, run, versus
from _sites import fair_sites, passed_on, trees

from umbel import strategy as named
from umbel.strategy import Strategy, quorum

# Label skew, and one node in ten a round.

FEW = {"fraction": 0.1, "evaluate_fraction": 0}


def label_skew(seed: int) -> Task:
    return skewed(digits(), 50, 0.1, seed)


def images(seed: int) -> Task:
    return skewed(mnist(), 50, 0.1, seed, hidden=64)


def few(strategy: Strategy, rounds: int = 40, **options: Any) -> Callable[[int], Pair]:
    return versus(strategy, label_skew, base=plain(fraction=0.1), rounds=rounds, **options)


# Nodes that go differently far.


def uneven(node: int, number: int) -> float:
    return float(1 + 9 * ((node * 7 + number) % 4 == 0))


def stragglers(seed: int) -> Pair:
    """FedProx takes what slow nodes have done by the deadline; FedAvg drops them (the paper's comparison, 90%)."""
    task = label_skew(seed)
    slow = np.random.default_rng(seed).random(50) < 0.9

    def part(node: int, number: int) -> float:
        return float(np.random.default_rng([node, number]).uniform(0.2, 5)) if slow[node] else 5.0

    ours = run(Learner(task, epochs=part), named.fedprox(mu=0.1, **{**FEW, "fraction": 0.2}), seed, 30)
    fast = [place for place in range(50) if not slow[place]]
    kept = Task(task.train, task.test, [task.parts[place] for place in fast])
    theirs = run(Learner(kept, epochs=always(5)), plain(fraction=0.4), seed, 30)
    return late(ours), late(theirs)


def nova(seed: int) -> Pair:
    task = skewed(digits(), 20, 0.1, seed)
    pairs = [
        run(Learner(task, rate=0.03, epochs=uneven), each, seed, 40)
        for each in (named.fednova(evaluate_fraction=0), plain())
    ]
    return late(pairs[0]), late(pairs[1])


# Fairness and personalisation.


def held_out(task: Task, seed: int) -> tuple[Task, list[Rows]]:
    """Deal a third of each node's rows to its own test set."""
    rng, parts, tests = np.random.default_rng(seed), [], []
    for part in task.parts:
        order = rng.permutation(part)
        cut = max(1, len(part) // 3)
        tests.append((task.train[0][order[:cut]], task.train[1][order[:cut]]))
        parts.append(order[cut:] if len(part) > 1 else order)
    return Task(task.train, task.test, parts, task.hidden, normal=task.normal), tests


def at_home(models: Callable[[int], Model], tests: list[Rows]) -> float:
    """Return the mean over nodes of the accuracy that each has on its own rows."""
    return 100 * float(np.mean([accuracy(models(node), rows) for node, rows in enumerate(tests)]))


def personal(strategy: Strategy, task_of: Callable[[int], Task], rounds: int = 30) -> Callable[[int], Pair]:
    def measure(seed: int) -> Pair:
        task, tests = held_out(task_of(seed), seed)
        learner = Learner(task)
        run(learner, strategy, seed, rounds)
        theirs = run(Learner(task), plain(), seed, rounds).model.to_numpy()
        return at_home(lambda node: learner.own[node], tests), at_home(lambda _node: theirs, tests)

    return measure


def two_minds(seed: int) -> Task:
    """Half of the nodes count backwards: no one model is right for all."""
    task = skewed(digits(), 20, 1.0, seed)
    y = task.train[1].copy()
    for part in task.parts[::2]:
        y[part] = 9 - y[part]
    return Task((task.train[0], y), task.test, task.parts)


def feature_shift(seed: int) -> Task:
    """Every node has a camera of its own: another contrast and brightness."""
    task = skewed(digits(), 12, 100.0, seed)
    rng, X = np.random.default_rng(seed), task.train[0].copy()
    for part in task.parts:
        X[part] = X[part] * rng.uniform(0.5, 2) + rng.uniform(-1, 1)
    return Task((X, task.train[1]), task.test, task.parts, normal=True)


def rarely(seed: int) -> Pair:
    task = skewed(digits(), 8, 100.0, seed)
    learner = {"rate": 0.03}
    ours = run(Learner(task, **learner), named.diloco(local_steps=30, evaluate_fraction=0), seed, 12)
    theirs = run(Learner(task, **learner), named.fedprox(mu=0.0, evaluate_fraction=0), seed, 12)
    return late(ours), late(theirs)


REGIMES = (
    Regime("fedavgm", "digits, Dirichlet 0.1, 10%", "% accuracy", few(named.fedavgm(beta=0.7, **FEW))),
    Regime("fedadagrad", "digits, Dirichlet 0.1, 10%", "% accuracy", few(named.fedadagrad(learning_rate=0.1, **FEW))),
    Regime("fedadam", "digits, Dirichlet 0.1, 10%", "% accuracy", few(named.fedadam(learning_rate=0.02, **FEW))),
    Regime("fedyogi", "digits, Dirichlet 0.1, 10%", "% accuracy", few(named.fedyogi(learning_rate=0.02, **FEW))),
    Regime(
        "fedadam",
        "5,000 images of MNIST, Dirichlet 0.1, 10%",
        "% accuracy",
        versus(named.fedadam(learning_rate=0.03, **FEW), images, base=plain(fraction=0.1), rounds=40),
    ),
    Regime(
        "scaffold",
        "digits, Dirichlet 0.1, 20%, 10 epochs",
        "% accuracy",
        versus(
            named.scaffold(fraction=0.2, evaluate_fraction=0),
            label_skew,
            base=plain(fraction=0.2),
            rounds=60,
            rate=0.05,
            epochs=always(10),
        ),
    ),
    Regime(
        "feddyn",
        "digits, Dirichlet 0.1, 20%, 10 epochs",
        "% accuracy",
        versus(
            named.feddyn(alpha=0.1, fraction=0.2, evaluate_fraction=0),
            label_skew,
            base=plain(fraction=0.2),
            rounds=60,
            rate=0.05,
            epochs=always(10),
        ),
    ),
    Regime("fedprox", "digits, Dirichlet 0.1, 90% stragglers", "% accuracy", stragglers),
    Regime("fednova", "digits, Dirichlet 0.1, 1 or 10 epochs", "% accuracy", nova),
    Regime("diloco", "digits, even, 30 steps a round", "% accuracy", rarely),
    Regime("qfedavg", "RAND health, six sites", "thousandths of the worst site's loss", fair_sites),
    Regime("fedxgb_bagging", "RAND health, six sites", "% area under the curve", trees),
    Regime("fedxgb_cyclic", "RAND health, six sites", "% area under the curve", passed_on),
    Regime(
        "fedbn",
        "digits, every node its own camera",
        "% accuracy at home",
        personal(named.fedbn(local="bn.*", evaluate_fraction=0), feature_shift),
    ),
    Regime(
        "fedper",
        "digits, half of the nodes count backwards",
        "% accuracy at home",
        personal(named.fedper(local=["w2", "b2"], evaluate_fraction=0), two_minds),
    ),
    Regime(
        "ditto",
        "digits, half of the nodes count backwards",
        "% accuracy at home",
        personal(named.ditto(strength=0.1, evaluate_fraction=0), two_minds),
    ),
    Regime("by_metric", "digits, Dirichlet 0.1, a fifth has its rows ten times", "% accuracy", by_distinct_rows),
    Regime("weighted", "digits, sizes of 1 to 100, 5 of 50 nodes", "% accuracy", by_size),
    Regime("in_turn", "digits, Dirichlet 0.1, 10%", "% accuracy", by_turns),
    Regime("these", "digits, a fifth is known to count backwards", "% accuracy", by_choice),
    Regime("power_of_choice", "digits, Dirichlet 0.3, 3 of 100 nodes", "% accuracy, mean of rounds", choosy),
    Regime(
        "oort",
        "digits, four hours of uneven devices, 20%",
        "% accuracy",
        on_time(plain()._replace(select=named.oort(10)), 120, seconds=14_400.0),
    ),
    Regime(
        "tiers",
        "digits, an hour of uneven devices, 20%",
        "% accuracy",
        on_time(plain()._replace(select=named.tiers(10, number=5)), 80),
    ),
    Regime("during", "digits, two days of devices that are there for a third", "% accuracy", by_hour),
    Regime(
        "quorum(0.7)",
        "digits, an hour of uneven devices, 29%",
        "% accuracy",
        on_time(plain(fraction=0.29, policy=quorum(0.7)), 80),
    ),
    Regime(
        "fedbuff",
        "digits, an hour of uneven devices",
        "% accuracy",
        on_time(named.fedbuff(concurrency=10, buffer=5), 200),
    ),
    Regime(
        "fedasync",
        "digits, an hour of uneven devices",
        "% accuracy",
        on_time(named.fedasync(concurrency=10, alpha=0.3), 900),
    ),
    Regime(
        "fedat",
        "digits, an hour of uneven devices",
        "% accuracy",
        on_time(named.fedat(count=2, number=5), 500),
    ),
)
