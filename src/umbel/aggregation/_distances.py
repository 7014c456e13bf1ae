"""Distances between all updates of a round: one pass over memory and a matrix product, to the same bits anywhere.

A matrix product adds in an order that depends on the library, its threads and the processor. So that no bit can, what
goes into it is rounded first, such that every product and every sum in it is exact: of the differences from the model,
in runs of 512 elements, each is taken to 22 binary digits of the largest in its run. A product has 44 digits then, and
a sum of 512 of them 53, which is what float64 holds. The rest is elementwise arithmetic in a fixed order.

So each distance is that of points within ``2**-23`` times the largest of a run, in every element, of where the updates
are; in proportion to how far these are from the model, the error is under 3e-6, and usually near 1e-7.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import mean_of
from umbel.aggregation._layout import slots
from umbel.aggregation._stacked import Block, Place, columns_for, stacked
from umbel.aggregation._update import Update
from umbel.records import ParametersRecord

Matrix = NDArray[np.float64]

_RUN: Final = 512
_DIGITS: Final = 22
# Products of numbers between these neither overflow nor lose digits at the small end.
_LEAST: Final = 2.0**-480
_MOST: Final = 2.0**480


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


def distances(template: ParametersRecord, updates: Sequence[Update]) -> Distances:
    """Return the distances of updates, which fit the template, from its values and from each other.

    Raises:
        AggregationError: if an update does not fit the template.

    """
    count = len(updates)
    found = Distances(np.zeros(count), np.zeros((count, count)))
    lost = np.zeros(count, bool)
    floats = [slot for slot in slots(template) if slot.kind.kind in "fc" or "float" in slot.kind.name]
    places = [Place(slot, mean_of(slot.kind)) for slot in floats]
    columns = columns_for(count, _RUN)
    with np.errstate(all="ignore"):
        for rows, _ in stacked(places, [Update("", 1.0, template), *updates], columns):
            runs = _in_runs(rows[1:] - rows[0])
            largest = np.abs(runs).max(axis=2).astype(np.float64)
            lost |= ~(largest < _MOST).all(axis=1)
            _add(_rounded(runs, largest, lost), found)
    found.model[lost] = np.inf
    found.others[lost] = found.others[:, lost] = np.inf
    np.fill_diagonal(found.others, 0.0)
    return found


def _in_runs(moved: Block) -> Block:
    """Return the columns in runs of 512, filled up with zeros."""
    count, size = moved.shape
    rest = -size % _RUN
    whole = np.pad(moved, ((0, 0), (0, rest))) if rest else moved
    return whole.reshape(count, -1, _RUN)


def _rounded(runs: Block, largest: Block, lost: NDArray[np.bool_]) -> Matrix:
    """Return the elements to 22 binary digits of the largest of their run, by adding a number whose last digit that is.

    A run below the least, or of an update that is lost, becomes zero.
    """
    largest = np.where(lost[:, None] | ~(largest > _LEAST), 0.0, largest)
    exponents = np.frexp(largest)[1]
    coarse = np.ldexp(1.5, exponents + (52 - _DIGITS))[:, :, None]
    rounded: Matrix = np.add(runs, coarse, dtype=np.float64)
    np.subtract(rounded, coarse, out=rounded)
    rounded[largest == 0] = 0.0
    return rounded


def _add(rounded: Matrix, found: Distances) -> None:
    """Add the squared distances within each run, one run after the other."""
    for run in rounded.transpose(1, 0, 2):
        product = np.matmul(run, run.T)
        squares = np.diagonal(product)
        found.model[...] += squares
        apart = squares[:, None] + squares
        product *= 2.0
        np.subtract(apart, product, out=apart)
        np.maximum(apart, 0.0, out=apart)
        found.others[...] += apart
