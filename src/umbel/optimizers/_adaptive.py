"""The adaptive server optimizers of Reddi et al. 2021, arXiv:2003.00295, Algorithm 2.

All three keep ``m``, a mean of past differences ``d = aggregate - model``, and ``v``, what their squares have come to,
as the records "momentum" and "second-moment". They differ in how ``v`` follows ``d*d``, and end in
``model + learning_rate*m / (sqrt(v) + tau)``. There is no correction of bias, as in the paper: ``v`` begins at
``tau**2``, the least that Algorithm 2 allows. With a ``beta1`` of 0, ``m`` is the last difference, and not kept.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from umbel.optimizers._elementwise import Block, elementwise, require_rate, require_share
from umbel.optimizers._optimizer import Cohort, Optimizer

_Follow: TypeAlias = Callable[[float, Block, Block], Block]  # (beta2, d*d, v) -> v


class _Numbers(NamedTuple):
    learning_rate: float
    beta1: float
    beta2: float
    tau: float


def adagrad(*, learning_rate: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> Optimizer:
    """Return server Adagrad: FedAdagrad, Reddi et al. 2021, arXiv:2003.00295, Algorithm 2.

    With ``d = aggregate - model``: ``m = beta1*m + (1 - beta1)*d``; ``v = v + d*d``; the next model is
    ``model + learning_rate*m / (sqrt(v) + tau)``.

    Args:
        learning_rate: eta of the paper, above 0; the paper tunes it for every task.
        beta1: share of the last ``m`` that goes on, from 0 to below 1; 0 is Adagrad as it was.
        tau: how little the step adapts, above 0; 1e-3 does well in most of the paper's experiments.

    Raises:
        StrategyError: for numbers outside these ranges. ``update`` raises ``AggregationError`` if the model, the
            aggregate and the state have different layouts, or the next model is not finite.

    """
    name = f"adagrad(learning_rate={learning_rate!r}, beta1={beta1!r}, tau={tau!r})"
    return _adaptive("adagrad", name, _adagrad, _Numbers(learning_rate, beta1, 0.0, tau))


def adam(*, learning_rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Optimizer:
    """Return server Adam: FedAdam, Reddi et al. 2021, arXiv:2003.00295, Algorithm 2.

    As ``adagrad``, with ``v = beta2*v + (1 - beta2)*d*d``.

    Args:
        learning_rate: eta of the paper, above 0; the paper tunes it for every task.
        beta1: share of the last ``m`` that goes on, from 0 to below 1.
        beta2: share of the last ``v`` that goes on, from 0 to below 1.
        tau: how little the step adapts, above 0.

    Raises:
        StrategyError: for numbers outside these ranges; ``update`` raises as that of ``adagrad`` does.

    """
    name = f"adam(learning_rate={learning_rate!r}, beta1={beta1!r}, beta2={beta2!r}, tau={tau!r})"
    return _adaptive("adam", name, _adam, _Numbers(learning_rate, beta1, beta2, tau))


def yogi(*, learning_rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> Optimizer:
    """Return server Yogi: FedYogi, Reddi et al. 2021, arXiv:2003.00295, Algorithm 2.

    As ``adagrad``, with ``v = v - (1 - beta2)*d*d*sign(v - d*d)``.

    Args:
        learning_rate: eta of the paper, above 0; the paper tunes it for every task.
        beta1: share of the last ``m`` that goes on, from 0 to below 1.
        beta2: how slowly ``v`` follows, from 0 to below 1.
        tau: how little the step adapts, above 0.

    Raises:
        StrategyError: for numbers outside these ranges; ``update`` raises as that of ``adagrad`` does.

    """
    name = f"yogi(learning_rate={learning_rate!r}, beta1={beta1!r}, beta2={beta2!r}, tau={tau!r})"
    return _adaptive("yogi", name, _yogi, _Numbers(learning_rate, beta1, beta2, tau))


def _adaptive(kind: str, name: str, follow: _Follow, numbers: _Numbers) -> Optimizer:
    require_rate(kind, "a learning rate", numbers.learning_rate)
    require_share(kind, "beta1", numbers.beta1)
    require_share(kind, "beta2", numbers.beta2)
    require_rate(kind, "tau", numbers.tau)
    if not numbers.beta1:
        made = elementwise(name, partial(_without_momentum, follow, numbers), second_moment=numbers.tau**2)
    else:
        step = partial(_with_momentum, follow, numbers)
        made = elementwise(name, step, momentum=0.0, second_moment=numbers.tau**2)
    return made._replace(trains=True)


def _without_momentum(
    follow: _Follow, numbers: _Numbers, _: Cohort, x: Block, mean: Block, v: Block
) -> tuple[Block, ...]:
    d = mean - x
    v = follow(numbers.beta2, d * d, v)
    return _stepped(numbers, x, d, v), v


def _with_momentum(
    follow: _Follow, numbers: _Numbers, _: Cohort, x: Block, mean: Block, m: Block, v: Block
) -> tuple[Block, ...]:
    d = mean - x
    m = numbers.beta1 * m
    m += (1 - numbers.beta1) * d
    v = follow(numbers.beta2, np.multiply(d, d, out=d), v)
    return _stepped(numbers, x, m, v), m, v


def _stepped(numbers: _Numbers, x: Block, m: Block, v: Block) -> Block:
    step: Block = numbers.learning_rate * m
    root = np.sqrt(v)
    root += numbers.tau
    step /= root
    return np.add(x, step, out=step)


def _adagrad(_: float, dd: Block, v: Block) -> Block:
    return v + dd


def _adam(beta2: float, dd: Block, v: Block) -> Block:
    v = beta2 * v
    v += (1 - beta2) * dd
    return v


def _yogi(beta2: float, dd: Block, v: Block) -> Block:
    sign: Block = np.sign(v - dd)
    return v - (1 - beta2) * dd * sign
