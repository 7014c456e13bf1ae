"""Distances between records, the same on every machine, to the last bit.

NumPy subtracts, squares and adds, a pass through the cache for each. A compiled loop does the same to the same bits in
one, for float32 and float64 that lie in memory as they are; the rest, and what is done again in float64, is NumPy's.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import fsum, inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, address, as_they_are
from umbel.aggregation._layout import flat
from umbel.aggregation._stacked import Place, floats_of, quarters
from umbel.aggregation._turns import in_turns
from umbel.errors import AggregationError
from umbel.records import ParametersRecord

_BLOCK: Final = 2**18  # elements: threads wait for one another between the steps of a block, so these are long
_LANES: Final = 2**12
# Squares in float32 may have gone under where their sum is below it.
_LEAST: Final = 1e-20

# (lanes, one array, the other, their size)
ARGUMENTS: Final = (ADDRESS, ADDRESS, ADDRESS, COUNT)
LOOPS: Final = _compiled.loops("squares", ARGUMENTS)


def squared_distance(one: ParametersRecord, other: ParametersRecord, threads: int | None = None) -> float:
    """Return the squared Euclidean distance over all float and complex arrays together; others count nothing.

    Both records have the same names, dtypes and shapes. At most ``threads`` work on large ones, None for as many as
    there are cores.

    Squares are added into lanes in a fixed order and the lanes by ``fsum``, which rounds once: the same bits anywhere.
    Where no array is wider than float32, differences, squares and up to 64 of them in a row are float32: the result is
    within 4e-6 of itself, and usually 1e-8. What that is too narrow for is done again in float64.

    Raises:
        AggregationError: for arrays of two sizes.
        RecordError: for a payload that cannot be decoded.

    >>> one = ParametersRecord.from_numpy({"w": np.array([1.0, 2.0]), "n": np.array([3])})
    >>> other = ParametersRecord.from_numpy({"w": np.array([4.0, 6.0]), "n": np.array([5])})
    >>> squared_distance(one, other)
    25.0

    """
    places = floats_of(one)
    parts = quarters(places)
    found = _total(parts, one, other, threads, np.dtype(np.float32))
    if _LEAST <= found < inf or all(place.kind.total == np.float64 for place in places):
        return found
    return _total(parts, one, other, threads, np.dtype(np.float64))


def _total(
    parts: Sequence[Sequence[Place]],
    one: ParametersRecord,
    other: ParametersRecord,
    threads: int | None,
    least: np.dtype[Any],
) -> float:
    lanes = in_turns([partial(_within, part, one, other, least) for part in parts], threads)
    try:
        return fsum(chain.from_iterable(each.tolist() for each in lanes))
    except OverflowError:  # finite numbers whose sum is not
        return inf


def _within(
    places: Sequence[Place], one: ParametersRecord, other: ParametersRecord, least: np.dtype[Any]
) -> NDArray[np.float64]:
    """Return the sums of |x - t|**2 of some of the arrays, of every 4096th element each."""
    lanes, room = np.zeros(_LANES), np.empty(_BLOCK)
    with np.errstate(all="ignore"):
        for place in places:
            ours, theirs = _both(place, one, other)
            dtype = np.promote_types(place.kind.total, least)
            if dtype in LOOPS and as_they_are(dtype, (ours, theirs)):
                LOOPS[dtype](address(lanes), address(ours), address(theirs), ours.size)
            else:
                _by_numpy(ours, theirs, room.view(dtype), lanes)
    return lanes


def _both(place: Place, one: ParametersRecord, other: ParametersRecord) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is meant of an array, in both records."""
    ours, theirs = (flat(record[place.slot.name]).view(place.kind.view) for record in (one, other))
    if ours.size != theirs.size:
        message = f"expected as many numbers in both records, got {ours.size} and {theirs.size}"
        raise AggregationError(message, at=f"array {place.slot.name!r}")
    return ours[place.part], theirs[place.part]


def _by_numpy(ours: NDArray[Any], theirs: NDArray[Any], room: NDArray[Any], lanes: NDArray[np.float64]) -> None:
    """Add squares to the lanes as the compiled loop does, to the same bits, in the dtype of the room."""
    for at in range(0, ours.size, _BLOCK):
        part = slice(at, at + _BLOCK)
        _add(_squared(ours[part], theirs[part], room), lanes)


def _squared(ours: NDArray[Any], theirs: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    squares = room[: ours.size]
    if ours.dtype == squares.dtype:
        np.subtract(ours, theirs, out=squares)
    else:
        np.copyto(squares, ours, casting="unsafe")
        np.subtract(squares, theirs, out=squares, dtype=squares.dtype, casting="unsafe")
    np.multiply(squares, squares, out=squares)
    return squares


def _add(squares: NDArray[Any], lanes: NDArray[np.float64]) -> None:
    whole = squares.size // _LANES * _LANES
    if whole:
        lanes += squares[:whole].reshape(-1, _LANES).sum(axis=0)
    lanes[: squares.size - whole] += squares[whole:]
