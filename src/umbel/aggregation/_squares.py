"""Squares of the differences of two arrays, a sum for each part of them, the same on every machine, to the last bit.

NumPy subtracts, squares and adds, a pass through the cache for each. A compiled loop does the same to the same bits in
one, for float32 and float64 that lie in memory as they are.
"""

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, address, as_they_are

#: Elements whose squares make one sum: rows of as many as there are lanes, added row after row in the squares' dtype.
PART: Final = 2**14
_LANES: Final = 2**8
_BLOCK: Final = 16 * PART

# (sums, one array, the other, their size)
ARGUMENTS: Final = (ADDRESS, ADDRESS, ADDRESS, COUNT)
LOOPS: Final = _compiled.loops("squares", ARGUMENTS)
# (sums, some arrays, the others, where each ends, how many they are)
_EACH: Final = (ADDRESS, ADDRESS, ADDRESS, ADDRESS, COUNT)
LOOPS_OF_EACH: Final = _compiled.loops("each", _EACH)


def parts_of(size: int) -> int:
    """Return how many parts so many elements have."""
    return -(-size // PART)


def squares(ours: NDArray[Any], theirs: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return the sum of ``|ours - theirs|**2`` of each part of two flat arrays, with squares of ``dtype``.

    Nothing is said of numbers that are not finite, or whose squares are not.
    """
    if dtype in LOOPS and as_they_are(dtype, (ours, theirs)):
        found = np.empty(parts_of(ours.size))
        LOOPS[dtype](address(found), address(ours), address(theirs), ours.size)
        return found
    room = np.empty(min(ours.size, _BLOCK), dtype)
    starts = range(0, ours.size, _BLOCK)
    cuts = [slice(start, start + _BLOCK) for start in starts]
    return np.concatenate([np.empty(0), *(sums(_squared(ours[cut], theirs[cut], room)) for cut in cuts)])


def squares_of_each(
    ours: NDArray[Any], theirs: NDArray[Any], ends: NDArray[np.uintp], dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """Return the same of arrays of a part or less, which stand one after the other in two flat ones, up to ``ends``."""
    if dtype in LOOPS_OF_EACH and as_they_are(dtype, (ours, theirs)):
        found = np.empty(ends.size)
        LOOPS_OF_EACH[dtype](address(found), address(ours), address(theirs), address(ends), ends.size)
        return found
    cuts = [slice(start, end) for start, end in pairwise([0, *ends.tolist()])]
    return np.array([squares(ours[cut], theirs[cut], dtype).sum() for cut in cuts])


def _squared(ours: NDArray[Any], theirs: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    squares = room[: ours.size]
    if ours.dtype == squares.dtype:
        np.subtract(ours, theirs, out=squares)
    else:
        np.copyto(squares, ours, casting="unsafe")
        np.subtract(squares, theirs, out=squares, dtype=squares.dtype, casting="unsafe")
    np.multiply(squares, squares, out=squares)
    return squares


def sums(squares: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of each part of some squares as the compiled loop finds it."""
    whole = squares.size // PART * PART
    lanes = squares[:whole].reshape(-1, PART // _LANES, _LANES).sum(axis=1)
    if whole < squares.size:
        lanes = np.concatenate([lanes, [_lanes_of(squares[whole:])]])
    found: NDArray[np.float64] = lanes.astype(np.float64)
    while found.shape[1] > 1:
        half = found.shape[1] // 2
        found = found[:, :half] + found[:, half:]
    return found[:, 0]


def _lanes_of(squares: NDArray[Any]) -> NDArray[Any]:
    """Return the lanes of a part that is not a whole one."""
    rows, lanes = squares.size // _LANES * _LANES, np.zeros(_LANES, squares.dtype)
    if rows:
        squares[:rows].reshape(-1, _LANES).sum(axis=0, out=lanes)
    lanes[: squares.size - rows] += squares[rows:]
    return lanes
