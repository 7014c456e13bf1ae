"""Statistics of one array of any dtype, a block at a time: memory does not grow with the array."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements in a block: 256 KiB as float64, which stays in the cache between the passes over it.
BLOCK = 1 << 15
BINS = 16

AnyArray = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stats:
    """What one array holds. Complex elements count by their magnitude.

    ``minimum``, ``maximum``, ``mean``, ``norm`` (Euclidean) and ``histogram`` (equal bins from minimum to maximum)
    are over the finite elements; they are NaN, NaN, NaN, 0 and empty when there are none.
    """

    minimum: float
    maximum: float
    mean: float
    norm: float
    nans: int
    infinities: int
    histogram: tuple[int, ...]


def blocks(array: AnyArray) -> Iterator[AnyArray]:
    """Yield the elements of ``array`` in C order, ``BLOCK`` at a time; contiguous arrays are not copied."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, BLOCK):
        yield flat[start : start + BLOCK]


def as_floats(block: AnyArray) -> Floats:
    """Return ``block`` as float64, complex elements as magnitudes."""
    magnitudes = np.abs(block) if block.dtype.kind == "c" else block
    return magnitudes.astype(np.float64, copy=False)


def measure(array: AnyArray, bins: int = BINS) -> Stats:
    """Return the statistics of ``array`` in two passes: one for the moments and the range, one for the histogram."""
    first = _Moments()
    with np.errstate(all="ignore"):  # overflow to infinity is the right answer for a norm beyond float64
        for block in blocks(array):
            first = first.add(as_floats(block))
        histogram = _histogram(array, first, bins) if first.count else ()
    lowest, highest = (first.minimum, first.maximum) if first.count else (math.nan, math.nan)
    mean = first.mean if first.count else math.nan
    return Stats(lowest, highest, mean, first.norm, first.nans, first.infinities, histogram)


@dataclass(frozen=True)
class _Moments:
    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    norm: float = 0.0
    nans: int = 0
    infinities: int = 0

    def add(self, block: Floats) -> "_Moments":
        """Return the moments of what was seen and ``block``."""
        if not block.size:
            return self
        lowest, highest = float(block.min()), float(block.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            return self._add_finite(block)
        count = self.count + block.size
        mean, norm = _scaled(block, max(abs(lowest), abs(highest)))
        return _Moments(
            count=count,
            minimum=min(self.minimum, lowest),
            maximum=max(self.maximum, highest),
            mean=self.mean + (mean - self.mean) * (block.size / count),
            norm=math.hypot(self.norm, norm),
            nans=self.nans,
            infinities=self.infinities,
        )

    def _add_finite(self, block: Floats) -> "_Moments":
        values = block[np.isfinite(block)]
        nans = int(np.isnan(block).sum())
        infinities = block.size - values.size - nans
        return replace(self, nans=self.nans + nans, infinities=self.infinities + infinities).add(values)


# Between these, squares of a block neither overflow nor lose digits.
_SMALL, _LARGE = 1e-140, 1e140


def _scaled(values: Floats, largest: float) -> tuple[float, float]:
    """Return mean and norm, scaled by the largest element where 1e300 would overflow or 1e-300 vanish."""
    if not largest:
        return 0.0, 0.0
    if _SMALL < largest < _LARGE:
        return float(values.mean()), math.sqrt(_squares(values))
    unit = values / largest
    return float(unit.mean()) * largest, math.sqrt(_squares(unit)) * largest


def _squares(values: Floats) -> float:
    # Not np.dot: it wakes the threads of a BLAS, which cost more than they do on a block of this size.
    return float(np.einsum("i,i->", values, values))


def _norm(values: Floats) -> float:
    return _scaled(values, max(-float(values.min()), float(values.max())))[1] if values.size else 0.0


def _histogram(array: AnyArray, moments: _Moments, bins: int) -> tuple[int, ...]:
    counts = np.zeros(bins + 1, np.int64)
    all_finite = not moments.nans and not moments.infinities
    for block in blocks(array):
        values = as_floats(block)
        places = _places(values if all_finite else values[np.isfinite(values)], moments, bins)
        counts += np.bincount(places, minlength=bins + 1)
    # The largest element lies at the upper edge of the last bin, which belongs to it.
    counts[bins - 1] += counts[bins]
    return tuple(counts[:bins].tolist())


def _places(values: Floats, moments: _Moments, bins: int) -> NDArray[np.intp]:
    lowest, span = moments.minimum, moments.maximum - moments.minimum
    if not span:
        return np.full(values.shape, bins // 2)
    if _SMALL < span < _LARGE:
        shares = values - lowest
        shares *= bins / span
    else:  # halves, because the span may overflow; a division, because its reciprocal may
        half = moments.maximum / 2 - lowest / 2
        shares = (values / 2 - lowest / 2) / half * bins if half else np.zeros_like(values)
    return np.minimum(shares.astype(np.intp), bins)


_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"


def sparkline(histogram: tuple[int, ...], encoding: str = "utf-8") -> str:
    """Return one character a bin, the highest bar for the fullest; any bin that is not empty shows."""
    bars = _BARS if encoding.lower().replace("-", "").startswith("utf") else _ASCII_BARS
    fullest = max(histogram, default=0)
    return "".join(bars[math.ceil(count / fullest * (len(bars) - 1)) if fullest else 0] for count in histogram)


@dataclass(frozen=True)
class Difference:
    """How two arrays of one shape differ.

    ``unequal`` elements have other bits (two NaNs of the same bits are equal); ``max_abs`` is the largest difference
    of finite elements; ``relative`` is the norm of the difference over the norm of the first array.
    """

    unequal: int
    max_abs: float
    relative: float


def compare(before: AnyArray, after: AnyArray) -> Difference:
    """Return how ``after`` differs from ``before``; both have one shape, dtypes may differ.

    Integers up to 64 bits are subtracted exactly, everything else in float64.
    """
    unequal, largest, change, base = 0, 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):  # Inf - Inf is NaN, and NaN is left out below
        for old, new in zip(blocks(before), blocks(after), strict=True):
            unequal += _unequal(old, new)
            gap = _finite(_gap(old, new))
            largest = max(largest, float(gap.max(initial=0.0)))
            change = math.hypot(change, _norm(gap))
            base = math.hypot(base, _norm(_finite(as_floats(old))))
    return Difference(unequal, largest, _ratio(change, base))


def _ratio(change: float, base: float) -> float:
    """Return ``change / base``; infinite from nothing, and where a norm is beyond float64."""
    if not change:
        return 0.0
    return math.inf if not base or math.isinf(change) else change / base


def _finite(values: Floats) -> Floats:
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def _unequal(old: AnyArray, new: AnyArray) -> int:
    if old.dtype != new.dtype:
        return int((as_floats(old) != as_floats(new)).sum())
    bits = f"V{old.dtype.itemsize}"
    same_bits = np.ascontiguousarray(old).view(bits) == np.ascontiguousarray(new).view(bits)
    return int(same_bits.size - same_bits.sum())


def _gap(old: AnyArray, new: AnyArray) -> Floats:
    if old.dtype.kind in "iu" and old.dtype == new.dtype:
        # The wrapped difference, read as unsigned, is exact where float64 would round 2**63 and 2**63 - 1 together.
        unsigned = np.dtype(f"u{old.dtype.itemsize}")
        exact = np.maximum(old, new).view(unsigned) - np.minimum(old, new).view(unsigned)
        return as_floats(exact)
    if "c" in (old.dtype.kind, new.dtype.kind):
        return as_floats(old.astype(np.complex128) - new.astype(np.complex128))
    gap = as_floats(old) - as_floats(new)
    return np.abs(gap, out=gap)


def same_bytes(before: Any, after: Any) -> bool:
    """Say whether two bytes-like payloads are equal, a block at a time."""
    old, new = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    if old.size != new.size:
        return False
    return all(np.array_equal(left, right) for left, right in zip(blocks(old), blocks(new), strict=True))
