"""Sums of large arrays by a compiled loop, where there is one: NumPy's bits in half the time.

NumPy multiplies an update and adds the product, two passes through the cache for each update. ``_sums.c`` reads
several updates at a time and keeps the sum in a register; every operation rounds by itself, as NumPy's do, in the same
order. It is compiled when the package is built, if there is a compiler; without it nothing is different but the time.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Block: TypeAlias = NDArray[Any]
# What the sums are multiplied with first, and then the update that is added.
Factors: TypeAlias = tuple[Block | None, Block | None]
# (sums, size, addresses, factors, updates, first element, fresh, divisor or 0, finite) -> elements lost
_Loop: TypeAlias = Callable[..., int]

# Of what the functions take: one more with every change of it.
_VERSION: Final = 1
_NUMBERS: Final = ((np.float32, "float", ctypes.c_float), (np.float64, "double", ctypes.c_double))

LIBRARY: Final = __file__.removesuffix("_fused.py") + "_sums.so"
# Fewer bytes than this are done before the addresses of all updates are known.
LEAST: Final = 2**16


def loops(path: str) -> dict[np.dtype[Any], _Loop]:
    """Return the loop for each dtype; none, where nothing was compiled or this machine cannot load it."""
    try:
        library = ctypes.CDLL(path)
        return {np.dtype(dtype): _typed(library, name, number) for dtype, name, number in _NUMBERS}
    except (OSError, AttributeError):  # one of another version has other names
        return {}


def _typed(library: ctypes.CDLL, name: str, number: Any) -> _Loop:
    address, count, flag = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    loop = getattr(library, f"umbel_add_{_VERSION}_{name}")
    loop.argtypes = [address, count, address, address, count, count, flag, number, flag]
    loop.restype = count
    return loop  # type: ignore[no-any-return]


LOOPS: Final = loops(LIBRARY)


class _Run(NamedTuple):
    """Updates that are added one after the other, once the sums are multiplied with ``rescale``."""

    rescale: Block | None
    addresses: ctypes.Array[ctypes.c_void_p]
    factors: Block
    fresh: bool


class Fused:
    """The updates of one batch, as flat arrays of one dtype that lie in memory as they are, and what each counts."""

    def __init__(
        self, loop: _Loop, updates: Sequence[Block], first: Block | None, steps: Sequence[Factors], *, fresh: bool
    ) -> None:
        self._loop = loop
        self._updates = updates  # their addresses are good for as long as they are there
        self._runs: list[_Run] = []
        starts = [at for at, (rescale, _) in enumerate(steps) if rescale is not None or at == 0]
        for start, stop in zip(starts, [*starts[1:], len(steps)], strict=True):
            factors = [weight for _, weight in steps[start:stop]]
            begins = fresh and start == 0
            if begins:
                factors[0] = first
            self._runs.append(
                _Run(
                    None if begins else steps[start][0],
                    (ctypes.c_void_p * (stop - start))(*map(_address, updates[start:stop])),
                    np.array([1.0 if factor is None else factor for factor in factors], updates[0].dtype),
                    begins,
                )
            )

    def add(self, total: Block, start: int, divisor: float | None, *, finite: bool) -> int:
        """Add what lies from ``start`` on in every update to the sums of that part, and divide them if that is all.

        Returns:
            How many sums are not finite after the division, though they were before, or at all if they have to be
            ``finite``.

        """
        lost = 0
        for at, (rescale, addresses, factors, fresh) in enumerate(self._runs, start=1):
            if rescale is not None:
                np.multiply(total, rescale, total)
            by = divisor if divisor is not None and at == len(self._runs) else 0.0
            lost += self._loop(
                _address(total), total.size, addresses, _address(factors), factors.size, start, fresh, by, finite
            )
        return lost


def fused(
    total: Block, updates: Sequence[Block], first: Block | None, steps: Sequence[Factors], *, fresh: bool
) -> Fused | None:
    """Return the updates for the compiled loop, or None where NumPy is as good or there is none."""
    loop = LOOPS.get(total.dtype)
    if loop is None or total.nbytes < LEAST or len(updates) < 1 + fresh:
        return None
    if not all(
        each.flags.c_contiguous and each.flags.aligned and each.dtype == total.dtype for each in (total, *updates)
    ):
        return None
    return Fused(loop, updates, first, steps, fresh=fresh)


def _address(array: Block) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]
