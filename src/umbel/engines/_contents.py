"""What messages carry, in memory that all workers of this machine map: once, however many messages carry it."""

import os
from typing import Final, NamedTuple

from umbel.engines._channel import INLINE, Body, Channel
from umbel.engines._frames import Content
from umbel.engines._memory import Segments, new_file, size_of
from umbel.records import RecordSet, dumps

# Messages of one phase share their content; of rounds that overlap, a few versions of the model are about.
KEPT: Final = 4


class Version(NamedTuple):
    """A content as it was when it was first sent: its number, and its container."""

    number: int
    segments: Segments


class Versions:
    """Tells contents apart: the latest few, each under a number, as long as they are what they were."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[RecordSet, int, Version]] = {}  # which holds them: no other has their identity
        self._next = 0

    def of(self, content: RecordSet, batch: int) -> Version:
        """Return the version that ``content`` is.

        While the messages of one ``batch`` are read, it stays what it is. Whoever sends another batch may have changed
        it, so it is compared: arrays by their identity, since they cannot change, and all else by its bytes.
        """
        known = self._known.get(id(content))
        if known is not None and known[1] == batch:
            return known[2]
        segments = dumps(content)
        version = Version(self._next, segments)
        if known is not None and _is_same(segments, known[2].segments):
            version = known[2]
        self._next += 1
        self._known.pop(id(content), None)
        self._known[id(content)] = content, batch, version
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return version


def _is_same(one: Segments, other: Segments) -> bool:
    same = len(one) == len(other) and one[0] == other[0]
    return same and all(mine is theirs for mine, theirs in zip(one[1:], other[1:], strict=True))


class Contents:
    """The latest contents, each serialised once; a worker is sent one before the first message that carries it."""

    def __init__(self) -> None:
        self._versions = Versions()
        self._held: dict[int, tuple[Body, int | None]] = {}

    def send(self, batch: int, content: RecordSet, channel: Channel, known: list[int]) -> int:
        """Make sure that the worker whose numbers are ``known`` has ``content``; return its number."""
        version = self._versions.of(content, batch)
        if version.number not in known:
            del known[: -KEPT + 1]
            body, file = self._get(version)
            if file is not None:
                body = channel.shared_body(body.size, file)
            channel.send(Content(version.number, body, list(known)))
            known.append(version.number)
        return version.number

    def _get(self, version: Version) -> tuple[Body, int | None]:
        if version.number not in self._held:
            size = size_of(version.segments)
            if size <= INLINE:
                self._held[version.number] = Body(size, b"".join(version.segments)), None
            else:
                self._held[version.number] = Body(size), new_file(version.segments)
            while len(self._held) > KEPT:
                self._drop(next(iter(self._held)))
        return self._held[version.number]

    def _drop(self, number: int) -> None:
        _, file = self._held.pop(number)
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Give the memory back as soon as no worker uses it."""
        for number in list(self._held):
            self._drop(number)
