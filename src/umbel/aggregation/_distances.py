"""Distances between all updates of a round: one pass over memory and a matrix product, to the same bits anywhere.

A matrix product adds in an order that depends on the library, its threads and the processor. So that no bit can, what
goes into it is rounded first, such that every product and every sum in it is exact: of the differences from the model,
in runs of 2048 elements, each is taken to 21 binary digits of the largest in its run. A product has 42 digits then, and
a sum of 2048 of them 53, which is what float64 holds. The rest is elementwise arithmetic in a fixed order.

So each distance is that of points within ``2**-21`` times the largest of a run, in every element, of where the updates
are; in proportion to how far these are from the model, the error is under 2.2e-5, and usually near 1e-7.

A compiled loop does the same to the same bits, rounding and products at once, while what it reads is in the cache. It
forms only half of the matrix, which is symmetric.

A large record is cut in four, wherever it is worked on. The sums of its parts are added in their order, so it does not
matter how many threads there are.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, address, addresses
from umbel.aggregation._stacked import Block, Place, columns_for, floats_of, quarters, rows_of, stacked
from umbel.aggregation._turns import in_turns
from umbel.aggregation._update import Update
from umbel.records import ParametersRecord

Matrix = NDArray[np.float64]

_RUN: Final = 2048
_TOGETHER: Final = 2**18  # elements that are there in float64 at a time
_DIGITS: Final = 21
# Products of numbers between these neither overflow nor lose digits at the small end.
_LEAST: Final = 2.0**-480
_MOST: Final = 2.0**480
# What is below it can be rounded in float32.
_SINGLE: Final = 2.0**125
# Work of a product that BLAS does in the thread that asks: others would wait for one another longer than they work.
_PRODUCT: Final = 5 * 2**16
_SIDE: Final = 64

# (squares from the model, halves from each other, lost, room, addresses, updates, size)
ARGUMENTS: Final = (ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, COUNT, COUNT)
LOOPS: Final = _compiled.loops("apart", ARGUMENTS)


class Distances(NamedTuple):
    """Squared distances of ``count`` updates from the model, (count,), and from each other, (count, count).

    All float and complex arrays of a record count together; others count nothing. An update with an element that is
    not finite, or beyond 2**480, is infinitely far from everything but itself.
    """

    model: Matrix
    others: Matrix

    @property
    def alive(self) -> list[int]:
        """The updates that are somewhere."""
        return [int(place) for place in np.flatnonzero(np.isfinite(self.model))]


def distances(template: ParametersRecord, updates: Sequence[Update], threads: int | None = None) -> Distances:
    """Return the distances of updates, which fit the template, from its values and from each other.

    At most ``threads`` work on large records, None for as many as there are cores.

    Raises:
        AggregationError: if an update does not fit the template.

    """
    whole = [Update("", 1.0, template), *updates]
    found = in_turns([partial(_within, part, whole) for part in quarters(floats_of(template))], threads)
    halves = np.tril(reduce(np.add, [each.others for each in found]), -1)
    return Distances(reduce(np.add, [each.model for each in found]), 2 * np.maximum(halves + halves.T, 0.0))


def _within(places: Sequence[Place], updates: Sequence[Update]) -> Distances:
    """Return the distances within some of the arrays, those of two updates halved and below the diagonal alone."""
    count = len(updates) - 1
    found = Distances(np.zeros(count), np.zeros((count, count)))
    lost = np.zeros(count, bool)
    (_looped if LOOPS else _by_numpy)(places, updates, found, lost)
    found.model[lost] = np.inf
    found.others[lost] = found.others[:, lost] = np.inf
    return found


def _looped(places: Sequence[Place], updates: Sequence[Update], found: Distances, lost: NDArray[np.bool_]) -> None:
    """Add the distances within some of the arrays, and say which updates are lost, by the compiled loop."""
    count = len(lost)
    room = np.empty(count * (_RUN + count))
    results = [address(array) for array in (found.model, found.others, lost, room)]
    for rows in rows_of(places, updates, columns_for(count, _RUN)):
        LOOPS[rows[0].dtype](*results, addresses(rows), count, rows[0].size)


def _by_numpy(places: Sequence[Place], updates: Sequence[Update], found: Distances, lost: NDArray[np.bool_]) -> None:
    """Do what ``_looped`` does, to the same bits."""
    count = len(lost)
    step = max(1, _TOGETHER // (max(1, count) * _RUN))
    with np.errstate(all="ignore"):
        for rows, _ in stacked(places, updates, columns_for(count, _RUN)):
            runs = _in_runs(np.subtract(rows[1:], rows[0], out=rows[1:]))
            largest = np.maximum(runs.max(axis=2), -runs.min(axis=2)).astype(np.float64)
            lost |= ~(largest < _MOST).all(axis=1)
            rounded = _rounded(runs, np.where(lost[:, None] | ~(largest > _LEAST), 0.0, largest))
            for start in range(0, rounded.shape[1], step):
                _add(rounded[:, start : start + step].astype(np.float64, copy=False), found)


def _in_runs(moved: Block) -> Block:
    """Return the columns in runs of 2048, filled up with zeros."""
    count, size = moved.shape
    rest = -size % _RUN
    whole = np.pad(moved, ((0, 0), (0, rest))) if rest else moved
    return whole.reshape(count, -1, _RUN)


def _rounded(runs: Block, largest: Matrix) -> Block:
    """Return the elements to 21 binary digits of the largest of their run, by adding a number whose last digit that is.

    A run whose largest is 0 becomes zero. The runs are overwritten.
    """
    if (largest >= _SINGLE).any():
        runs = runs.astype(np.float64, copy=False)
    kind = np.finfo(runs.dtype)
    coarse = np.ldexp(kind.dtype.type(1.5), np.frexp(largest)[1] + (kind.nmant - _DIGITS))[:, :, None]
    runs += coarse
    runs -= coarse
    runs[largest == 0] = 0.0
    return runs


def _add(rounded: Matrix, found: Distances) -> None:
    """Add squares of lengths, and below the diagonal half of those of distances, one run after the other."""
    groups, part = _cut(len(rounded))
    parts = rounded.reshape(len(rounded), -1, part).transpose(1, 0, 2)
    halves = np.empty((rounded.shape[1], len(rounded)))
    for place, one in enumerate(groups):
        for other in (one, *groups[:place]):
            products = np.matmul(parts[:, one], parts[:, other].transpose(0, 2, 1))
            products = products.reshape(-1, _RUN // part, *products.shape[1:]).sum(axis=1)
            if one is other:
                halves[:, one] = np.diagonal(products, axis1=1, axis2=2) / 2
            apart = halves[:, one, None] + halves[:, None, other]
            for run in np.subtract(apart, products, out=apart):
                found.others[one, other] += run
    for squares in 2 * halves:
        found.model[...] += squares


def _cut(count: int) -> tuple[list[slice], int]:
    """Return groups of updates, and what part of a run a product of two groups has."""
    side = -(-count // -(-count // _SIDE))
    part = next(part for part in (_RUN, 1024, 512, 256, 128, 64) if side * side * part <= _PRODUCT)
    return [slice(start, start + side) for start in range(0, count, side)], part
