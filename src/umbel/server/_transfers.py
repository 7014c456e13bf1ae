"""Blobs on their way in and out: to the disk as they come, from mapped memory as they go."""

import asyncio
from collections.abc import Sequence
from functools import partial

from umbel.errors import NotFound
from umbel.failpoint import failpoint
from umbel.http import BlobState, Call, Source
from umbel.store import Blobs, Upload, Uploads


class Transfers:
    """Answers the three endpoints of blobs."""

    def __init__(self, blobs: Blobs, uploads: Uploads) -> None:
        self._blobs = blobs
        self._uploads = uploads

    async def stat(self, call: Call) -> BlobState:
        """Say how long a blob is, or how much of it has come."""
        digest = call.params["digest"]
        size = await asyncio.to_thread(self._blobs.has, digest)
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
        if await asyncio.to_thread(self._blobs.has, digest) == size:
            return None
        # What a node sends, it can send or make again until its round is closed; see `_reboot`.
        begin = partial(self._uploads.begin, digest, size, call.member, durable=call.kind != "node")
        return Intake(await asyncio.to_thread(begin))


class Intake:
    """One upload, as a request brings it; the disk is waited for in another thread."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self._upload.offset

    async def append(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes."""
        await asyncio.to_thread(self._append, pieces)
        failpoint("server.blob-half")

    def _append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._upload.append(piece)

    async def finish(self) -> None:
        """Check the digest of the whole and make the blob visible, durably."""
        await asyncio.to_thread(self._upload.finish)

    async def close(self) -> None:
        """Let go of the upload; what has come stays."""
        await asyncio.to_thread(self._upload.close)
