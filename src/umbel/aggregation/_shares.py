"""The work of a pass, cut into shares that threads do side by side.

Arrays, and the blocks of one array, have nothing to do with one another. So however they are dealt out, no addition
comes before or after another than it did, and no bit changes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot
from umbel.aggregation._passes import Place

# Fewer bytes than this are done before a thread has begun.
_LEAST: Final = 2**22
# What an array costs beside its bytes, in bytes that are read in the same time.
_BESIDE: Final = 2**16


class Room(NamedTuple):
    """Memory for one array: the result, and the sums if they are kept and the result cannot hold them itself."""

    slot: Slot
    kind: Kind
    out: NDArray[Any]
    total: NDArray[Any] | None


class Piece(NamedTuple):
    """What is done in one go: an array, or the ``part`` of it that a share has."""

    slot: Slot
    place: Place
    part: slice | None


class Share:
    """The pieces of one thread, which have scratch of their own.

    Those to which an update is added by one multiplication and one addition over a whole array are in ``simple``, by
    the dtype of the sums, as slot, sums and room for a product; for ``others`` there is more to do.
    """

    __slots__ = ("others", "pieces", "simple")

    def __init__(self, rooms: Sequence[tuple[Room, slice | None]]) -> None:
        sizes = (min(room.out.size, room.kind.block) * room.kind.total.itemsize for room, _ in rooms)
        most = max(sizes, default=0)
        work, product = np.empty(most, np.uint8), np.empty(most, np.uint8)
        self.pieces = [Piece(room.slot, _place(room, part, work, product), part) for room, part in rooms]
        self.simple: dict[np.dtype[Any], list[tuple[Slot, NDArray[Any], NDArray[Any]]]] = {}
        self.others: list[Piece] = []
        for piece in self.pieces:
            place = piece.place
            if _is_simple(piece):
                self.simple.setdefault(place.kind.total, []).append((piece.slot, place.out, place.product))
            else:
                self.others.append(piece)


def shares_of(rooms: Sequence[Room], threads: int) -> list[Share]:
    """Return the work on ``rooms`` in shares of about one size, in order: at most ``threads``, fewer for few bytes."""
    filled = [room for room in rooms if room.out.size]
    return [Share(dealt) for dealt in _deal(filled, _useful(filled, threads))]


def _place(room: Room, part: slice | None, work: NDArray[np.uint8], product: NDArray[np.uint8]) -> Place:
    kind, out = room.kind, room.out if part is None else room.out[part]
    total = out if kind.in_place else room.total if room.total is None or part is None else room.total[part]
    size = min(out.size, kind.block) * kind.total.itemsize
    return Place(kind, out, total, work[:size].view(kind.total), product[:size].view(kind.total))


def _is_simple(piece: Piece) -> bool:
    place = piece.place
    whole = piece.part is None and place.out.size <= place.product.size
    return whole and place.total is place.out and place.kind.load is None


def _useful(rooms: Sequence[Room], threads: int) -> int:
    nbytes = sum(room.out.nbytes for room in rooms)
    return max(1, min(threads, nbytes // _LEAST)) if nbytes > len(rooms) * _BESIDE else 1


def _deal(rooms: Sequence[Room], count: int) -> list[list[tuple[Room, slice | None]]]:
    if count == 1:
        return [[(room, None) for room in rooms]]
    goal = -(-sum(room.out.nbytes + _BESIDE for room in rooms) // count)
    dealt: list[list[tuple[Room, slice | None]]] = [[]]
    used = 0
    for room in rooms:
        for part in _cut(room, goal, used):
            if part.start or used >= goal:
                dealt.append([])
                used = 0
            dealt[-1].append((room, None if part.stop - part.start == room.out.size else part))
            used += (part.stop - part.start) * room.out.itemsize + _BESIDE
    return dealt


def _cut(room: Room, goal: int, used: int) -> Iterator[slice]:
    """Yield the parts of an array that go to this share and to the next ones, cut where blocks begin.

    Shares end at a block or more after the goal, never before it, so there are no more of them than were asked for.
    """
    size, block = room.out.size, room.kind.block
    start, free = 0, goal - used if used < goal else goal
    while start < size:
        blocks = max(1, -(-(free - _BESIDE) // (block * room.out.itemsize)))
        stop = min(size, start + blocks * block)
        yield slice(start, stop)
        start, free = stop, goal
