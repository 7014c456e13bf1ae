"""Companions: records that a round trains beside the model, and what the parts of a strategy are called."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from umbel.aggregation import Aggregator, flat
from umbel.gate import Gate
from umbel.optimizers import Optimizer
from umbel.records import ParametersRecord
from umbel.records._arena import allocate


class Companion(NamedTuple):
    """A parameters record that goes with the model, and the parts that train it.

    Every train instruction carries it under ``name``, and so must every reply, with the same names, dtypes and shapes:
    what is in the reply is an update of the record as the trained model is one of the model. ``init(model)`` makes the
    first one. An update counts only if the gates of the model and of all companions let it pass.
    """

    name: str
    init: Callable[[ParametersRecord], ParametersRecord]
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate = Gate()

    def describe(self) -> str:
        """Return the names of the parts."""
        return (
            f"{self.name}: {function_name(self.init)}, {aggregator_name(self.aggregator)}, {self.optimizer.name}, "
            f"{self.gate!r}"
        )


def zeros_of_floats(model: ParametersRecord) -> ParametersRecord:
    """Return zeros for every float and complex array of ``model``, in its dtype."""
    kinds = {name: flat(array).dtype for name, array in model.items()}
    floats = {name: kind for name, kind in kinds.items() if kind.kind in "fc" or "float" in kind.name}
    rooms = allocate((kind, prod(model[name].shape)) for name, kind in floats.items())
    for room in rooms:
        room.view(np.uint8).fill(0)
    arrays = {name: room.reshape(model[name].shape) for name, room in zip(floats, rooms, strict=True)}
    return ParametersRecord.from_numpy(arrays, copy=False)


def function_name(function: Callable[..., Any]) -> str:
    """Return what a part that is a function is called; with what is bound to it; any other callable, its class."""
    if isinstance(function, partial):
        arguments = [repr(value) for value in function.args]
        arguments += [f"{name}={value!r}" for name, value in function.keywords.items()]
        return f"{function_name(function.func)}({', '.join(arguments)})"
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def aggregator_name(aggregator: Aggregator) -> str:
    """Return what an aggregator is called, with its weights."""
    return f"{aggregator.name} by {function_name(aggregator.weigh)}"
