"""Against client drift: what a node adds to its gradients so that many local steps do not pull its model away.

Nodes whose data differ drift towards different models while they train by themselves. FedProx, SCAFFOLD and FedDyn each
add a term to every local gradient; FedNova counts how far a node went. These are the nodes' halves of the strategies of
the same names, as pure functions of mappings from names to NumPy arrays: a term is added for each name in ``gradient``,
arrays keep their dtype, and nothing that is given changes.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.errors import StrategyError

__all__ = ["controlled", "dynamic", "next_control", "next_linear", "normaliser", "proximal", "zeros"]

_Arrays: TypeAlias = Mapping[str, NDArray[Any]]


def proximal(gradient: _Arrays, weights: _Arrays, received: _Arrays, mu: float) -> dict[str, NDArray[Any]]:
    """Return ``gradient + mu*(weights - received)``: FedProx, Li et al. 2020, arXiv:1812.06127.

    It is the gradient of the local loss plus ``mu/2`` times the squared distance from the model that the node received.

    >>> proximal({"w": np.array([1.0])}, {"w": np.array([3.0])}, {"w": np.array([2.0])}, mu=0.5)["w"]
    array([1.5])

    """
    return {name: _like(g, g + mu * (weights[name] - received[name])) for name, g in gradient.items()}


def controlled(gradient: _Arrays, own: _Arrays, server: _Arrays) -> dict[str, NDArray[Any]]:
    """Return ``gradient - own + server``: a step of SCAFFOLD, Karimireddy et al. 2020, arXiv:1910.06378.

    ``own`` and ``server`` are the control variates of the node and of the server, both zero in the beginning.
    """
    return {name: _like(g, g - own[name] + server[name]) for name, g in gradient.items()}


def next_control(
    own: _Arrays, server: _Arrays, received: _Arrays, weights: _Arrays, *, steps: int, learning_rate: float
) -> dict[str, NDArray[Any]]:
    """Return the node's next control variate, ``own - server + (received - weights) / (steps*learning_rate)``.

    It is option II of SCAFFOLD, the one that costs no pass over the data. The node keeps it and replies with its
    difference from ``own`` as the record "control".

    Args:
        own: the node's control variate during the round.
        server: the server's, as received.
        received: the model that the node received.
        weights: the model after the last local step.
        steps: how many local steps there were, at least 1.
        learning_rate: of a local step, above 0.

    Raises:
        StrategyError: for numbers out of these ranges.

    """
    _require(steps >= 1 and learning_rate > 0, f"local steps and a rate above 0, got {steps!r} and {learning_rate!r}")
    scale = 1 / (steps * learning_rate)
    return {name: _like(c, c - server[name] + scale * (received[name] - weights[name])) for name, c in own.items()}


def dynamic(
    gradient: _Arrays, linear: _Arrays, weights: _Arrays, received: _Arrays, alpha: float
) -> dict[str, NDArray[Any]]:
    """Return ``gradient - linear + alpha*(weights - received)``: FedDyn, Acar et al. 2021, arXiv:2111.04263.

    It is the gradient of the dynamically regularised loss. ``linear`` is zero in a node's first round.
    """
    return {name: _like(g, g - linear[name] + alpha * (weights[name] - received[name])) for name, g in gradient.items()}


def next_linear(linear: _Arrays, weights: _Arrays, received: _Arrays, alpha: float) -> dict[str, NDArray[Any]]:
    """Return what FedDyn's node keeps for its next round, ``linear - alpha*(weights - received)``.

    At a minimum of the regularised loss it is the gradient of the local loss there.
    """
    return {name: _like(g, g - alpha * (weights[name] - received[name])) for name, g in linear.items()}


def normaliser(steps: int, *, momentum: float = 0.0, shrink: float = 0.0) -> float:
    """Return how far ``steps`` local steps go, in gradients: ``|a|_1`` of FedNova, Wang et al. 2020, arXiv:2007.07481.

    It is the sum of the weights with which the gradients of all steps are in the node's last model: ``steps`` itself
    for plain SGD. A node reports it as the metric "normaliser".

    Args:
        steps: how many local steps there were, at least 1.
        momentum: rho of ``v = rho*v + gradient``, begun at zero each round; from 0 to below 1.
        shrink: learning rate times mu, for SGD with FedProx's term; from 0 to below 1. Not together with momentum.

    Raises:
        StrategyError: for numbers out of these ranges.

    >>> normaliser(10), normaliser(2, momentum=0.5), normaliser(2, shrink=0.5)
    (10.0, 2.5, 1.5)

    """
    ranges = steps >= 1 and 0 <= momentum < 1 and 0 <= shrink < 1 and not (momentum and shrink)
    _require(ranges, f"steps above 0 and one of momentum and shrink below 1, got {(steps, momentum, shrink)!r}")
    if momentum:
        return float((steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum))
    return float((1 - (1 - shrink) ** steps) / shrink) if shrink else float(steps)


def zeros(arrays: _Arrays) -> dict[str, NDArray[Any]]:
    """Return zeros like the float and complex ``arrays``: what a control variate or a linear term begins at.

    >>> list(zeros({"weight": np.ones(2, np.float32), "batches": np.int64(7)}))
    ['weight']

    """
    return {name: np.zeros_like(array) for name, array in arrays.items() if _has_gradient(array.dtype)}


def _has_gradient(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" or "float" in dtype.name


def _like(array: NDArray[Any], result: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(result, array.dtype)


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not condition:
        raise StrategyError(f"expected {what}", at="drift")
