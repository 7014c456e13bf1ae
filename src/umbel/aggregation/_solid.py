"""Solid updates: what comes in containers of one layout goes through the sums in long runs, not array by array.

Blocks of a run end where they end, in the middle of arrays too. That changes no bit: elements have nothing to do with
one another.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, view
from umbel.aggregation._passes import Batch, Place, fold
from umbel.aggregation._shares import Group, Piece, Room, Share
from umbel.aggregation._update import Update
from umbel.errors import AggregationError
from umbel.records._arena import allocate
from umbel.records._parameters import solid_of
from umbel.records._solid import Layout, Row, Run

_BYTE: Final = np.dtype(np.uint8)
# A run of up to so many bytes goes in blocks an eighth as large: fresh scratch costs more there than long reads gain.
_SHORT: Final = 2**23


class Solids(NamedTuple):
    """One pass: the payloads of updates that have one layout, and what is done with them, by the dtype of the sums."""

    layout: Layout
    payloads: Sequence[memoryview]
    batches: Mapping[np.dtype[Any], Batch]


def layout_of(slots: Sequence[Slot], updates: Sequence[Update]) -> Layout | None:
    """Return the layout that all updates have, if all are solid and it is what the template declares."""
    found = [solid_of(update.record) for update in updates]
    if not found or found[0] is None:
        return None
    layout = found[0].layout
    declared = [slot.name for slot in slots], [slot.dtype for slot in slots], [slot.shape for slot in slots]
    if declared != (layout.names, layout.dtypes, layout.shapes):
        return None
    return layout if all(each is not None and each.layout == layout for each in found) else None


def groups_in(layout: Layout, kinds: Mapping[str, Kind]) -> list[Group]:
    """Return the runs of a layout, each to be summed as if it were one array."""
    return [_group(run, kinds[run.dtype]) for run in layout.runs]


def _group(run: Run, kind: Kind) -> Group:
    nbytes = run.stop - run.start
    cut = kind._replace(block=kind.block // 8) if nbytes <= _SHORT else kind
    return Group(cut, nbytes // kind.view.itemsize, (), run.start)


def solids_of(layout: Layout, slots: Sequence[Slot], updates: Sequence[Update]) -> list[memoryview]:
    """Return the payloads of updates; those of one that is not solid, or of another layout, are put together first."""
    payloads = []
    for update in updates:
        solid = solid_of(update.record)
        payloads.append(solid.data if solid and solid.layout == layout else _put_together(layout, slots, update))
    return payloads


def _put_together(layout: Layout, slots: Sequence[Slot], update: Update) -> memoryview:
    (room,) = allocate([(_BYTE, layout.size)])
    for slot, row in zip(slots, layout.rows, strict=True):
        room[row.start : row.stop] = view(slot, slot.kind, update).view(_BYTE)
    return memoryview(room)  # type: ignore[arg-type]  # an array has a buffer


def add_solid(solids: Solids, share: Share) -> None:
    """Add solid updates, the pieces of one share: all of them, so that every sum is there if one of them is wrong."""
    wrong = None
    with np.errstate(all="ignore"):
        for piece in share.pieces:
            kind, part = piece.group.kind, piece.part
            arrays = [np.frombuffer(data, kind.view, piece.group.size, piece.group.start) for data in solids.payloads]
            problem = fold(
                piece.place, arrays if part is None else [array[part] for array in arrays], solids.batches[kind.total]
            )
            if problem and wrong is None:
                wrong = AggregationError(problem, at=f"array {solids.layout.name_at(_place_of_fault(piece))!r}")
    if wrong is not None:
        raise wrong


def _place_of_fault(piece: Piece) -> int:
    """Return the first byte of what is wrong in a result: where it is not finite, else where its run begins."""
    bad: NDArray[Any] = np.flatnonzero(~np.isfinite(piece.place.out))
    first = int(bad[0]) if bad.size else 0
    before = 0 if piece.part is None else piece.part.start
    return piece.group.start + (before + first) * piece.group.kind.view.itemsize


def fault_in(solids: Solids, groups: Iterable[Group], rooms: Sequence[Room]) -> AggregationError | None:
    """Return what is said of the first array that is wrong when updates go array by array, in these ``groups``.

    A run knows neither whose elements are wrong, if they are integers, nor how many of them one array has. None if it
    cannot be found out: what overflowed when it was divided, where results may be infinite, looks like what was so.
    """
    starts = [room.group.start for room in rooms]
    with np.errstate(all="ignore"):
        for group in groups:
            for member in group.members:
                row = solids.layout.rows[member.at]
                room = rooms[bisect(starts, row.start) - 1] if row.stop > row.start else None
                problem = "" if room is None else _fold_again(solids, row, group.kind, room)
                if problem:
                    return AggregationError(problem, at=f"array {row.name!r}")
    return None


def _fold_again(solids: Solids, row: Row, kind: Kind, room: Room) -> str:
    """Fold one array by itself: the updates, if the pass is the first; else what has become of the sums."""
    start, size = (row.start - room.group.start) // kind.view.itemsize, (row.stop - row.start) // kind.view.itemsize
    out, batch = room.out[start : start + size], solids.batches[kind.total]
    kept = None if room.total is None else room.total[start : start + size]
    work, product = np.empty((2, min(size, kind.block)), kind.total)
    place = Place(kind, out, out if kind.in_place else kept, work, product)
    if not batch.fresh:
        return fold(place, [], batch._replace(steps=[], divisor=1.0))
    return fold(place, [np.frombuffer(data, kind.view, size, row.start) for data in solids.payloads], batch)
