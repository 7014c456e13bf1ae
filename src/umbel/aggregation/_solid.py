"""Solid updates: what comes in containers of one layout goes through the sums in long runs, not array by array.

Blocks of a run end where they end, in the middle of arrays too. That changes no bit: elements have nothing to do with
one another.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, view
from umbel.aggregation._passes import Batch, fold
from umbel.aggregation._shares import Group, Piece, Share
from umbel.aggregation._update import Update
from umbel.errors import AggregationError
from umbel.records._arena import allocate
from umbel.records._parameters import solid_of
from umbel.records._solid import Layout, Run

_BYTE: Final = np.dtype(np.uint8)
# A run of up to so many bytes goes in blocks an eighth as large: fresh scratch costs more there than long reads gain.
_SHORT: Final = 2**23


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


def add_solid(
    layout: Layout, payloads: Sequence[memoryview], batches: Mapping[np.dtype[Any], Batch], share: Share
) -> None:
    """Add solid updates, the pieces of one share."""
    with np.errstate(all="ignore"):
        for piece in share.pieces:
            kind, part = piece.group.kind, piece.part
            arrays = [np.frombuffer(data, kind.view, piece.group.size, piece.group.start) for data in payloads]
            problem = fold(
                piece.place, arrays if part is None else [array[part] for array in arrays], batches[kind.total]
            )
            if problem:
                raise AggregationError(problem, at=f"array {layout.name_at(_place_of_fault(piece))!r}")


def _place_of_fault(piece: Piece) -> int:
    """Return the first byte of what is wrong in a result: where it is not finite, else where its run begins."""
    bad: NDArray[Any] = np.flatnonzero(~np.isfinite(piece.place.out))
    first = int(bad[0]) if bad.size else 0
    before = 0 if piece.part is None else piece.part.start
    return piece.group.start + (before + first) * piece.group.kind.view.itemsize
