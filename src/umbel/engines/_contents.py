"""What messages carry, in memory that all workers of this machine map: once, however many messages carry it."""

import os
from typing import Final, NamedTuple

from umbel.engines._channel import INLINE, Body, Channel
from umbel.engines._frames import Content
from umbel.engines._memory import new_file, size_of
from umbel.records import RecordSet, dumps

# Messages of one phase share their content; of an asynchronous run, a few versions of the model are about.
KEPT: Final = 4


class _Held(NamedTuple):
    content: RecordSet  # held, so that no other one gets its identity
    number: int
    size: int
    data: bytes | None
    file: int | None


class Contents:
    """The latest contents, each serialised once; a worker is sent one before the first message that carries it."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], _Held] = {}
        self._next = 0

    def send(self, batch: int, content: RecordSet, channel: Channel, known: list[int]) -> int:
        """Make sure that the worker whose numbers are ``known`` has ``content``; return its number.

        A content is the same while the messages of one ``batch`` are read; whoever sends the next may have changed it.
        """
        held = self._get(batch, content)
        if held.number not in known:
            del known[: -KEPT + 1]
            body = Body(held.size, held.data)
            if held.file is not None:
                body = channel.shared_body(held.size, held.file)
            channel.send(Content(held.number, body, list(known)))
            known.append(held.number)
        return held.number

    def _get(self, batch: int, content: RecordSet) -> _Held:
        key = batch, id(content)
        if key not in self._held:
            self._held[key] = self._new(content)
            while len(self._held) > KEPT:
                self._drop(next(iter(self._held)))
        return self._held[key]

    def _new(self, content: RecordSet) -> _Held:
        segments = dumps(content)
        size, number, self._next = size_of(segments), self._next, self._next + 1
        if size <= INLINE:
            return _Held(content, number, size, b"".join(segments), None)
        return _Held(content, number, size, None, new_file(segments))

    def _drop(self, key: tuple[int, int]) -> None:
        file = self._held.pop(key).file
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Give the memory back as soon as no worker uses it."""
        for key in list(self._held):
            self._drop(key)
