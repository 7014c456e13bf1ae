"""Distances between records, the same on every machine, to the last bit."""

from collections.abc import Iterable, Iterator
from math import fsum, inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._layout import flat
from umbel.records import ParametersRecord

_BLOCK: Final = 2**16  # elements
_LANES: Final = 2**12


def squared_distance(one: ParametersRecord, other: ParametersRecord) -> float:
    """Return the squared Euclidean distance over all float and complex arrays together; others count nothing.

    Both records have the same names, dtypes and shapes. Raises ``RecordError`` for a payload that cannot be decoded.

    >>> one = ParametersRecord.from_numpy({"w": np.array([1.0, 2.0]), "n": np.array([3])})
    >>> other = ParametersRecord.from_numpy({"w": np.array([4.0, 6.0]), "n": np.array([5])})
    >>> squared_distance(one, other)
    25.0

    """
    with np.errstate(all="ignore"):
        return _sum(_between(flat(array), flat(other[name])) for name, array in one.items())


def _between(elements: NDArray[Any], template: NDArray[Any]) -> float:
    """Return the sum of |x - t|**2 of one array of floats or complex numbers, 0 for others.

    Squares are added into lanes in a fixed order and the lanes by ``fsum``, which rounds once: the same bits anywhere.
    """
    if elements.dtype.kind not in "fc" and "float" not in elements.dtype.name:
        return 0.0
    kind = np.complex128 if elements.dtype.kind == "c" else np.float64
    lanes = np.zeros(_LANES)
    for ours, theirs in zip(_blocks(elements), _blocks(template), strict=True):
        difference = (ours.astype(kind) - theirs.astype(kind)).view(np.float64)
        np.multiply(difference, difference, out=difference)
        whole = difference.size // _LANES * _LANES
        lanes += difference[:whole].reshape(-1, _LANES).sum(axis=0)
        lanes[: difference.size - whole] += difference[whole:]
    return _sum(lanes.tolist())


def _sum(numbers: Iterable[float]) -> float:
    try:
        return fsum(numbers)
    except OverflowError:  # finite numbers whose sum is not
        return inf


def _blocks(elements: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (elements[start : start + _BLOCK] for start in range(0, elements.size, _BLOCK))
