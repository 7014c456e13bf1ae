"""The work of a pass: small arrays put together, large ones cut, and all of it dealt out to threads.

Arrays, and the blocks of one array, have nothing to do with one another. So however they are put together and dealt
out, no addition comes before or after another than it did, and no bit changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot
from umbel.aggregation._passes import Place

# Arrays of up to so many bytes are added together with others: to copy them costs less than to add each by itself.
_SMALL: Final = 2**15
# Fewer bytes than this are done before a thread has begun.
LEAST: Final = 2**22
# What an array costs beside its bytes, in bytes that are read in the same time.
_BESIDE: Final = 2**16


class Member(NamedTuple):
    """One array of a group: its place in the template, and which elements of the group it has."""

    at: int
    slot: Slot
    part: slice


class Group(NamedTuple):
    """An array, or several small ones of one kind, one after the other in memory.

    Or a run of solid records, which has no members: ``start`` is its first byte among their payloads.
    """

    kind: Kind
    size: int
    members: tuple[Member, ...] = ()
    start: int = 0


class Room(NamedTuple):
    """Memory for one group: the result, and the sums if they are kept and the result cannot hold them itself."""

    group: Group
    out: NDArray[Any]
    total: NDArray[Any] | None


class Piece(NamedTuple):
    """What is done in one go: a group, its arrays meeting in ``joined``, or the ``part`` of an array for one share."""

    group: Group
    place: Place
    part: slice | None
    joined: NDArray[Any] | None


class Share:
    """The pieces of one thread, which have scratch of their own."""

    __slots__ = ("pieces",)

    def __init__(self, rooms: Sequence[tuple[Room, slice | None]]) -> None:
        sizes = (min(room.out.size, room.group.kind.block) * room.group.kind.total.itemsize for room, _ in rooms)
        most = max(sizes, default=0)
        work, product = np.empty(most, np.uint8), np.empty(most, np.uint8)
        joined = np.empty(
            max((room.out.nbytes for room, _ in rooms if len(room.group.members) > 1), default=0), np.uint8
        )
        self.pieces = [_piece(room, part, work, product, joined) for room, part in rooms]


def groups_of(slots: Sequence[Slot], kinds: Sequence[Kind]) -> list[Group]:
    """Return all arrays in groups: small ones of one kind together, as many as a block holds, and large ones alone."""
    groups: list[tuple[Kind, list[Member]]] = []
    open_groups: dict[Kind, list[Member]] = {}
    for at, (slot, kind) in enumerate(zip(slots, kinds, strict=True)):
        size = slot.nbytes // kind.view.itemsize
        members = open_groups.get(kind, []) if slot.nbytes <= _SMALL else []
        start = members[-1].part.stop if members else 0
        if not members or start + size > kind.block:
            members, start = [], 0
            groups.append((kind, members))
        if slot.nbytes <= _SMALL:
            open_groups[kind] = members
        members.append(Member(at, slot, slice(start, start + size)))
    return [Group(kind, members[-1].part.stop, tuple(members)) for kind, members in groups]


def shares_of(rooms: Iterable[Room], threads: int) -> list[Share]:
    """Return the work on ``rooms`` in shares of about one size, in order: at most ``threads``, fewer for few bytes."""
    filled = [room for room in rooms if room.out.size]
    return [Share(dealt) for dealt in _deal(filled, _useful(filled, threads))]


def _piece(
    room: Room, part: slice | None, work: NDArray[np.uint8], product: NDArray[np.uint8], joined: NDArray[np.uint8]
) -> Piece:
    kind, out, kept = room.group.kind, room.out, room.total
    if part is not None:
        out, kept = out[part], None if kept is None else kept[part]
    size = min(out.size, kind.block) * kind.total.itemsize
    total = out if kind.in_place else kept
    place = Place(kind, out, total, work[:size].view(kind.total), product[:size].view(kind.total))
    is_joined = len(room.group.members) > 1
    return Piece(room.group, place, part, joined[: out.nbytes].view(kind.view) if is_joined else None)


def _useful(rooms: Sequence[Room], threads: int) -> int:
    nbytes = sum(room.out.nbytes for room in rooms)
    return max(1, min(threads, nbytes // LEAST)) if nbytes > sum(map(_beside, rooms)) else 1


def _beside(room: Room) -> int:
    return _BESIDE if len(room.group.members) <= 1 else len(room.group.members) * (_BESIDE // 4)


def _deal(rooms: Sequence[Room], count: int) -> list[list[tuple[Room, slice | None]]]:
    if count == 1:
        return [[(room, None) for room in rooms]]
    goal = -(-sum(room.out.nbytes + _beside(room) for room in rooms) // count)
    dealt: list[list[tuple[Room, slice | None]]] = [[]]
    used = 0
    for room in rooms:
        for part in _cut(room, goal, used):
            if part.start or used >= goal:
                dealt.append([])
                used = 0
            dealt[-1].append((room, None if part.stop - part.start == room.out.size else part))
            used += (part.stop - part.start) * room.out.itemsize + _beside(room)
    return dealt


def _cut(room: Room, goal: int, used: int) -> Iterator[slice]:
    """Yield the parts of an array that go to this share and to the next ones, cut where blocks begin.

    Shares end at a block or more after the goal, never before it, so there are no more of them than were asked for.
    """
    size, block = room.out.size, room.group.kind.block
    start, free = 0, goal - used if used < goal else goal
    while start < size:
        blocks = max(1, -(-(free - _BESIDE) // (block * room.out.itemsize)))
        stop = min(size, start + blocks * block)
        yield slice(start, stop)
        start, free = stop, goal
