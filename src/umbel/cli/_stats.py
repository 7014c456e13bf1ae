"""Statistics of one array of any dtype, a block at a time: memory does not grow with the array."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Elements in a block: 1 MiB as float64, which stays in the cache between the passes over it.
BLOCK = 1 << 17
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
        histogram = _histogram(array, first.minimum, first.maximum, bins) if first.count else ()
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
        finite = np.isfinite(block)
        values = block if finite.all() else block[finite]
        nans = int(np.isnan(block).sum()) if values.size < block.size else 0
        infinities = block.size - values.size - nans
        count = self.count + values.size
        mean, norm = _scaled(values)
        return _Moments(
            count=count,
            minimum=min(self.minimum, float(values.min(initial=math.inf))),
            maximum=max(self.maximum, float(values.max(initial=-math.inf))),
            mean=self.mean + (mean - self.mean) * (values.size / count) if count else 0.0,
            norm=math.hypot(self.norm, norm),
            nans=self.nans + nans,
            infinities=self.infinities + infinities,
        )


def _scaled(values: Floats) -> tuple[float, float]:
    """Return mean and norm; scaled by the largest element, so that 1e300 and 1e-300 neither overflow nor vanish."""
    scale = float(np.abs(values).max(initial=0.0))
    if not scale:
        return 0.0, 0.0
    unit = values / scale
    return float(unit.mean()) * scale, math.sqrt(float(np.dot(unit, unit))) * scale


def _histogram(array: AnyArray, lowest: float, highest: float, bins: int) -> tuple[int, ...]:
    half = highest / 2 - lowest / 2  # halves: the difference itself may overflow
    counts = np.zeros(bins, np.int64)
    for block in blocks(array):
        values = as_floats(block)
        values = values[np.isfinite(values)]
        if half > 0:
            places = np.minimum(((values / 2 - lowest / 2) / half * bins).astype(np.int64), bins - 1)
        else:
            places = np.full(values.shape, bins // 2)
        counts += np.bincount(places, minlength=bins)
    return tuple(counts.tolist())


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
            gap = _gap(old, new)
            gap = gap[np.isfinite(gap)]
            largest = max(largest, float(gap.max(initial=0.0)))
            change = math.hypot(change, _scaled(gap)[1])
            values = as_floats(old)
            base = math.hypot(base, _scaled(values[np.isfinite(values)])[1])
    relative = change / base if base else (math.inf if change else 0.0)
    return Difference(unequal, largest, relative)


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
