"""Transforms that leave a model in place of a model, nearer to the one that was sent, or not quite where it was."""

from functools import partial
from math import inf, isfinite, sqrt
from typing import Final

import numpy as np

from umbel.aggregation import squared_distance
from umbel.aggregation._steps import arrive, difference
from umbel.errors import StrategyError, UpdateRejected
from umbel.records import ConfigsRecord, ParametersRecord
from umbel.transforms._pairs import Pair, changed, floats, require_alike
from umbel.transforms._transform import Transform

# Rounding may leave a scaled difference a little longer than the bound; then it is made this much shorter. With the
# last, nothing is left of it.
_SHORTER: Final = (0.0, *(2.0**-power for power in (22, 18, 14, 11, 9, 7, 5, 3, 1, 0)))


def clipped(norm: float) -> Transform:
    """Return the transform that scales an update's difference from the model down to an L2 norm of at most ``norm``.

    The norm is over all float and complex arrays together, as that of ``Gate(max_norm=norm)``, which lets pass what
    this leaves. An update that is near enough goes as it is. The server has nothing to undo, and cannot see that it
    was done: ask its gate for the same bound if nodes may be bad.

    Args:
        norm: the bound, above 0.

    Raises:
        StrategyError: for a bound that is not above 0.

    >>> clipped(1).name
    'clipped(1.0)'

    """
    return Transform(f"clipped({_positive('norm', norm)!r})", partial(_clip, float(norm)))


def _clip(
    bound: float, record: ParametersRecord, sent: ParametersRecord, _config: ConfigsRecord, _seed: int
) -> ParametersRecord:
    names = floats(sent)
    norm = _norm(record, sent)
    if norm <= bound:
        return record
    if not isfinite(norm):
        raise UpdateRejected(
            f"expected an update at a finite distance from the model, got {norm!r}", at="parameters_records.model"
        )
    made = record
    for shorter in _SHORTER:
        made = changed(record, sent, names, partial(_scale, bound / norm * (1 - shorter)))
        if _norm(made, sent) <= bound:
            break
    return made


def _norm(record: ParametersRecord, sent: ParametersRecord) -> float:
    require_alike(record, sent, floats(sent))
    return sqrt(squared_distance(sent, record))


def _scale(share: float, pair: Pair) -> None:
    step = difference(pair.came, pair.sent)
    np.multiply(step, share, out=step)
    arrive(step, pair.sent, pair.out)


def noisy(std: float) -> Transform:
    """Return the transform that adds Gaussian noise to an update's difference from the model.

    Every element of float and complex arrays gets noise of its own (complex ones two), drawn by NumPy from a seed
    that depends on the context's: a message that is handled again has the same noise, to the bit.

    **It claims no privacy budget.** Whoever knows the run's seed, as the server does, can draw the same noise and take
    it away again. It is for finding out what noise costs a model. The server has nothing to undo.

    Args:
        std: the standard deviation, above 0.

    Raises:
        StrategyError: for a deviation that is not above 0.

    >>> noisy(0.01).name
    'noisy(0.01)'

    """
    return Transform(f"noisy({_positive('std', std)!r})", partial(_add_noise, float(std)))


def _add_noise(
    std: float, record: ParametersRecord, sent: ParametersRecord, _config: ConfigsRecord, seed: int
) -> ParametersRecord:
    return changed(record, sent, floats(sent), partial(_shake, np.random.default_rng(seed), std))


def _shake(rng: np.random.Generator, std: float, pair: Pair) -> None:
    step = difference(pair.came, pair.sent)
    noise = rng.standard_normal(step.size)
    np.multiply(noise, std, out=noise)
    np.add(step, noise, out=step, casting="unsafe")
    arrive(step, pair.sent, pair.out)


def _positive(name: str, number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < inf:
        raise StrategyError(f"expected a number above 0 for {name}, got {number!r:.40}", at="transforms")
    return float(number)
