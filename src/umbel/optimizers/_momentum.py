"""Steps along the difference, without momentum, with it, and with Nesterov's."""

from functools import partial

import numpy as np

from umbel.optimizers._elementwise import Block, Step, elementwise, require_rate, require_share
from umbel.optimizers._optimizer import Cohort, Optimizer


def sgd(*, learning_rate: float = 1.0) -> Optimizer:
    """Return a plain step of the server: the next model is ``model - learning_rate*(model - aggregate)``.

    With a rate of 1 that is the aggregate, up to rounding; ``replace()`` is it to the bit.

    Args:
        learning_rate: factor of the step, above 0.

    Raises:
        StrategyError: for a rate outside this range; ``update`` raises as that of ``momentum`` does.

    """
    require_rate("sgd", "a learning rate", learning_rate)
    return elementwise(f"sgd(learning_rate={learning_rate!r})", partial(_sgd, learning_rate))


def momentum(*, learning_rate: float = 1.0, beta: float = 0.9) -> Optimizer:
    """Return server momentum: FedAvgM, Hsu, Qi and Brown 2019, arXiv:1909.06335.

    The step of a round is ``d = model - aggregate``; ``v = beta*v + d``; the next model is ``model - learning_rate*v``.
    ``v``, the record "momentum", begins at zero.

    Args:
        learning_rate: factor of the step, above 0.
        beta: share of the last ``v`` that goes on, from 0 to below 1.

    Raises:
        StrategyError: for numbers outside these ranges. ``update`` raises ``AggregationError`` if the model, the
            aggregate and the state have different layouts, or the next model is not finite.

    >>> import numpy as np
    >>> from umbel.records import ParametersRecord
    >>> model = ParametersRecord.from_numpy({"w": np.array([1.0, 1.0])})
    >>> aggregate = ParametersRecord.from_numpy({"w": np.array([0.5, 2.0])})
    >>> optimizer = momentum(beta=0.5)
    >>> state, model = optimizer.update(optimizer.init(model), model, aggregate)
    >>> state, model = optimizer.update(state, model, model)
    >>> model.to_numpy()["w"]
    array([0.25, 2.5 ])

    """
    return _with_momentum("momentum", _momentum, learning_rate, beta)


def nesterov(*, learning_rate: float = 0.7, beta: float = 0.9) -> Optimizer:
    """Return Nesterov momentum, the outer optimizer of DiLoCo: Douillard et al. 2023, arXiv:2311.08105.

    The step of a round is ``d = model - aggregate``; ``v = beta*v + d``; the next model is
    ``model - learning_rate*(d + beta*v)``: PyTorch's ``SGD(nesterov=True)`` with ``d`` as the gradient. The defaults
    are the paper's. ``v``, the record "momentum", begins at zero.

    Args:
        learning_rate: factor of the step, above 0.
        beta: share of the last ``v`` that goes on, from 0 to below 1.

    Raises:
        StrategyError: for numbers outside these ranges; ``update`` raises as that of ``momentum`` does.

    """
    return _with_momentum("nesterov", _nesterov, learning_rate, beta)


def _with_momentum(kind: str, step: Step, learning_rate: float, beta: float) -> Optimizer:
    require_rate(kind, "a learning rate", learning_rate)
    require_share(kind, "beta", beta)
    name = f"{kind}(learning_rate={learning_rate!r}, beta={beta!r})"
    return elementwise(name, partial(step, learning_rate, beta), momentum=0.0)._replace(trains=True)


def _sgd(rate: float, _: Cohort, x: Block, mean: Block) -> tuple[Block, ...]:
    return (x - rate * (x - mean),)


def _momentum(rate: float, beta: float, _: Cohort, x: Block, mean: Block, v: Block) -> tuple[Block, ...]:
    v = beta * v
    v += x - mean
    step = rate * v
    return np.subtract(x, step, out=step), v


def _nesterov(rate: float, beta: float, _: Cohort, x: Block, mean: Block, v: Block) -> tuple[Block, ...]:
    d = x - mean
    v = beta * v + d
    return x - rate * (d + beta * v), v
