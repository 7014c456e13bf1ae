"""One pass of one batch over one array, a block at a time.

All updates of a batch go through a block before the next block begins, so the accumulator stays in the cache and every
update is read from memory once. Multiplication and addition round separately: a fused multiply-add would give other
bits on other machines. Large arrays of the accumulator's own dtype go through a compiled loop, if there is one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._compiled import as_they_are
from umbel.aggregation._fused import Apart, Fused, fused
from umbel.aggregation._kinds import Kind, loss
from umbel.aggregation._squares import squares
from umbel.aggregation._weights import Step

Block = NDArray[Any]


class Place(NamedTuple):
    """Where an array, or one block of it, is accumulated.

    ``total`` holds the sums, in the dtype of the accumulator; it may be the result ``out`` itself. Without one they are
    kept in ``work``, for a pass that is the first and the last. ``work`` and ``product`` are scratch, of the size of
    the array or of a block, whichever is smaller.
    """

    kind: Kind
    out: Block
    total: Block | None
    work: Block
    product: Block


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


def fold(place: Place, updates: list[Block], batch: Batch, apart: Apart | None = None) -> str:
    """Fold flat arrays into the totals, and into the result if the batch has a divisor.

    With ``apart``, measure them too: in the same pass where a compiled loop does it.

    Returns:
        Why the result cannot be right, or nothing.

    """
    terms = fused(place.out, updates, batch.first, batch.steps, fresh=batch.fresh) if place.kind.in_place else None
    if apart is not None and (terms is None or not as_they_are(place.out.dtype, (apart.model,))):
        _measure(place.kind, updates, apart)
        apart = None
    if terms is not None:
        problems = [_fused_block(block, part.start, terms, batch, apart) for part, block in _blocks(place)]
        return next(filter(None, problems), "")
    if place.out.size <= place.product.size:
        return _block(place, updates, batch)
    problems = [_block(block, [update[part] for update in updates], batch) for part, block in _blocks(place)]
    return next(filter(None, problems), "")


def _measure(kind: Kind, updates: Iterable[Block], apart: Apart) -> None:
    """Write the squares of what flat arrays of one kind are from the model, as ``squared_distance`` takes them."""
    for row, update in zip(apart.squares, updates, strict=True):
        row[:] = squares(update, apart.model, measured_as(kind))


def measured_as(kind: Kind) -> np.dtype[Any]:
    """Return the dtype in which differences of a kind are squared first."""
    return np.promote_types(kind.total, np.float32)


def _fused_block(place: Place, start: int, terms: Fused, batch: Batch, apart: Apart | None) -> str:
    lost = terms.add(place.out, start, batch.divisor, finite=batch.finite, apart=apart)
    return loss(lost, place.out.dtype)


def _blocks(place: Place) -> Iterator[tuple[slice, Place]]:
    kind, out, total, work, product = place
    for start in range(0, out.size, product.size):
        part = slice(start, start + product.size)
        target = out[part]
        sums = target if total is out else None if total is None else total[part]
        yield part, Place(kind, target, sums, work[: target.size], product[: target.size])


def _block(place: Place, updates: Iterable[Block], batch: Batch) -> str:
    add_up(place, updates, batch)
    return "" if batch.divisor is None else store(place, slice(None), batch)


def add_up(place: Place, updates: Iterable[Block], batch: Batch) -> None:
    """Fold flat arrays, of at most a block, into the totals. Each may be gone when the next one is taken."""
    kind, out, kept, work, room = place
    total = work if kept is None else kept
    load, multiply, add = kind.load, np.multiply, np.add
    pairs = zip(updates, batch.steps, strict=True)
    if batch.fresh:
        _begin(place, total, next(pairs)[0], batch.first)
    for update, (rescale, weight) in pairs:
        if rescale is not None:
            multiply(total, rescale, total)
        term = update if load is None else load(update, out, room)
        add(total, term if weight is None else multiply(term, weight, room), total)


def store(place: Place, part: slice, batch: Batch) -> str:
    """Make the result of a part of the totals, which the batch has a divisor for; return why it cannot be right."""
    kind, out, kept, work, _ = place
    total = work if kept is None else kept
    target = out[part]
    sums = target if total is out else total[part]
    return kind.store(sums, target, batch.divisor, batch.finite)  # type: ignore[arg-type]


def _begin(place: Place, total: Block, update: Block, factor: Block | None) -> None:
    kind = place.kind
    if kind.begin is not None:
        kind.begin(update, place.out)
    term = update if kind.load is None else kind.load(update, place.out, place.product)
    if factor is None:
        np.copyto(total, term)
    else:
        np.multiply(term, factor, total)
