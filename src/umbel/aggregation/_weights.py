"""Weights on a running scale of powers of two, so that a sum never overflows where the mean does not.

The mean is ``sum(w*x) / sum(w)``. Its numerator can leave the range of float32 although the mean is far inside it. So
every weight is multiplied by a power of two, 2**-exponent, that keeps the sum of the weights at 1/2 or below; when a
new weight would break that, the exponent grows and the accumulator is multiplied by the difference. Powers of two
change no mantissa, so the bits are those of the plain formula wherever that neither overflows nor underflows. The
exponents follow from the weights alone, one after the other: not from the data, nor from how updates are batched.

The first update of all is kept as it came, and gets its weight when the second comes. A mean of one is that one, bit
for bit.
"""

from collections.abc import Sequence
from math import frexp, isfinite, ldexp
from typing import Final, NamedTuple

from umbel.errors import AggregationError

# Room for the sum to grow by 2**4 before the accumulator is touched again.
_ROOM: Final = 4


class Scale(NamedTuple):
    """How many updates are in the accumulator, the sum of their weights, and the exponent that both are scaled by."""

    added: int = 0
    total: float = 0.0
    exponent: int = 0

    @property
    def divisor(self) -> float:
        """What to divide the accumulator by: the scaled sum of the weights, or 1 for a single update."""
        return ldexp(self.total, -self.exponent) if self.added > 1 else 1.0


class Step(NamedTuple):
    """Multiply the accumulator by ``rescale``, then add the update times ``weight``; None is no multiplication."""

    rescale: float | None = None
    weight: float | None = None


def plan(scale: Scale, weights: Sequence[float]) -> tuple[Scale, list[Step]]:
    """Return the scale after some more updates, and the step of each.

    Raises:
        AggregationError: if the sum of the weights is out of the range of float64.

    """
    steps = []
    for weight in weights:
        scale, step = _next(scale, weight)
        steps.append(step)
    return scale, steps


def plain(scale: Scale, weights: Sequence[float]) -> tuple[Scale, list[Step]]:
    """Return the same for a sum without weights."""
    return Scale(scale.added + len(weights), 1.0), [Step()] * len(weights)


def _next(scale: Scale, weight: float) -> tuple[Scale, Step]:
    if scale.added == 0:
        return Scale(1, float(weight), 0), Step()
    total = scale.total + weight
    if not isfinite(total):
        raise AggregationError(f"expected a finite sum of weights, got {total} with a weight of {weight!r}")
    needed = frexp(total)[1] + 1
    if scale.added == 1:
        exponent = needed + _ROOM
        rescale: float | None = ldexp(scale.total, -exponent)
    elif needed > scale.exponent:
        exponent = needed + _ROOM
        rescale = ldexp(1.0, scale.exponent - exponent)
    else:
        exponent, rescale = scale.exponent, None
    return Scale(scale.added + 1, total, exponent), Step(rescale, ldexp(weight, -exponent))
