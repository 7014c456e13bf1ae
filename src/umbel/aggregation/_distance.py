"""Distances between records, the same on every machine, to the last bit."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from math import fsum, inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._layout import flat
from umbel.aggregation._squares import PART, squares
from umbel.aggregation._stacked import Place, floats_of
from umbel.aggregation._turns import in_turns
from umbel.errors import AggregationError
from umbel.records import ParametersRecord

# Elements of an array that one thread takes, and in how many shares they are dealt out.
_PIECE: Final = 64 * PART
_SHARES: Final = 4
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)
# Squares in float32 may have gone under where their sum is below it.
_LEAST: Final = 1e-20


def squared_distance(one: ParametersRecord, other: ParametersRecord, threads: int | None = None) -> float:
    """Return the squared Euclidean distance over all float and complex arrays together; others count nothing.

    Both records have the same names, dtypes and shapes. At most ``threads`` work on large ones, None for as many as
    there are cores.

    Squares are added part by part, in a fixed order, and the parts by ``fsum``, which rounds once: the same bits
    anywhere. Where no array is wider than float32, differences, squares and up to 64 of them in a row are float32: the
    result is within 4e-6 of itself, and usually 1e-8. What that is too narrow for is done again in float64.

    Raises:
        AggregationError: for arrays of two sizes.
        RecordError: for a payload that cannot be decoded.

    >>> one = ParametersRecord.from_numpy({"w": np.array([1.0, 2.0]), "n": np.array([3])})
    >>> other = ParametersRecord.from_numpy({"w": np.array([4.0, 6.0]), "n": np.array([5])})
    >>> squared_distance(one, other)
    25.0

    """
    places = floats_of(one)
    shares = _shares(places)
    found = _total(shares, one, other, threads, _FLOAT32)
    return found if _is_certain(found, places) else _total(shares, one, other, threads, _FLOAT64)


def distances_of(
    one: ParametersRecord, others: Sequence[ParametersRecord], found: Sequence[NDArray[np.float64]]
) -> list[float]:
    """Return what ``squared_distance`` does of each of others, from the sums of squares that were ``found`` already.

    Each has a row for each of the others, with the sums of some parts of an array; all together have all parts.
    """
    places = floats_of(one)
    distances = [_together(rows) for rows in zip(*found, strict=True)] or [0.0] * len(others)
    return [
        distance if _is_certain(distance, places) else squared_distance(one, other)
        for distance, other in zip(distances, others, strict=True)
    ]


def _is_certain(found: float, places: Iterable[Place]) -> bool:
    """Say whether a squared distance that was found in float32, where that is the dtype of the sums, is good enough."""
    return _LEAST <= found < inf or all(place.kind.total == _FLOAT64 for place in places)


def _together(found: Iterable[NDArray[np.float64]]) -> float:
    """Return the sum of the parts of all arrays, whose order does not matter."""
    try:
        return fsum(chain.from_iterable(each.tolist() for each in found))
    except OverflowError:  # finite numbers whose sum is not
        return inf


def _shares(places: Sequence[Place]) -> list[list[Place]]:
    """Return all pieces in a few shares of about one size, or in one if there is little."""
    size = sum(place.size for place in places)
    if size < _PIECE:
        return [list(places)]
    shares: list[list[Place]] = [[] for _ in range(_SHARES)]
    before = 0
    for place in places:
        for start in range(0, max(1, place.size), _PIECE):
            part = slice(start, min(place.size, start + _PIECE))
            shares[min(_SHARES * before // size, _SHARES - 1)].append(place._replace(part=part))
            before += part.stop - part.start
    return shares


def _total(
    shares: Sequence[Sequence[Place]],
    one: ParametersRecord,
    other: ParametersRecord,
    threads: int | None,
    least: np.dtype[Any],
) -> float:
    return _together(chain(*in_turns([partial(_within, share, one, other, least) for share in shares], threads)))


def _within(
    places: Sequence[Place], one: ParametersRecord, other: ParametersRecord, least: np.dtype[Any]
) -> list[NDArray[np.float64]]:
    """Return the sums of the squares of some pieces, part by part."""
    with np.errstate(all="ignore"):
        return [squares(*_both(place, one, other), np.promote_types(place.kind.total, least)) for place in places]


def _both(place: Place, one: ParametersRecord, other: ParametersRecord) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is meant of an array, in both records."""
    ours, theirs = (flat(record[place.slot.name]).view(place.kind.view) for record in (one, other))
    if ours.size != theirs.size:
        message = f"expected as many numbers in both records, got {ours.size} and {theirs.size}"
        raise AggregationError(message, at=f"array {place.slot.name!r}")
    return ours[place.part], theirs[place.part]
