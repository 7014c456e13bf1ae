"""Blobs on their way in and out: to the disk as they come, from mapped memory as they go."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from umbel.errors import NotFound
from umbel.failpoint import failpoint
from umbel.http import BlobState, Call, Source
from umbel.store import Blobs, Upload, Uploads

_Key: TypeAlias = tuple[str, int]  # a digest, and the member who uploads it

_QUIET: Final = 0.5  # seconds without a byte after which a connection that was cut has no more
_DRAIN: Final = 5.0  # and the most that its successor waits for it


class Transfers:
    """Answers the three endpoints of blobs."""

    def __init__(self, blobs: Blobs, uploads: Uploads) -> None:
        self._blobs = blobs
        self._uploads = uploads
        self._coming: dict[_Key, Intake] = {}

    async def stat(self, call: Call) -> BlobState:
        """Say how long a blob is, or how much of it has come."""
        digest = call.params["digest"]
        await self._drained((digest, call.member))
        size = await self._whole(call)
        if size is not None:
            return BlobState(size)
        offset = self._uploads.offset(digest, call.member)
        if not offset:
            raise NotFound("no byte of such a blob is in the store: upload it", at=digest)
        return BlobState(None, offset)

    async def get(self, call: Call) -> Source:
        """Return the bytes of a blob, mapped."""
        data = await asyncio.to_thread(self._blobs.get, call.params["digest"])
        return Source(data, lambda: None)

    async def put(self, call: Call) -> "Intake | None":
        """Return where the bytes of a blob go; None if it is there already."""
        digest, size = call.params["digest"], call.params["size"]
        key = digest, call.member
        await self._drained(key)
        if await self._whole(call) == size:
            return None
        begin = partial(self._uploads.begin, digest, size, call.member, durable=_is_durable(call))
        self._coming[key] = intake = Intake(await asyncio.to_thread(begin), lambda: self._forget(key, intake))
        return intake

    async def _drained(self, key: _Key) -> None:
        """Wait for what a connection that was cut has left in the buffers of the system: it need not be sent again."""
        now = asyncio.get_running_loop().time
        until = now() + _DRAIN
        while (intake := self._coming.get(key)) is not None and now() < until:
            if not await intake.moves(_QUIET):
                return

    def _forget(self, key: _Key, intake: "Intake") -> None:
        if self._coming.get(key) is intake:
            del self._coming[key]

    async def _whole(self, call: Call) -> int | None:
        """Return the size of a blob that is there: for one who has it from nobody else, on the disk."""
        whole = partial(self._uploads.whole, call.params["digest"], durable=_is_durable(call))
        return await asyncio.to_thread(whole)


def _is_durable(call: Call) -> bool:
    """Say whether a blob is flushed: what a node sends, it can send again until its round is closed; see `_reboot`."""
    return call.kind != "node"


class Intake:
    """One upload, as a request brings it; the disk is waited for in another thread. ``over`` is called at its end."""

    def __init__(self, upload: Upload, over: Callable[[], None]) -> None:
        self._upload = upload
        self._over = over
        self._step = asyncio.Event()
        self._busy = 0

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self._upload.offset

    async def append(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes."""
        await self._do(partial(self._append, pieces))
        failpoint("server.blob-half")

    def _append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._upload.append(piece)

    async def finish(self) -> None:
        """Check the digest of the whole and make the blob visible, durably."""
        await self._do(self._upload.finish)

    async def close(self) -> None:
        """Let go of the upload; what has come stays."""
        try:
            await self._do(self._upload.close)
        finally:
            self._over()

    async def moves(self, seconds: float) -> bool:
        """Wait for the next step of this upload; False if nothing happens for so long."""
        step = self._step
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await step.wait()
            except TimeoutError:
                if not self._busy:
                    return False
            else:
                return True

    async def _do(self, step: Callable[[], object]) -> None:
        self._busy += 1
        try:
            await asyncio.to_thread(step)
        finally:
            self._busy -= 1
            done, self._step = self._step, asyncio.Event()
            done.set()
