"""Robust rules beside the mean, with a fifth of the nodes bad, under the attacks of the literature."""

from collections.abc import Callable
from typing import Any

import numpy as np
from _learning import Learner, Model, Task, digits, skewed
from _runs import late, plain, run

from umbel import strategy as named
from umbel.context import Context
from umbel.strategy import Strategy

NODES, BAD, ROUNDS = 20, 4, 25
Step = Callable[[Model, int, Context], Model]


class Colluding:
    """What the bad nodes know: how all of them would have trained honestly, in the round before or in this one."""

    def __init__(self, change: Callable[[list[Model]], Model]) -> None:
        self._change = change
        self._steps: dict[int, Model] = {}

    def __call__(self, step: Model, node: int, _context: Context) -> Model:
        self._steps[node] = step
        return self._change([self._steps[place] for place in sorted(self._steps)])


def _each(steps: list[Model], function: Callable[[Any], Any]) -> Model:
    return {name: function(np.array([step[name] for step in steps])) for name in steps[0]}


def sign_flip(step: Model, _node: int, _context: Context) -> Model:
    return {name: -4 * value for name, value in step.items()}


def gaussian(step: Model, _node: int, context: Context) -> Model:
    rng = np.random.default_rng(context.seed)
    return {name: 10 * rng.standard_normal(value.shape) for name, value in step.items()}


def little() -> Step:
    """A little is enough: Baruch et al. 2019, arXiv:1902.06156."""
    return Colluding(lambda steps: _each(steps, lambda values: values.mean(axis=0) - 1.5 * values.std(axis=0)))


def inner_product() -> Step:
    """Inner-product manipulation: Xie et al. 2020, arXiv:1903.03936."""
    return Colluding(lambda steps: _each(steps, lambda values: -5 * values.mean(axis=0)))


ATTACKS: dict[str, Callable[[], Step]] = {
    "sign flip": lambda: sign_flip,
    "Gaussian": lambda: gaussian,
    "a little is enough": little,
    "inner product": inner_product,
}
NONE = {"evaluate_fraction": 0}
RULES: dict[str, Strategy] = {
    "fedmedian": named.fedmedian(**NONE),
    "fedtrimmedavg": named.fedtrimmedavg(share=0.2, **NONE),
    "krum": named.krum(byzantine=BAD, **NONE),
    "multikrum": named.multikrum(byzantine=BAD, **NONE),
    "bulyan": named.bulyan(byzantine=BAD, **NONE),
    "rfa": named.rfa(**NONE),
    "normclip": named.normclip(**NONE),
    "centredclip": named.centredclip(**NONE),
}


def task_of(seed: int) -> Task:
    return skewed(digits(), NODES, 1.0, seed)


def accuracy_under(strategy: Strategy, attack: str | None, seed: int) -> float:
    made = None if attack is None else ATTACKS[attack]()
    bad = frozenset() if made is None else frozenset(range(0, NODES, NODES // BAD))
    return late(run(Learner(task_of(seed), attack=made, bad=bad), strategy, seed, ROUNDS))


def mean_under(attack: str | None, seed: int) -> float:
    return accuracy_under(plain(), attack, seed)
