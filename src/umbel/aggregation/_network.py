"""Order statistics of blocks, element by element, by a network of minima and maxima.

A network compares whole blocks in an order that does not depend on the data, so every machine does the same and uses
its vector instructions; `np.sort` would go through one short column after the other. Networks are Batcher's odd-even
merges (Knuth, volume 3, 5.2.2), of which only what the wanted ranks depend on is run.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Block: TypeAlias = NDArray[Any]
# Two places, and whether the smaller element is wanted at the first, the larger at the second.
_Comparison: TypeAlias = tuple[int, int, bool, bool]


def ranks(blocks: list[Block], spare: Block, low: int, high: int) -> list[Block]:
    """Return the elements of ranks ``low`` to below ``high``, each a block; all blocks and ``spare`` are overwritten.

    None of the elements may be NaN. Which of two zeros comes first is not defined.
    """
    places = blocks.copy()
    minimum, maximum = np.minimum, np.maximum
    for one, other, smaller, larger in _network(len(blocks), low, high):
        a, b = places[one], places[other]
        if smaller and larger:
            minimum(a, b, out=spare)
            maximum(a, b, out=b)
            places[one], spare = spare, a
        elif smaller:
            minimum(a, b, out=a)
        else:
            maximum(a, b, out=b)
    return places[low:high]


@lru_cache(maxsize=64)
def _network(size: int, low: int, high: int) -> tuple[_Comparison, ...]:
    """Return the comparisons that put the ranks ``low`` to below ``high`` of ``size`` elements in their places."""
    wanted = set(range(low, high))
    kept: list[_Comparison] = []
    for one, other in reversed(_merges(size)):
        smaller, larger = one in wanted, other in wanted
        if smaller or larger:
            kept.append((one, other, smaller, larger))
            wanted |= {one, other}
    return tuple(reversed(kept))


def _merges(size: int) -> list[tuple[int, int]]:
    pairs = []
    length = 1  # of the sorted runs that are merged two by two
    while length < size:
        step = length
        while step:
            for start in range(step % length, size - step, 2 * step):
                ends = range(start, min(start + step, size - step))
                pairs += [(i, i + step) for i in ends if i // (2 * length) == (i + step) // (2 * length)]
            step //= 2
        length *= 2
    return pairs
