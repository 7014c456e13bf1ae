"""Frames between an engine and one worker: small values, and descriptors of the memory that they speak of.

One side of a pair of sockets that keep the borders of messages. Whatever is too large for a frame is in shared memory;
a frame holds its place. So the two sides hand each other models without copying or serialising them again.
"""

import socket
from typing import Any, Final

import msgspec

from umbel.engines._memory import Place, Read, Segments, Written, mapped, size_of

#: Bodies up to this size travel inside the frame.
INLINE: Final = 16 * 1024
# A frame that is larger goes through memory as well; a socket takes some of this size without waiting for its reader.
_FRAME: Final = 64 * 1024
_FILES: Final = 8
_OF_ITS_OWN: Final = -1


class Body(msgspec.Struct, frozen=True, array_like=True):
    """Some bytes: here, in a file of the sender's pool, or in one of their own; a new file comes with the frame."""

    size: int
    data: bytes | None = None
    number: int = _OF_ITS_OWN
    is_new: bool = True
    gone: list[int] = []


class Large(msgspec.Struct, frozen=True, tag="large"):
    """Stands for a frame that is too large to be one."""

    body: Body


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end of the conversation; ``kinds`` is the union of the frames that may come."""

    def __init__(self, end: socket.socket, kinds: Any) -> None:
        self._end = end
        self._decoder = msgspec.msgpack.Decoder(tuple[list[int], kinds | Large])
        self._encoder = msgspec.msgpack.Encoder()
        self._written, self._read = Written(), Read()
        self._outgoing: list[int] = []
        self._incoming: list[int] = []

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._end.fileno()

    def body(self, segments: Segments) -> Body:
        """Make a body, which the next frame must name."""
        size = size_of(segments)
        if size <= INLINE:
            return Body(size, b"".join(segments))
        place = self._written.put(segments)
        if place.new is not None:
            self._outgoing.append(place.new)
        return Body(size, None, place.number, place.new is not None, place.gone)

    def shared_body(self, size: int, descriptor: int) -> Body:
        """Make a body of a file that others may be sent as well; the next frame must name it."""
        self._outgoing.append(descriptor)
        return Body(size)

    def open(self, body: Body) -> Any:
        """Return the bytes of a body that the last frame named, as memory that cannot be written to."""
        if body.data is not None:
            return body.data
        new = self._incoming.pop(0) if body.is_new else None
        if body.number == _OF_ITS_OWN and new is not None:
            return mapped(new)[: body.size]
        return self._read.open(Place(body.number, new, body.gone), body.size)

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame; raises ``Closed`` if nobody will read it."""
        text = self._encoder.encode((self._read.take_released(), frame))
        if len(text) > _FRAME:
            text = self._encoder.encode(((), self._large(text)))
        files, self._outgoing = self._outgoing, []
        try:
            socket.send_fds(self._end, [text], files)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def _large(self, text: bytes) -> Large:
        inner, self._outgoing = self._outgoing, []
        body = self.body([text])
        self._outgoing += inner  # the frame is opened before the bodies that it names
        return Large(body)

    def receive(self) -> Any:
        """Return the next frame, waiting for it; raises ``Closed`` when there will be none."""
        try:
            text = self._receive()
        except ConnectionResetError:  # it left something unread, which is said first; what it has sent comes after
            text = self._receive()
        if not text:
            raise Closed
        released, frame = self._decoder.decode(text)
        if isinstance(frame, Large):
            released, frame = self._decoder.decode(self.open(frame.body))
        self._written.release(released)
        return frame

    def _receive(self) -> bytes:
        text, self._incoming, _, _ = socket.recv_fds(self._end, 2 * _FRAME, _FILES, socket.MSG_CMSG_CLOEXEC)
        return text

    def close(self) -> None:
        """End the conversation."""
        self._end.close()
        self._written.close()
