"""Blocks of all updates side by side, for reductions that have to see every update of an element at once.

The arrays of a record are taken one after the other, so that many small ones fill a block as one large one does. A
block holds as many columns of every update as the caches like; memory does not grow with the model. What is stacked can
be dealt out, so that threads have blocks of their own.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._compiled import as_they_are
from umbel.aggregation._kinds import Kind, mean_of
from umbel.aggregation._layout import Slot, slots, view
from umbel.aggregation._steps import is_float
from umbel.aggregation._update import Update
from umbel.records import ParametersRecord

Block = NDArray[Any]

# Elements of all updates in a block, for the outer cache, and the fewest columns of one: with fewer, calls cost more
# than what they do, and threads wait for one another's calls.
_ELEMENTS: Final = 2**20
_FEWEST: Final = 2**12
_MOST: Final = 2**14
# So many columns or more are cut in four, at multiples of so many.
_LARGE: Final = 2**20
_CUT: Final = 2**14


class Place(NamedTuple):
    """One array of a record: what it is, its arithmetic, and where the result goes, if there is to be one.

    Only a ``part`` of its elements may be meant.
    """

    slot: Slot
    kind: Kind
    out: Block | None = None
    part: slice = slice(None)

    @property
    def size(self) -> int:
        """How many elements the whole array has, parts of complex numbers one by one."""
        return self.slot.nbytes // self.kind.view.itemsize


class Piece(NamedTuple):
    """Some elements of one array: which columns of the block they are, and their part of the result."""

    place: Place
    out: Block | None
    columns: slice


def columns_for(count: int, multiple: int = 1) -> int:
    """Return how many columns a block of ``count`` updates has: a multiple of ``multiple``."""
    wanted = min(max(_ELEMENTS // max(count, 1), _FEWEST), _MOST)
    return -(-wanted // multiple) * multiple


def floats_of(template: ParametersRecord) -> list[Place]:
    """Return the places of what counts in distances: arrays of floats and complex numbers."""
    return [Place(slot, mean_of(slot.kind)) for slot in slots(template) if is_float(slot.kind)]


def quarters(places: Sequence[Place]) -> list[list[Place]]:
    """Return the places in four shares if there is much, or all in one.

    Where they are cut depends on nothing else. So when sums of shares are added in order, threads change no bit.
    """
    return dealt(places, 4 if sum(place.size for place in places) >= _LARGE else 1, _CUT)


def dealt(places: Sequence[Place], count: int, multiple: int) -> list[list[Place]]:
    """Return the places in ``count`` shares of about one size, which follow one another as they are stacked.

    They are cut where the stack of an accumulator's dtype has a multiple of ``multiple`` columns. Some may be empty.
    """
    starts: list[tuple[int, Place]] = []
    end = 0
    for group in _by_total(places):
        for place in group:
            starts.append((end, place))
            end += place.size
        end = -(-end // multiple) * multiple
    goal = -(-end // multiple // count) * multiple
    return [list(_between(starts, turn * goal, (turn + 1) * goal)) for turn in range(count)]


def _between(starts: Sequence[tuple[int, Place]], low: int, high: int) -> Iterator[Place]:
    """Yield what of the places is between two columns, empty arrays too."""
    for start, place in starts:
        is_there = start < high and start + place.size > low if place.size else low <= start <= high
        if is_there:
            yield place._replace(part=slice(max(0, low - start), min(place.size, high - start)))


def _by_total(places: Sequence[Place]) -> list[list[Place]]:
    totals = dict.fromkeys(place.kind.total for place in places)
    return [[place for place in places if place.kind.total == total] for total in totals]


def stacked(places: Sequence[Place], updates: Sequence[Update], columns: int) -> Iterator[tuple[Block, list[Piece]]]:
    """Yield blocks with a row for each update, in the dtype of the accumulator, and what their columns are.

    All arrays of one accumulator's dtype come one after the other; a block is full unless it is their last. It may be
    overwritten, and is when the next one is asked for.

    Raises:
        AggregationError: if an update does not fit the template.

    """
    for group in _by_total(places):
        rows = np.empty((len(updates), columns), group[0].kind.total)
        pieces: list[Piece] = []
        for piece, parts in _pieces(group, updates, columns):
            _fill(rows[:, piece.columns], piece, parts)
            pieces.append(piece)
            if piece.columns.stop == columns:
                yield rows, pieces
                pieces = []
        if pieces:
            yield rows[:, : pieces[-1].columns.stop], pieces


def rows_of(places: Sequence[Place], updates: Sequence[Update], columns: int) -> Iterator[Sequence[Block]]:
    """Yield what the rows of ``stacked`` hold, only to be read: where a block lies in one array it is not copied.

    Raises:
        AggregationError: if an update does not fit the template.

    """
    for group in _by_total(places):
        rows = np.empty((len(updates), columns), group[0].kind.total)
        filled = 0
        for piece, parts in _pieces(group, updates, columns):
            if piece.columns == slice(0, columns) and as_they_are(rows.dtype, parts):
                yield parts
                continue
            _fill(rows[:, piece.columns], piece, parts)
            filled = piece.columns.stop % columns
            if not filled:
                yield [*rows]
        if filled:
            yield [*rows[:, :filled]]


def _pieces(places: Sequence[Place], updates: Sequence[Update], columns: int) -> Iterator[tuple[Piece, list[Block]]]:
    filled = 0
    for place in places:
        sources = [view(place.slot, place.kind.view, update) for update in updates]
        start, stop, _ = place.part.indices(place.size)
        while start < stop:
            end = min(stop, start + columns - filled)
            out = None if place.out is None else place.out[start:end]
            piece = Piece(place, out, slice(filled, filled + end - start))
            yield piece, [source[start:end] for source in sources]
            start, filled = end, piece.columns.stop % columns


def _fill(rows: Block, piece: Piece, parts: list[Block]) -> None:
    """Write elements into their rows, in the dtype of the accumulator."""
    kind = piece.place.kind
    out = parts[0] if piece.out is None else piece.out
    if kind.begin is not None:
        kind.begin(parts[0], out)
    for row, part in zip(rows, parts, strict=True):
        if kind.load is None:
            np.copyto(row, part)
        else:
            kind.load(part, out, row)
