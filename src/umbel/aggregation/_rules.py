"""Rules that work element by element on the values of all updates: medians and means without the outermost.

A rule is given a block with a row for each update, which it may overwrite, and writes one row. Values are put in order
by a network, added from the smallest to the largest, and 0.0 is added at the end: so neither the order of the updates
nor the sign of a zero can be told from the result.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _wide
from umbel.aggregation._network import ranks

Block: TypeAlias = NDArray[Any]


def middle(rows: Block, total: Block) -> None:
    """Write the median; of an even number of values the mean of the two in the middle."""
    count = len(rows)
    chosen = ranks(list(rows), np.empty_like(total), (count - 1) // 2, count // 2 + 1)
    _mean(chosen, total)


def inner_mean(share: float, rows: Block, total: Block) -> None:
    """Write the mean without the smallest and the largest, of each as many as the ``share`` of all, rounded down."""
    cut = trimmed(share, len(rows))
    _mean(ranks(list(rows), np.empty_like(total), cut, len(rows) - cut), total)


def trimmed(share: float, count: int) -> int:
    """Return how many of ``count`` values are left out at each end; something is left of any number."""
    # 0.29 of 100 is 29, whatever the product of the two floats is.
    return min(int(round(share * count, 9)), (count - 1) // 2)


def nearest_mean(count: int, rows: Block, total: Block) -> None:
    """Write the mean of the ``count`` values that are nearest to the median.

    In ascending order they stand together. They begin after those that are further from the median than what would take
    their place on the right, and counting these is enough, because the distance on the left only falls.
    """
    ordered = ranks(list(rows), np.empty_like(total), 0, len(rows))
    median = np.empty_like(total)
    _mean([ordered[place] for place in range((len(rows) - 1) // 2, len(rows) // 2 + 1)], median)
    first = np.zeros(total.size, np.int16)
    for low, high in zip(ordered, ordered[count:], strict=False):
        first += _above(median, low) > _above(high, median)
    _mean(ordered, total, first, count)


def _above(high: Block, low: Block) -> Block:
    """Return ``high - low``, which is not negative: of 64-bit integers in unsigned ones, where it has room."""
    if high.dtype.kind == "i":
        high, low = high.view(np.uint64), low.view(np.uint64)
    return np.subtract(high, low)


def _mean(rows: list[Block], total: Block, first: Block | None = None, count: int = 0) -> None:
    """Write the mean of the rows, which ascend, added up in their order; with ``first``, of ``count`` from there on."""
    window = _Window(first, count or len(rows))
    if total.dtype.kind == "f":
        _mean_of_floats(rows, total, window)
        return
    # What is added up are differences from the middle, which are as exact as the values are near to it.
    np.copyto(total, rows[len(rows) // 2])
    room, apart = np.empty(total.shape), np.empty(total.shape)
    _sum((_wide.difference(row, total, room) for row in rows), apart, window)
    _wide.store_mean(total.dtype, apart, total, float(window.size), finite=True)


def _mean_of_floats(rows: list[Block], total: Block, window: "_Window") -> None:
    """Write the mean; where its sum overflows, that of smaller numbers."""
    _sum(rows, total, window)
    np.divide(total, window.size, total)
    if not np.isfinite(total).all():
        small = np.array(2.0 ** -window.size.bit_length(), total.dtype)
        again = np.empty_like(total)
        _sum((row * small for row in rows), again, window)
        np.copyto(total, again / window.size / small, where=~np.isfinite(total))
    np.add(total, 0.0, total)


class _Window(NamedTuple):
    """Which rows count in each column: all, or ``size`` of them from ``first`` on."""

    first: Block | None
    size: int


def _sum(rows: Iterable[Block], total: Block, window: _Window) -> None:
    total[...] = 0
    for place, row in enumerate(rows):
        if window.first is None:
            np.add(total, row, total)
        else:
            np.add(total, row, total, where=(window.first <= place) & (place < window.first + window.size))
