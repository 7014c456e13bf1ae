"""Bodies of blobs, as the client sends and takes them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from blake3 import blake3

from umbel.errors import BadAnswer, DigestMismatch
from umbel.http._pace import Pace, bytes_taken

SLICE: Final = 256 * 1024
_FLUSH: Final = 10e6  # bytes a second that a server makes at least when it brings a blob to its disk

Progress: TypeAlias = Callable[[int], None]


def ignore(_: int) -> None:
    """Be told of progress, and do nothing."""


class BlobBody(aiohttp.Payload):
    """A part of a buffer as the body of a request: slices of it are written as they are, never copied together."""

    def __init__(self, view: memoryview, progress: Progress) -> None:
        super().__init__(view, content_type="application/octet-stream")
        self._size = len(view)
        self._view = view
        self._progress = progress
        self._transport: asyncio.Transport | None = None
        self.written = 0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # as aiohttp calls it
        """Refuse: a blob is no text."""
        raise TypeError("a blob is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        self._transport = getattr(writer, "transport", None)
        self.written = 0
        for begin in range(0, len(self._view), SLICE):
            piece = self._view[begin : begin + SLICE]
            await writer.write(piece)
            self.written += len(piece)
            self._progress(len(piece))

    @property
    def passed_on(self) -> int:
        """How many bytes went beyond this process."""
        waiting = 0
        if self._transport is not None and not self._transport.is_closing():
            waiting = self._transport.get_write_buffer_size()
        return max(0, self.written - waiting)

    async def watch(self, stall: float) -> None:
        """Return when the other side takes no more, or has taken all and does not answer; until then, watch."""
        loop = asyncio.get_running_loop()
        pace = Pace(3 * stall, loop.time(), 0)
        while pace.holds(loop.time(), bytes_taken(self._transport)):
            await asyncio.sleep(min(1.0, stall / 10))
            if self.written == len(self._view):
                await self._watch_end(stall)
                return

    async def _watch_end(self, stall: float) -> None:
        """All is on its way: as long as bytes are taken the line is slow; then the server is busy with its disk."""
        most = 3 * stall + len(self._view) / _FLUSH
        loop = asyncio.get_running_loop()
        taken, since = bytes_taken(self._transport), loop.time()
        while loop.time() - since < most:
            await asyncio.sleep(min(1.0, stall / 10))
            now = bytes_taken(self._transport)
            if now != taken:
                taken, since = now, loop.time()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def watched(body: BlobBody, stall: float) -> AsyncIterator[None]:
    """Close the connection of ``body`` when it makes no progress."""

    async def look() -> None:
        while True:
            await body.watch(stall)
            body.abort()

    task = asyncio.get_running_loop().create_task(look(), name="umbel-http-upload")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Incoming:
    """A blob on its way into a file: what is there is kept, and the digest of the whole is checked."""

    def __init__(self, path: str | os.PathLike[str], digest: str, progress: Progress) -> None:
        self._digest = digest
        self._progress = progress
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._hasher = blake3()
        self.offset = 0

    def resume(self) -> None:
        """Read what is there already, and go on after it."""
        while piece := os.read(self._descriptor, 4 * SLICE):
            self._hasher.update(piece)
            self.offset += len(piece)

    async def take(self, response: aiohttp.ClientResponse) -> None:
        """Write the bytes of an answer as they come."""
        while True:
            piece, _ = await response.content.readchunk()
            if not piece:
                return
            self._write(piece)
            self._hasher.update(piece)
            self.offset += len(piece)
            self._progress(len(piece))

    def _write(self, piece: bytes) -> None:
        with memoryview(piece) as view:
            done = 0
            while done < len(view):
                done += os.write(self._descriptor, view[done:])

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hasher = blake3()
        self.offset = 0

    @property
    def is_right(self) -> bool:
        """Whether what is there has the digest of the blob."""
        return f"blake3:{self._hasher.hexdigest()}" == self._digest

    def check(self) -> None:
        """Raise ``DigestMismatch``, and forget what is there, unless it is the blob."""
        if not self.is_right:
            self.restart()
            message = f"expected the bytes of {self._digest}, got others: fetch them again"
            raise DigestMismatch(message, at=os.fsdecode(self._path))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def total_of(response: aiohttp.ClientResponse, offset: int) -> int:
    """Return the size of the blob that an answer is about, ``offset`` bytes of which were asked to be left out.

    Raises ``BadAnswer`` if it begins elsewhere.
    """
    if response.status == 200:  # noqa: PLR2004
        return response.content_length or 0
    _, _, rest = response.headers.get("Content-Range", "").partition("bytes ")
    first, size = rest.partition("-")[0], rest.rpartition("/")[2]
    if not size.isdecimal() or first != str(offset):
        raise BadAnswer(f"expected bytes from {offset} on, got Content-Range {rest!r:.80}", at=str(response.url))
    return int(size)
