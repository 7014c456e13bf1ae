"""Sums of large arrays by a compiled loop, where there is one: NumPy's bits in half the time.

NumPy multiplies an update and adds the product, two passes through the cache for each update. The compiled loop reads
several updates at a time and keeps the sum in a register; every operation rounds by itself, as NumPy's do, in the same
order.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, FLAG, NUMBER, Addresses, Loop, address, addresses, as_they_are
from umbel.aggregation._squares import PART

Block: TypeAlias = NDArray[Any]
# What the sums are multiplied with first, and then the update that is added.
Factors: TypeAlias = tuple[Block | None, Block | None]

# Fewer bytes than this are done before the addresses of all updates are known.
LEAST: Final = 2**16

# (sums, size, addresses, factors, updates, first element, fresh, divisor or 0, finite,
#  model or None, squares or None, how far apart those of two updates are) -> elements lost
_ARGUMENTS: Final = (ADDRESS, COUNT, ADDRESS, ADDRESS, COUNT, COUNT, FLAG, NUMBER, FLAG, ADDRESS, ADDRESS, COUNT)
LOOPS: Final = _compiled.loops("add", _ARGUMENTS, COUNT)


class Apart(NamedTuple):
    """A model, as a flat array, and room for the squares of what updates are from it: a row of parts for each."""

    model: Block
    squares: NDArray[np.float64]


class _Run(NamedTuple):
    """Updates that are added one after the other, once the sums are multiplied with ``rescale``.

    They are those from ``first`` on.
    """

    first: int
    rescale: Block | None
    addresses: Addresses
    factors: Block
    fresh: bool


class Fused:
    """The updates of one batch, as flat arrays of one dtype that lie in memory as they are, and what each counts."""

    def __init__(
        self, loop: Loop, updates: Sequence[Block], first: Block | None, steps: Sequence[Factors], *, fresh: bool
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
                    start,
                    None if begins else steps[start][0],
                    addresses(updates[start:stop]),
                    np.array([1.0 if factor is None else factor for factor in factors], updates[0].dtype),
                    begins,
                )
            )

    def add(self, total: Block, start: int, divisor: float | None, *, finite: bool, apart: Apart | None = None) -> int:
        """Add what lies from ``start`` on in every update to the sums of that part, and divide them if that is all.

        With ``apart``, whose parts begin where this one does, the updates are measured in the same pass.

        Returns:
            How many sums are not finite after the division, though they were before, or at all if they have to be
            ``finite``.

        """
        lost = 0
        for at, (first, rescale, places, factors, fresh) in enumerate(self._runs, start=1):
            if rescale is not None:
                np.multiply(total, rescale, total)
            by = divisor if divisor is not None and at == len(self._runs) else 0.0
            what = address(total), total.size, places, address(factors), factors.size, start, fresh, by, finite
            lost += self._loop(*what, *_where(apart, first, start))
        return lost


def _where(apart: Apart | None, first: int, start: int) -> tuple[int | None, int | None, int]:
    """Return where the model is, where the squares of the part at ``start`` go, and in which steps from there."""
    if apart is None:
        return None, None, 0
    return address(apart.model), address(apart.squares[first:, start // PART :]), apart.squares.shape[1]


def fused(
    total: Block, updates: Sequence[Block], first: Block | None, steps: Sequence[Factors], *, fresh: bool
) -> Fused | None:
    """Return the updates for the compiled loop, or None where NumPy is as good or there is none."""
    loop = LOOPS.get(total.dtype)
    if loop is None or total.nbytes < LEAST or len(updates) < 1 + fresh:
        return None
    if not as_they_are(total.dtype, (total, *updates)):
        return None
    return Fused(loop, updates, first, steps, fresh=fresh)
