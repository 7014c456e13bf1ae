"""Counting NaN and infinite elements, at the price of one dot product where there are none."""

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_not_finite(block: NDArray[Any]) -> int:
    """Return how many elements of a block of float32 or float64 are NaN or infinite.

    A sum of squares is finite only if every element is. It may overflow without that, so it clears a block and never
    convicts one.
    """
    return 0 if isfinite(block.dot(block)) else int(block.size - np.count_nonzero(np.isfinite(block)))
