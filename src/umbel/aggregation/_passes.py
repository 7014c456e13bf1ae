"""One pass of one batch over one array, a block at a time.

All updates of a batch go through a block before the next block begins, so the accumulator stays in the cache and every
update is read from memory once. Multiplication and addition round separately: a fused multiply-add would give other
bits on other machines.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._weights import Step

Block = NDArray[Any]


class Batch(NamedTuple):
    """What one pass does, with factors in the dtype of the accumulator.

    ``fresh`` says that the accumulator holds nothing yet; ``first`` is then the factor of the first update, None for 1.
    ``steps`` are (rescale, weight) of each update. A ``divisor`` means that the result is to be stored.
    """

    fresh: bool
    first: Block | None
    steps: list[tuple[Block | None, Block | None]]
    divisor: float | None
    finite: bool


class Scratch(NamedTuple):
    """Two blocks in the dtype of the accumulator: for sums that need not outlive the pass, and for products."""

    total: Block
    product: Block


def batch(kind: np.dtype[Any], steps: Sequence[Step], *, fresh: bool, divisor: float | None, finite: bool) -> Batch:
    """Return a batch whose factors are 0-d arrays of dtype ``kind``, which ufuncs take twice as fast as scalars.

    The first update of all is only stored, so the factor that the second step would apply to it is applied at once.
    """
    factors = [(_factor(step.rescale, kind), _factor(step.weight, kind)) for step in steps]
    first = None
    if fresh and len(factors) > 1:
        first, weight = factors[1]
        factors[1] = (None, weight)
    return Batch(fresh, first, factors, divisor, finite)


def _factor(value: float | None, kind: np.dtype[Any]) -> Block | None:
    return None if value is None else np.array(value, kind)


def run(kind: Kind, total: Block | None, out: Block, updates: list[Block], batch: Batch, scratch: Scratch) -> str:
    """Fold the arrays ``updates`` into ``total``, and into the result ``out`` if the batch has a divisor.

    Without a ``total`` the sums are kept in scratch: for a batch that is the first and the last.

    Returns:
        Why the result cannot be right, or nothing.

    """
    size = out.size
    if size <= kind.block:
        return _block(
            kind, scratch.total[:size] if total is None else total, out, updates, batch, scratch.product[:size]
        )
    problem = ""
    for part in _parts(size, kind.block):
        target = out[part]
        sums = scratch.total[: target.size] if total is None else target if total is out else total[part]
        blocks = [update[part] for update in updates]
        problem = _block(kind, sums, target, blocks, batch, scratch.product[: target.size]) or problem
    return problem


def _parts(size: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, size)) for start in range(0, size, block))


def _block(kind: Kind, total: Block, out: Block, updates: list[Block], batch: Batch, room: Block) -> str:
    pairs = zip(updates, batch.steps, strict=True)
    if batch.fresh:
        _begin(kind, total, out, next(pairs)[0], batch.first, room)
    load, multiply, add = kind.load, np.multiply, np.add
    for update, (rescale, weight) in pairs:
        if rescale is not None:
            multiply(total, rescale, total)
        term = update if load is None else load(update, out, room)
        if weight is not None:
            term = multiply(term, weight, room)
        add(total, term, total)
    return "" if batch.divisor is None else kind.store(total, out, batch.divisor, batch.finite)


def _begin(kind: Kind, total: Block, out: Block, update: Block, factor: Block | None, room: Block) -> None:
    if kind.begin is not None:
        kind.begin(update, out)
    term = update if kind.load is None else kind.load(update, out, room)
    if factor is None:
        np.copyto(total, term)
    else:
        np.multiply(term, factor, total)
