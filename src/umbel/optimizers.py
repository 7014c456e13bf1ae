"""Server optimizers: how the aggregate of a round becomes the next model.

An optimizer is a pair of pure functions. State is parameter records by name, so it is saved like a model.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import flat
from umbel.errors import AggregationError, StrategyError
from umbel.records import ParametersRecord

__all__ = ["Optimizer", "OptimizerState", "momentum", "replace"]

OptimizerState: TypeAlias = Mapping[str, ParametersRecord]

_MOMENTUM: Final = "momentum"
_BLOCK: Final = 2**15  # elements; the handful of blocks in use fit in a core's cache


class Optimizer(NamedTuple):
    """``init(model) -> state`` and ``update(state, model, aggregate) -> (state, model)``, both pure."""

    name: str
    init: Callable[[ParametersRecord], OptimizerState]
    update: Callable[[OptimizerState, ParametersRecord, ParametersRecord], tuple[OptimizerState, ParametersRecord]]


def replace() -> Optimizer:
    """Return the optimizer whose next model is the aggregate: FedAvg, McMahan et al. 2017, arXiv:1602.05629."""
    return Optimizer("replace()", _no_state, _replace)


def momentum(*, learning_rate: float = 1.0, beta: float = 0.9) -> Optimizer:
    """Return server momentum: FedAvgM, Hsu, Qi and Brown 2019, arXiv:1909.06335.

    The step of a round is ``d = model - aggregate``; ``v = beta*v + d``; the next model is ``model - learning_rate*v``.
    ``v`` begins at zero and is kept in float32 for floats of up to 32 bits, in their own dtype for wider and complex
    ones. Arrays keep their dtype; those of integers and bools are replaced.

    Args:
        learning_rate: factor of the step, above 0.
        beta: share of the last ``v`` that goes on, from 0 to below 1.

    Raises:
        StrategyError: for numbers outside these ranges. ``update`` raises ``AggregationError`` if the model, the
            aggregate and the state have different layouts, or the next model is not finite.

    >>> model = ParametersRecord.from_numpy({"w": np.array([1.0, 1.0])})
    >>> aggregate = ParametersRecord.from_numpy({"w": np.array([0.5, 2.0])})
    >>> optimizer = momentum(beta=0.5)
    >>> state, model = optimizer.update(optimizer.init(model), model, aggregate)
    >>> state, model = optimizer.update(state, model, model)
    >>> model.to_numpy()["w"]
    array([0.25, 2.5 ])

    """
    _require(0 < learning_rate < float("inf"), f"a learning rate above 0, got {learning_rate!r}")
    _require(0 <= beta < 1, f"beta from 0 to below 1, got {beta!r}")
    name = f"momentum(learning_rate={learning_rate!r}, beta={beta!r})"
    return Optimizer(name, _zeros, partial(_momentum, learning_rate, beta))


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not condition:
        raise StrategyError(f"expected {what}", at="momentum")


def _no_state(model: ParametersRecord) -> OptimizerState:
    del model
    return {}


def _replace(
    state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord
) -> tuple[OptimizerState, ParametersRecord]:
    del model
    return state, aggregate


def _zeros(model: ParametersRecord) -> OptimizerState:
    kinds = {name: _kind(np.dtype(array.dtype)) for name, array in model.items()}
    zeros = {name: np.zeros(model[name].shape, kind) for name, kind in kinds.items() if kind is not None}
    return {_MOMENTUM: ParametersRecord.from_numpy(zeros, copy=False)}


def _kind(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of the state of an array; None if it has none."""
    if dtype.kind == "c" or dtype == np.float64:
        return dtype
    return np.dtype(np.float32) if "float" in dtype.name else None


def _momentum(
    learning_rate: float, beta: float, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord
) -> tuple[OptimizerState, ParametersRecord]:
    velocity = state[_MOMENTUM]
    _check_layout(model, aggregate, velocity)
    moved: dict[str, NDArray[Any]] = {}
    models: dict[str, NDArray[Any]] = {}
    for name, array in aggregate.items():
        mean = flat(array)
        if name not in velocity:
            models[name] = mean.reshape(array.shape)
            continue
        last, before = flat(velocity[name]), flat(model[name])
        after, now = np.empty_like(mean), np.empty_like(last)
        for part in _blocks(mean.size):
            _step((learning_rate, beta), (last[part], before[part], mean[part]), (now[part], after[part]), name)
        moved[name], models[name] = now.reshape(array.shape), after.reshape(array.shape)
    states = {_MOMENTUM: ParametersRecord.from_numpy(moved, copy=False)}
    return states, ParametersRecord.from_numpy(models, copy=False)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _step(
    factors: tuple[float, float],
    given: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    out: tuple[NDArray[Any], NDArray[Any]],
    name: str,
) -> None:
    """Compute one block; every operation rounds by itself, in the dtype of the state."""
    rate, beta = factors
    (velocity, after), kind = out, out[0].dtype
    last, before, mean = (array.astype(kind, copy=False) for array in given)
    with np.errstate(all="ignore"):
        np.multiply(last, beta, out=velocity)
        np.add(velocity, before - mean, out=velocity)
        np.copyto(after, before - rate * velocity, casting="unsafe")
        finite = bool(np.isfinite(after).all())
    if not finite:
        raise AggregationError(
            "the next model is not finite; lower the learning rate or beta, or use replace() for a model that holds "
            "infinite numbers on purpose",
            at=f"array {name!r}",
        )


def _check_layout(model: ParametersRecord, aggregate: ParametersRecord, velocity: ParametersRecord) -> None:
    declared = _declared(model)
    kinds = {name: _kind(np.dtype(dtype)) for name, (dtype, _) in declared.items()}
    wanted = {name: (kind.name, declared[name][1]) for name, kind in kinds.items() if kind is not None}
    if _declared(aggregate) != declared or _declared(velocity) != wanted:
        raise AggregationError(
            "expected a model, an aggregate and a momentum of one layout; begin the state again with init(model)"
        )


def _declared(record: ParametersRecord) -> dict[str, tuple[str, list[int]]]:
    return {name: (array.dtype, array.shape) for name, array in record.items()}
