"""The loop that handles messages, one at a time."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from umbel.errors import DigestMismatch, Mismatch, SpoolDamaged, UmbelError
from umbel.failpoint import failpoint
from umbel.http.wire import Task
from umbel.message import ErrorCode
from umbel.node._jobs import Job, Outcome, failed
from umbel.node._line import Line, is_fatal
from umbel.node._membership import Membership
from umbel.node._settings import Settings
from umbel.node._stock import Key, Stock, brief, unless_cancelled
from umbel.node._workshop import Workshop

_TRIES: Final = 3  # times that a blob may come wrong


class _UnreadyError(Exception):
    """A message that cannot be handled; ``outcome`` says why."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.outcome = failed(code, reason)


def _unavailable(error: Exception) -> _UnreadyError:
    return _UnreadyError(ErrorCode.MESSAGE_UNAVAILABLE, f"expected the content of the message, got: {brief(error)}")


class Bench:
    """Handles the messages in the spool, the oldest first, those of one run in the order of the server."""

    def __init__(self, stock: Stock, line: Line, workshop: Workshop, settings: Settings, place: Membership) -> None:
        self._stock = stock
        self._line = line
        self._workshop = workshop
        self._policy = settings.policy
        self._config = dict(settings.config)
        self._place = place
        self._current: Key | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._killed = False

    async def run(self) -> None:
        """Handle messages for ever."""
        while True:
            task = self._stock.spool.next_task()
            if task is None:
                await self._stock.work()
                continue
            self._current = (task.run, task.message)
            self._stock.board.begin(task)
            await self._handle(task)
            self._current = None
            await self._tidy()
            self._stock.ring()

    async def _tidy(self) -> None:
        """Have a process that was killed replaced, in case it had answered before: the next message needs one."""
        if self._killed:
            self._killed = False
            await self._workshop.discard()

    def cancel(self, key: Key) -> None:
        """Stop what is done for a message that the spool has forgotten."""
        if key != self._current:
            return
        if self._fetching is not None:
            self._fetching.cancel()
        else:
            self._killed = True
            self._workshop.kill()

    async def _handle(self, task: Task) -> None:
        spool, key = self._stock.spool, (task.run, task.message)
        began = time.monotonic()
        waited = began - self._stock.arrived.pop(key, began)
        desk = await self._stock.stored(spool.desk)
        outcome = await self._outcome(task, desk)
        seconds = {"waiting": waited, **outcome.seconds}
        outcome = msgspec.structs.replace(outcome, seconds=seconds)
        answer = await self._stock.stored(lambda: spool.finish(task, outcome, desk))
        if answer is None:
            self._stock.board.change(running=None)
            return
        failpoint("node.trained")
        self._stock.board.end(outcome.error_reason)

    async def _outcome(self, task: Task, desk: Path) -> Outcome:
        clock = time.monotonic()
        try:
            job = await self._job(task, desk)
        except _UnreadyError as unready:
            return unready.outcome
        fetched = time.monotonic() - clock
        outcome = await self._workshop.run(job)
        refusal = None if outcome.content is None else self._policy.reply_refusal(outcome.content.size)
        if refusal is not None:
            return failed(ErrorCode.NOT_ALLOWED, refusal)
        return msgspec.structs.replace(outcome, seconds={"downloading": fetched, **outcome.seconds})

    async def _job(self, task: Task, desk: Path) -> Job:
        """Bring together what a message needs; raises ``_UnreadyError``."""
        spool = self._stock.spool
        refusal = self._policy.refusal(task.run_name, task.message_type, task.content.size)
        if refusal is not None:
            raise _UnreadyError(ErrorCode.NOT_ALLOWED, refusal)
        try:
            state, missing = await self._stock.needs(task)
        except SpoolDamaged as error:
            raise _UnreadyError(ErrorCode.UNKNOWN, str(error)) from error
        except DigestMismatch as error:  # what names a blob is no digest
            raise _unavailable(error) from error
        if missing:
            await self._fetch(missing)
        await self._stock.stored(lambda: spool.begin(task))
        return Job(
            run=task.run,
            message=task.message,
            round=task.round,
            message_type=task.message_type,
            seed=task.seed,
            ttl=task.ttl,
            run_config=dict(task.run_config),
            member=self._place.member,
            node_name=self._place.name,
            node_config=self._config,
            content=task.content,
            state=state,
            blobs=str(spool.blobs),
            desk=str(desk),
        )

    async def _fetch(self, missing: Mapping[str, int]) -> None:
        self._fetching = asyncio.ensure_future(self._blobs(missing))
        try:
            if not await unless_cancelled(self._fetching):
                raise _UnreadyError(ErrorCode.MESSAGE_UNAVAILABLE, "the message is no longer wanted")
        except (UmbelError, OSError) as error:
            if isinstance(error, UmbelError) and is_fatal(error):
                raise
            raise _unavailable(error) from error
        finally:
            self._fetching = None

    async def _blobs(self, missing: Mapping[str, int]) -> None:
        for digest, size in missing.items():
            found = await self._blob(digest)
            if found != size:  # the policy was asked about the size that the server said
                raise Mismatch(f"expected a blob of {size} bytes, got one of {found}", at=digest)
            self._stock.spool.arrived(digest, size, checked=True)

    async def _blob(self, digest: str) -> int:
        """Fetch a blob, again if it came wrong, and return its size."""
        path, left = self._stock.spool.incoming(digest), _TRIES
        while True:
            try:
                return await self._line.fetch(digest, path)
            except DigestMismatch:
                left -= 1
                if not left:
                    raise
