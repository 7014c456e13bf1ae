"""Updates array by array: what one share of a pass does with records that are not solid, or that are measured.

Small arrays meet in one block and are added together; a large one goes by itself, or a part of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._fused import Apart
from umbel.aggregation._layout import Slot, flat, view
from umbel.aggregation._passes import Batch, add_up, fold, measured_as, store
from umbel.aggregation._shares import Group, Piece, Share
from umbel.aggregation._squares import parts_of, squares_of_each
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
    measured = model if is_float(piece.group.members[0].slot.kind) else None
    apart = None if measured is None else _apart(piece, measured, len(updates))
    if piece.joined is None:
        _fold_array(piece, updates, tables, batch, apart)
    else:
        _fold_joined(piece, _rooms(piece.group, piece.joined, updates, tables, apart), batch)
    return [] if apart is None else [apart.squares]


def _apart(piece: Piece, model: Table, count: int) -> Apart:
    """Return what a model has in place of the arrays of a piece, with room for what updates are from it."""
    group, place, part, joined = piece
    arrays = [flat(model[slot.name]).view(place.kind.view) for _, slot, _ in group.members]
    if joined is not None:
        return Apart(np.concatenate(arrays), np.empty((count, len(arrays))))
    elements = arrays[0] if part is None else arrays[0][part]
    return Apart(elements, np.empty((count, parts_of(elements.size))))


def _fold_array(
    piece: Piece, updates: Sequence[Update], tables: Sequence[Table], batch: Batch, apart: Apart | None
) -> None:
    slot, place = piece.group.members[0].slot, piece.place
    arrays = [_values(slot, place.kind.view, *each) for each in zip(tables, updates, strict=True)]
    if piece.part is not None:
        arrays = [array[piece.part] for array in arrays]
    _require(slot, fold(place, arrays, batch, apart))


def _fold_joined(piece: Piece, rooms: Iterator[NDArray[Any]], batch: Batch) -> None:
    add_up(piece.place, rooms, batch)
    if batch.divisor is not None:
        for _, slot, part in piece.group.members:
            _require(slot, store(piece.place, part, batch))


def _rooms(
    group: Group, room: NDArray[Any], updates: Sequence[Update], tables: Sequence[Table], apart: Apart | None
) -> Iterator[NDArray[Any]]:
    """Yield the small arrays of one update after the other, side by side in ``room``; measure them there."""
    ends = np.array([member.part.stop for member in group.members], np.uintp)
    for place, (table, update) in enumerate(zip(tables, updates, strict=True)):
        np.concatenate([_values(slot, room.dtype, table, update) for _, slot, _ in group.members], out=room)
        if apart is not None:
            apart.squares[place] = squares_of_each(room, apart.model, ends, measured_as(group.kind))
        yield room


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
