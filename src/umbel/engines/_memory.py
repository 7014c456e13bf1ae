"""Memory that processes share: files without a name, which are gone with the last process that has them.

Such a file cannot be left behind, by no crash and no kill. What is written once and read by many (a model) gets a file
of its own. Replies, of which there are many of one size, use a few files over and over: pages that are there cost a
fifth of new ones. The writer owns its files, and writes into one again once the reader has let go of all that it read.
"""

import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Segments = Sequence[bytes | memoryview]

_NAME: Final = "umbel"
_PAGE: Final = mmap.PAGESIZE
# Linux takes at most this many pieces in one call.
_PIECES: Final = 1024
# A file that is much too large for what goes into it is better used by what it was made for.
_SLACK: Final = 4
# So many files that suit nothing now are kept for what comes next.
_SPARE: Final = 4
# A mapped file costs a descriptor, of which a process may have few; whoever keeps more replies gets copies of them.
_MOST_USED: Final = 200


def size_of(segments: Segments) -> int:
    """Return how many bytes there are."""
    return sum(len(segment) for segment in segments)


def new_file(segments: Segments = ()) -> int:
    """Return the descriptor of a new nameless file with these bytes."""
    descriptor = os.memfd_create(_NAME)
    try:
        write(descriptor, segments)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write(descriptor: int, segments: Segments) -> None:
    """Write the segments from the start of the file on, all of them."""
    rest, offset = list(segments), 0
    while rest:
        written = os.pwritev(descriptor, rest[:_PIECES], offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = memoryview(rest[0])[written:]


def mapped(descriptor: int) -> NDArray[np.uint8]:
    """Return the bytes of a file as memory that cannot be written to, and close the descriptor."""
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(memory, np.uint8)


class Place(NamedTuple):
    """Where the writer put something: the number of its file, the file itself if it is new, and which ones are gone."""

    number: int
    new: int | None
    gone: list[int]


class Written:
    """The files of a writer, each used again once it is released."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, int]] = {}
        self._free: list[int] = []
        self._next = 0

    def put(self, segments: Segments) -> Place:
        """Write the segments into a file that is free, or into a new one."""
        size = size_of(segments)
        for number in self._free:
            descriptor, room = self._files[number]
            if size <= room <= _SLACK * max(size, _PAGE):
                self._free.remove(number)
                write(descriptor, segments)
                return Place(number, None, [])
        return self._put_new(segments, size)

    def _put_new(self, segments: Segments, size: int) -> Place:
        number, self._next = self._next, self._next + 1
        descriptor, room = new_file(segments), -(-size // _PAGE) * _PAGE
        os.ftruncate(descriptor, room)
        self._files[number] = descriptor, room
        return Place(number, descriptor, self._drop())

    def _drop(self) -> list[int]:
        """Give up the files that have been free for longest, beyond a few that may suit what comes next."""
        gone, self._free = self._free[:-_SPARE], self._free[-_SPARE:]
        for number in gone:
            os.close(self._files.pop(number)[0])
        return gone

    def release(self, numbers: Iterable[int]) -> None:
        """Let these files be used again."""
        self._free += numbers

    def close(self) -> None:
        """Give up all files; what is mapped stays as long as it is used."""
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._files.clear()


class Read:
    """The files of a writer as its reader sees them."""

    def __init__(self) -> None:
        self._memories: dict[int, NDArray[np.uint8]] = {}
        self._released: list[int] = []
        self._used = 0

    def open(self, place: Place, size: int) -> NDArray[np.uint8]:
        """Return what was put there; the file counts as released as soon as nothing refers to that memory."""
        for number in place.gone:
            del self._memories[number]
        if place.new is not None:
            self._memories[place.number] = mapped(place.new)
        view = self._memories[place.number][:size]
        if self._used == _MOST_USED:
            self._released.append(place.number)
            return view.copy()
        self._used += 1
        weakref.finalize(view, self._release, place.number).atexit = False
        return view

    def _release(self, number: int) -> None:
        self._used -= 1
        self._released.append(number)

    def take_released(self) -> list[int]:
        """Return which files were released since the last call."""
        numbers, self._released = self._released, []
        return numbers
