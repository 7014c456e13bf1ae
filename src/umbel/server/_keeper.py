"""What a server keeps, as its other parts use it: the ledger, the blobs, and what ties them together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import sqlalchemy as sa

from umbel.envelope import Part
from umbel.server._metrics import Metrics
from umbel.store import Blobs, Ledger, messages

_T = TypeVar("_T")
Operation = Callable[[sa.Connection], _T]


class Keeper:
    """The ledger and the blobs of a server. Safe to use from any thread; every change waits until it is on disk."""

    def __init__(self, ledger: Ledger, blobs: Blobs, metrics: Metrics) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._metrics = metrics

    def read(self, operation: Operation[_T]) -> _T:
        """Return what a reading operation returns."""
        return self._ledger.read(operation)

    def write(self, operation: Operation[_T]) -> _T:
        """Run a writing operation in a transaction, and return once it is on disk. Not for the event loop."""
        return self._write(operation).result()

    async def commit(self, operation: Operation[_T]) -> _T:
        """Do the same on the event loop, which goes on meanwhile."""
        return await asyncio.wrap_future(self._write(operation))

    async def look(self, operation: Operation[_T]) -> _T:
        """Do as ``read``, on the event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self._ledger.read, operation)

    def _write(self, operation: Operation[_T]) -> Future[_T]:
        begun = time.perf_counter()
        future: Future[_T] = self._ledger.write(operation)
        future.add_done_callback(lambda _: self._metrics.commits.observe(time.perf_counter() - begun))
        return future

    def plan(self, plan: messages.Plan) -> float:
        """Plan a phase and return when, in seconds since 1970."""
        now = time.time()
        self.write(lambda connection: messages.plan(connection, plan, now=now, present=self.present))
        return now

    def present(self, digest: str) -> int | None:
        """Return the size of a blob, or None if there is no such blob."""
        return self._blobs.has(digest)

    def put(self, segments: Sequence[bytes | memoryview]) -> Part:
        """Store segments as one blob; nothing is written if it is there."""
        return self._blobs.put(segments)

    def blob(self, digest: str) -> Any:
        """Return the bytes of a blob, mapped if the store can."""
        return self._blobs.get(digest)
