"""64-bit integers, which float64 cannot hold: exact where it matters.

The mean is taken of the differences from the first update, ``x1 + sum(w*(x - x1)) / sum(w)``: differences are exact up
to 2**53 wherever the values lie, so equal values have themselves as their mean. For larger differences the error is at
most a few units in the 53rd bit of the largest. The sum is taken twice: modulo 2**64 in integers, which is exact, and
in float64, which tells whether it left the range.

Integers are mapped to unsigned ones in the same order (the sign bit flipped), in which all arithmetic wraps around.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SIGN: Final = np.uint64(2**63)
_ONE: Final = np.uint64(1)
# The largest float64 below 2**64.
_MOST: Final = 2.0**64 - 2.0**11


def keep_first(block: NDArray[Any], out: NDArray[Any]) -> None:
    """Keep the first update, from which the others are subtracted, in the result."""
    np.copyto(out, block)


def difference(block: NDArray[Any], first: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    """Return ``block - first`` in float64, rounded once.

    Halves are subtracted, which cannot overflow, and the lowest bits are put back.
    """
    if block.size == 1:  # a counter, such as BatchNorm's: the same steps on Python's integers, at a tenth of the cost
        ours, theirs = block.item(), first.item()
        room[0] = float((ours >> 1) - (theirs >> 1)) * 2.0 + ((ours & 1) - (theirs & 1))
        return room
    halves, bits = (block >> 1) - (first >> 1), (block & 1) - (first & 1)
    if block.dtype.kind == "u":
        halves, bits = halves.view(np.int64), bits.view(np.int64)
    np.multiply(halves, 2.0, out=room)
    np.add(room, bits, out=room)
    return room


def store_mean(dtype: np.dtype[Any], total: NDArray[Any], out: NDArray[Any], divisor: float, finite: bool) -> str:  # noqa: FBT001 - the signature of all kinds
    """Write ``first + total / divisor``, to nearest, half to even, clipped to the range of ``dtype``."""
    del finite
    if out.size == 1:
        _store_counter(np.iinfo(dtype), total, out, divisor)
        return ""
    first = _ordered(out)
    odd = first & _ONE
    # Rounding is to even numbers of the result, so an odd first number lends its last bit to what is rounded.
    shift = np.rint(total / divisor + odd)
    even = first - odd
    size = np.minimum(np.abs(shift), _MOST).astype(np.uint64)
    up = even + size
    down = even - size
    up[up < even] = np.uint64(2**64 - 1)
    down[down > even] = np.uint64(0)
    np.copyto(out, _unordered(np.where(shift < 0, down, up), dtype))
    return ""


def _store_counter(info: np.iinfo[Any], total: NDArray[Any], out: NDArray[Any], divisor: float) -> None:
    first = out.item()
    odd = first & 1
    shift = min(max(total.item() / divisor + odd, -_MOST), _MOST)
    out[0] = min(max(first - odd + round(shift), info.min), info.max)


def clear(block: NDArray[Any], out: NDArray[Any]) -> None:
    """Begin a sum."""
    del block
    out[...] = 0


def add_exactly(block: NDArray[Any], out: NDArray[Any], room: NDArray[Any]) -> NDArray[Any]:
    """Add to the sum modulo 2**64, and return the block in float64 for the sum that knows its size."""
    np.add(out, block, out=out)
    np.copyto(room, block, casting="unsafe")
    return room


def store_sum(dtype: np.dtype[Any], total: NDArray[Any], out: NDArray[Any], divisor: float, finite: bool) -> str:  # noqa: FBT001 - the signature of all kinds
    """Compare the two sums: they differ by a multiple of 2**64, and by 0 only if the sum is in range."""
    del divisor, finite
    outside = int(np.count_nonzero(np.abs(total - out) > 2.0**63))
    return f"{outside} elements of the sum are outside {dtype}; send a wider dtype" if outside else ""


def _ordered(block: NDArray[Any]) -> NDArray[np.uint64]:
    return block.view(np.uint64) ^ _SIGN if block.dtype.kind == "i" else block.view(np.uint64)


def _unordered(block: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (block ^ _SIGN if dtype.kind == "i" else block).view(dtype)
