"""Updates array by array: what one share of a pass does with records that are not solid, or that are measured.

Small arrays meet in one block and are added together; a large one goes by itself, or a part of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._fused import Apart
from umbel.aggregation._layout import Slot, flat, view
from umbel.aggregation._passes import Batch, add_up, fold, measure, store
from umbel.aggregation._shares import Group, Member, Piece, Share
from umbel.aggregation._squares import parts_of
from umbel.aggregation._steps import is_float
from umbel.aggregation._update import Update
from umbel.errors import AggregationError
from umbel.records import Array

_RAW: Final = "raw"
Table: TypeAlias = Mapping[str, Array]
Batches: TypeAlias = Mapping[np.dtype[Any], Batch]
#: Of some elements of an array, for each update a row of the squares of its parts.
Squares: TypeAlias = NDArray[np.float64]


def add_all(updates: Sequence[Update], batches: Batches, share: Share, *, model: Table | None = None) -> list[Squares]:
    """Add all updates, the pieces of one share; return their squares, if there is a model that they are measured by."""
    tables = [dict(update.record.items()) for update in updates]
    found: list[Squares] = []
    with np.errstate(all="ignore"):
        for piece in share.pieces:
            found += _fold(piece, updates, tables, batches[piece.place.kind.total], model)
    return found


def _fold(
    piece: Piece, updates: Sequence[Update], tables: Sequence[Table], batch: Batch, model: Table | None = None
) -> list[Squares]:
    if piece.joined is None:
        return _fold_array(piece, updates, tables, batch, model)
    _fold_joined(piece, piece.joined, updates, tables, batch)
    return [] if model is None else list(_measured(piece.group, updates, tables, model))


def _fold_array(
    piece: Piece, updates: Sequence[Update], tables: Sequence[Table], batch: Batch, model: Table | None
) -> list[Squares]:
    group, place, part, _ = piece
    slot, whole = group.members[0].slot, slice(None) if part is None else part
    arrays = [_values(slot, place.kind.view, *each)[whole] for each in zip(tables, updates, strict=True)]
    apart = None if model is None else _apart(slot, place.kind.view, model, len(updates), whole)
    _require(slot, fold(place, arrays, batch, apart))
    return [] if apart is None else [apart.squares]


def _fold_joined(
    piece: Piece, room: NDArray[Any], updates: Sequence[Update], tables: Sequence[Table], batch: Batch
) -> None:
    group, place, _, _ = piece
    add_up(place, (_joined(group.members, room, *each) for each in zip(tables, updates, strict=True)), batch)
    if batch.divisor is not None:
        for member in group.members:
            _require(member.slot, store(place, member.part, batch))


def _measured(group: Group, updates: Sequence[Update], tables: Sequence[Table], model: Table) -> Iterator[Squares]:
    """Yield the squares of the small arrays of a group, which were added together and still are in the cache."""
    for _, slot, _ in group.members:
        apart = _apart(slot, group.kind.view, model, len(updates))
        if apart is not None:
            values = [_values(slot, group.kind.view, *each) for each in zip(tables, updates, strict=True)]
            measure(group.kind, values, apart)
            yield apart.squares


def _apart(slot: Slot, kind: np.dtype[Any], model: Table, count: int, part: slice = slice(None)) -> Apart | None:
    """Return an array of a model, or a part of it, with room for what updates are from it; None if none is measured."""
    if not is_float(slot.kind):
        return None
    elements = flat(model[slot.name]).view(kind)[part]
    return Apart(elements, np.empty((count, parts_of(elements.size))))


def _joined(members: Sequence[Member], room: NDArray[Any], table: Table, update: Update) -> NDArray[Any]:
    np.concatenate([_values(slot, room.dtype, table, update) for _, slot, _ in members], out=room)
    return room


def _require(slot: Slot, problem: str) -> None:
    if problem:
        raise AggregationError(problem, at=f"array {slot.name!r}")


def _values(slot: Slot, kind: np.dtype[Any], table: Table, update: Update) -> NDArray[Any]:
    """Return what ``view`` does, without its detours: almost every array of every update is as it should be."""
    name, dtype, shape, _, _, nbytes = slot
    array = table.get(name)
    if (
        array is not None
        and array.stype == _RAW
        and array.dtype == dtype
        and array.shape == shape
        and len(array.data) == nbytes
    ):
        return np.frombuffer(array.data, kind)
    return view(slot, kind, update)


def add_one(updates: Sequence[Update], values: Sequence[NDArray[Any]], batches: Batches, share: Share) -> None:
    """Add one update to those before it: the step of a loop that takes each update as it comes, at half the cost."""
    multiply, add = np.multiply, np.add
    with np.errstate(all="ignore"):
        for dtype, simple in share.simple.items():
            ((rescale, weight),) = batches[dtype].steps
            for at, total, room in simple:
                if rescale is not None:
                    multiply(total, rescale, total)
                add(total, values[at] if weight is None else multiply(values[at], weight, room), total)
        if share.others:
            table = dict(updates[0].record.items())
            for piece in share.others:
                _fold(piece, updates, [table], batches[piece.place.kind.total])
