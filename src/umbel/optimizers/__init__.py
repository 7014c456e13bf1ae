"""Server optimizers: how the aggregate of a round becomes the next model.

An optimizer is a pair of pure functions. State is parameter records by name, so it is saved like a model.

All but ``replace`` and ``across`` share one arithmetic. Floats of up to 32 bits are stepped in float32, float64 in
itself, complex numbers as their real and imaginary parts; every operation is an IEEE operation that rounds by itself,
so the same input gives the same bits everywhere. Each array keeps its dtype, its state the dtype of the step. Integers
and bools have no direction to step in: they are replaced by the aggregate. ``across`` averages as ``weighted_mean``
does, those too.
"""

from umbel.optimizers._adaptive import adagrad, adam, yogi
from umbel.optimizers._cohort import accumulate, dynamic, scaled
from umbel.optimizers._elementwise import elementwise
from umbel.optimizers._momentum import momentum, nesterov, sgd
from umbel.optimizers._optimizer import Cohort, Optimizer, OptimizerState, replace
from umbel.optimizers._tiers import across

__all__ = [
    "Cohort",
    "Optimizer",
    "OptimizerState",
    "accumulate",
    "across",
    "adagrad",
    "adam",
    "dynamic",
    "elementwise",
    "momentum",
    "nesterov",
    "replace",
    "scaled",
    "sgd",
    "yogi",
]
