"""The loop that sends finished replies, one at a time, until the server has each on its disk."""

import asyncio
import time
from typing import Final

import msgspec

from umbel.envelope import Content, blobs_of
from umbel.errors import BlobMissing, DigestMismatch, Fenced, NotFound, ReplyConflict, UmbelError
from umbel.failpoint import failpoint
from umbel.http.wire import Answer, Replied
from umbel.message import ErrorCode
from umbel.node._jobs import failed
from umbel.node._line import Line, is_fatal
from umbel.node._run import Finished
from umbel.node._shelf import name_of
from umbel.node._stock import Key, Stock, brief, unless_cancelled

_PAUSE: Final = 0.5  # seconds before a reply is tried again that the server cannot take yet


class Outbox:
    """Sends what is finished; the spool lets go of a message only when its reply is acknowledged."""

    def __init__(self, stock: Stock, line: Line) -> None:
        self._stock = stock
        self._line = line
        self._current: Key | None = None
        self._upload: asyncio.Task[None] | None = None

    def cancel(self, key: Key) -> None:
        """Send no more blobs of a reply that is no longer wanted; the server still says whether it counts."""
        if key == self._current and self._upload is not None:
            self._upload.cancel()

    async def run(self) -> None:
        """Send replies for ever."""
        while True:
            finished = next(iter(self._stock.spool.finished), None)
            if finished is None:
                await self._stock.mail()
                continue
            await self._deliver(finished)
            self._stock.ring()

    async def _deliver(self, finished: Finished) -> None:
        answer, spool = finished.answer, self._stock.spool
        key = (answer.run, answer.message)
        if answer.content is not None and not await self._stock.is_whole(finished):
            await self._retract(finished)
            return
        try:
            counted = await self._send(answer, key)
        except DigestMismatch:
            await self._retract(finished)
        except (BlobMissing, Fenced):
            # The blob is sent now; or the next poll brings the number under which the message was handed out again.
            self._stock.late.discard(key)
            await asyncio.sleep(_PAUSE)
        except UmbelError as error:
            if is_fatal(error):
                raise
            await self._refused(finished, error)
        else:
            failpoint("node.acknowledged")
            await self._stock.stored(lambda: spool.acknowledge(answer, counted=counted))
            self._stock.late.discard(key)

    async def _send(self, answer: Answer, key: Key) -> bool:
        """Send a reply with its blobs; return whether it counts."""
        began = time.monotonic()
        if answer.content is not None and key not in self._stock.late:
            await self._blobs(answer.content, key)
            failpoint("node.uploaded")
        seconds = {**answer.seconds, "uploading": time.monotonic() - began}
        try:
            replied: Replied = await self._line.call("reply", msgspec.structs.replace(answer, seconds=seconds))
        except NotFound:
            return False
        except ReplyConflict as error:
            self._stock.board.note(brief(error))
            return True  # the server has counted a reply to this message
        return replied.counted

    async def _blobs(self, content: Content, key: Key) -> None:
        self._current, self._upload = key, asyncio.ensure_future(self._upload_all(content))
        try:
            await unless_cancelled(self._upload)
        finally:
            self._current = self._upload = None

    async def _upload_all(self, content: Content) -> None:
        for digest in blobs_of(content):
            await self._line.send(digest, self._stock.spool.blobs / name_of(digest), _first_buffer)

    async def _retract(self, finished: Finished) -> None:
        spool = self._stock.spool
        await self._stock.stored(lambda: spool.retract(finished))
        self._stock.board.note(f"damaged, and made again: {spool.damaged[-1]}")

    async def _refused(self, finished: Finished, error: UmbelError) -> None:
        """Answer with an error instead of a reply that the server does not take."""
        spool, answer = self._stock.spool, finished.answer
        self._stock.board.note(brief(error))
        if answer.content is None:
            await self._stock.stored(lambda: spool.acknowledge(answer, counted=False))
            return
        reason = f"expected a reply that the server takes, got one that it refused: {brief(error)}"
        await self._stock.stored(lambda: spool.replace(finished, failed(ErrorCode.BAD_REPLY, reason)))


def _first_buffer(_: int) -> None:
    failpoint("node.uploading")
