"""Which arithmetic an array gets: how its elements are read, accumulated and written, by dtype.

| dtype | accumulated in | mean | sum |
|---|---|---|---|
| float32 and every narrower float | float32 | written back to nearest even | the same |
| float64; complex64, complex128 | itself; its real and imaginary parts | written as they are | the same |
| integers of up to 32 bits | float64 | to nearest, half to even | exact |
| int64, uint64 | float64, as differences from the first update | to nearest, half to even | exact, modulo 2**64 |
| bool | float64 | true where more than half of the weight is | refused |

Every function works on one block. ``load`` returns a block in the dtype of the accumulator; ``store`` writes the
result and returns a reason if it cannot be right.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _wide
from umbel.aggregation._finite import count_not_finite
from umbel.errors import AggregationError

Block: TypeAlias = NDArray[Any]

# What a block holds, in bytes of the accumulator: small enough for accumulator and product to stay in the cache, large
# enough for memory to be read in long runs, each of which takes a while to get going.
_BLOCK_BYTES: Final = 2**20
_WIDE_BLOCK_BYTES: Final = 2**15
_PART: Final = 2**15  # elements

_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)


class Kind(NamedTuple):
    """The arithmetic of one dtype."""

    view: np.dtype[Any]  # the dtype that elements are taken as: parts of complex numbers one by one
    total: np.dtype[Any]  # the dtype of the accumulator
    in_place: bool  # the result is its own accumulator
    block: int  # in elements of the accumulator
    store: Callable[[Block, Block, float, bool], str]
    load: Callable[[Block, Block, Block], Block] | None = None
    begin: Callable[[Block, Block], None] | None = None


@lru_cache(maxsize=256)
def mean_of(dtype: np.dtype[Any]) -> Kind:
    """Return the arithmetic of the mean of ``dtype``."""
    if dtype.kind == "b":
        return _cast(dtype, _FLOAT64, _store_majority)
    if _is_wide(dtype):
        return _wide_kind(dtype, _wide.difference, _wide.keep_first, partial(_wide.store_mean, dtype))
    if _is_integer(dtype):
        return _cast(dtype, _FLOAT64, partial(_store_rounded, *_range(dtype)))
    return _float_kind(dtype, None)


@lru_cache(maxsize=256)
def sum_of(dtype: np.dtype[Any]) -> Kind:
    """Return the arithmetic of the sum of ``dtype``.

    Raises:
        AggregationError: for bool.

    """
    if dtype.kind == "b":
        raise AggregationError("expected numbers, got bool, which has no sum; send counts, for example as int64")
    if _is_wide(dtype):
        return _wide_kind(dtype, _wide.add_exactly, _wide.clear, partial(_wide.store_sum, dtype))
    if _is_integer(dtype):
        return _cast(dtype, _FLOAT64, partial(_store_exact, *_range(dtype)))
    narrow = dtype.kind != "c" and dtype.itemsize < _FLOAT32.itemsize
    return _float_kind(dtype, _largest(dtype) if narrow else None)


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")


def _is_wide(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize == _FLOAT64.itemsize


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return float(info.min), float(info.max)


def _largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _float_kind(dtype: np.dtype[Any], limit: float | None) -> Kind:
    real = np.empty(0, dtype).real.dtype if dtype.kind == "c" else dtype
    store = partial(_store_float, limit)
    if real in (_FLOAT32, _FLOAT64):
        return Kind(real, real, in_place=True, block=_BLOCK_BYTES // real.itemsize, store=store)
    return _cast(dtype, _FLOAT32, store)


def _cast(dtype: np.dtype[Any], total: np.dtype[Any], store: Callable[[Block, Block, float, bool], str]) -> Kind:
    return Kind(dtype, total, in_place=False, block=_BLOCK_BYTES // total.itemsize, store=store, load=_load_cast)


def _wide_kind(
    dtype: np.dtype[Any],
    load: Callable[[Block, Block, Block], Block],
    begin: Callable[[Block, Block], None],
    store: Callable[[Block, Block, float, bool], str],
) -> Kind:
    block = _WIDE_BLOCK_BYTES // _FLOAT64.itemsize
    return Kind(dtype, _FLOAT64, in_place=False, block=block, store=store, load=load, begin=begin)


def _load_cast(block: Block, out: Block, room: Block) -> Block:
    del out
    np.copyto(room, block, casting="unsafe")
    return room


def _store_float(limit: float | None, total: Block, out: Block, divisor: float, finite: bool) -> str:  # noqa: FBT001 - one signature for all
    """Divide, and say so if numbers left the range. ``limit`` is the largest number of a dtype narrower than float32.

    Every part is divided, checked and written while it is in the innermost cache.
    """
    scale = None if divisor == 1.0 else np.array(divisor, total.dtype)
    lost = 0
    for start in range(0, total.size, _PART):
        part = slice(start, start + _PART)
        lost += _store_part(limit, total[part], None if out is total else out[part], scale, finite)
    return loss(lost, out.dtype)


def loss(lost: int, dtype: np.dtype[Any]) -> str:
    """Return what is said of a result of which so many elements left the range; nothing if none did."""
    advice = "send a wider dtype, and refuse updates that are not finite (Gate(finite=True))"
    return f"{lost} elements of the result are NaN, infinite or outside {dtype}; {advice}" if lost else ""


def _store_part(limit: float | None, total: Block, out: Block | None, divisor: Block | None, finite: bool) -> int:  # noqa: FBT001 - likewise
    """Return how many numbers left the range.

    A mean lies between the smallest and the largest update, so only a sum needs the limit.
    """
    expected = 0 if finite else count_not_finite(total)
    if divisor is not None:
        np.divide(total, divisor, total)
    lost = count_not_finite(total) - expected
    if limit is not None and not lost:
        lost = int(np.count_nonzero(np.isfinite(total) & (np.abs(total) > limit)))
    if out is not None:
        np.copyto(out, total, casting="unsafe")
    return lost


def _store_rounded(low: float, high: float, total: Block, out: Block, divisor: float, finite: bool) -> str:  # noqa: FBT001 - likewise
    del finite
    np.divide(total, divisor, out=total)
    np.rint(total, out=total)
    np.clip(total, low, high, out=total)
    np.copyto(out, total, casting="unsafe")
    return ""


def _store_exact(low: float, high: float, total: Block, out: Block, divisor: float, finite: bool) -> str:  # noqa: FBT001 - likewise
    del divisor, finite
    outside = int(np.count_nonzero((total < low) | (total > high)))
    np.copyto(out, total, casting="unsafe")
    return f"{outside} elements of the sum are outside {out.dtype}; send a wider dtype" if outside else ""


def _store_majority(total: Block, out: Block, divisor: float, finite: bool) -> str:  # noqa: FBT001 - likewise
    del finite
    np.greater(total, divisor / 2, out=out)
    return ""
