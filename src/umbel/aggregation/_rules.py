"""Rules that work element by element on the values of all updates: medians and means without the outermost.

A rule is given a block with a row for each update, which it may overwrite, and writes one row. Values are put in order
by a network, added from the smallest to the largest, and 0.0 is added at the end: so neither the order of the updates
nor the sign of a zero can be told from the result.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._network import ranks

Block: TypeAlias = NDArray[Any]


def middle(rows: Block, total: Block) -> None:
    """Write the median; of an even number of values the mean of the two in the middle."""
    count = len(rows)
    chosen = ranks(list(rows), np.empty_like(total), (count - 1) // 2, count // 2 + 1)
    _mean(chosen, total)


def inner_mean(share: float, rows: Block, total: Block) -> None:
    """Write the mean without the smallest and the largest, of each as many as the ``share`` of all, rounded down."""
    cut = int(share * len(rows))
    _mean(ranks(list(rows), np.empty_like(total), cut, len(rows) - cut), total)


def nearest_mean(count: int, rows: Block, total: Block) -> None:
    """Write the mean of the ``count`` values that are nearest to the median.

    In ascending order they stand together. They begin after those that are further from the median than what would take
    their place on the right, and counting these is enough, because the distance on the left only falls.
    """
    ordered = ranks(list(rows), np.empty_like(total), 0, len(rows))
    median, space = np.empty_like(total), np.empty_like(total)
    _mean([ordered[place] for place in range((len(rows) - 1) // 2, len(rows) // 2 + 1)], median)
    first = np.zeros(total.size, np.int16)
    for low, high in zip(ordered, ordered[count:], strict=False):
        first += np.subtract(median, low) > np.subtract(high, median, space)
    _mean(ordered, total, (first, count))


def _mean(rows: list[Block], total: Block, window: tuple[Block, int] | None = None) -> None:
    """Write the mean of the rows, or of the window in them, added up in their order.

    A sum that overflows is taken again of smaller numbers.
    """
    count = len(rows) if window is None else window[1]
    _sum(rows, total, window)
    np.divide(total, count, total)
    if not np.isfinite(total).all():
        small = np.array(2.0 ** -count.bit_length(), total.dtype)
        again = np.empty_like(total)
        _sum((row * small for row in rows), again, window)
        np.copyto(total, again / count / small, where=~np.isfinite(total))
    np.add(total, 0.0, total)


def _sum(rows: Iterable[Block], total: Block, window: tuple[Block, int] | None) -> None:
    total[...] = 0
    for place, row in enumerate(rows):
        if window is None:
            np.add(total, row, total)
        else:
            first, count = window
            np.add(total, row, total, where=(first <= place) & (place < first + count))
