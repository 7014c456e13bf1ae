"""What a server keeps, as its other parts use it: the ledger, the blobs, and what ties them together."""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from umbel.envelope import Content, pack
from umbel.errors import BlobMissing
from umbel.failpoint import failpoint
from umbel.records import RecordSet
from umbel.server._answers import Answers
from umbel.server._metrics import Metrics
from umbel.store import Blobs, Ledger, Uploads, collect, here, references, verify

_T = TypeVar("_T")
_ATTEMPTS: Final = 3
Operation = Callable[[sa.Connection], _T]


class Keeper:
    """The ledger and the blobs of a server. Safe to use from any thread; every change waits until it is on disk."""

    def __init__(self, ledger: Ledger, blobs: Blobs, uploads: Uploads, metrics: Metrics) -> None:
        self._ledger = ledger
        self.blobs = blobs
        self.uploads = uploads
        self._metrics = metrics
        self._later = ThreadPoolExecutor(1, "umbel-blobs")
        self._answers = Answers()

    def close(self) -> None:
        """Finish what is to be done soon."""
        self._later.shutdown()

    def read(self, operation: Operation[_T]) -> _T:
        """Return what a reading operation returns."""
        return self._ledger.read(operation)

    def write(self, operation: Operation[_T]) -> _T:
        """Run a writing operation in a transaction, and return once it is on disk. Not for the event loop."""
        return self._write(operation).result()

    async def commit(self, operation: Operation[_T]) -> _T:
        """Do the same on the event loop, which goes on meanwhile."""
        waiting: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._write(operation).add_done_callback(lambda done: self._answers.give(waiting, done))
        return await waiting

    async def look(self, operation: Operation[_T]) -> _T:
        """Do as ``read``, on the event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self._ledger.read, operation)

    def _write(self, operation: Operation[_T]) -> Future[_T]:
        begun = time.perf_counter()
        future: Future[_T] = self._ledger.write(operation)
        future.add_done_callback(lambda _: self._metrics.commits.observe(time.perf_counter() - begun))
        return future

    def store(self, content: RecordSet, use: Callable[[Content], _T]) -> _T:
        """Take content apart into blobs, and return what ``use`` makes of that in a transaction.

        A blob that was there, and that was collected before the transaction held it, is written again.
        """
        for _ in range(_ATTEMPTS):
            with suppress(BlobMissing):
                return use(pack(content, self.blobs.put, self.blobs.put))
        return use(pack(content, self.blobs.put, self.blobs.put))

    def flush(self, digests: Collection[str]) -> None:
        """Have blobs that members sent on the disk, which may not have them yet. Not for the event loop."""
        for digest in digests:
            self.blobs.put([self.blobs.get(digest)])

    def needed(self, run: int) -> dict[str, int]:
        """Return the digests that a run needs, with their sizes."""
        return self.read(lambda connection: references.of_run(connection, run))

    def unneeded(self) -> set[str]:
        """Return the digests of the blobs on this machine that nothing needs."""
        return self.read(partial(references.unreferenced, digests=here(self.blobs)))

    def discard(self, digests: Collection[str]) -> None:
        """Delete blobs, soon, unless something needs them."""
        if digests:
            self._later.submit(self._discard, list(digests))

    def _discard(self, digests: list[str]) -> None:
        for digest in digests:
            failpoint("server.collecting")
            # One at a time: while a large file goes, nothing is committed.
            self._ledger.between(partial(self._delete, digest)).result()

    def _delete(self, digest: str, connection: sa.Connection) -> None:
        if references.unreferenced(connection, [digest]):
            self.blobs.delete(digest)

    def collect(self, seen: frozenset[str]) -> frozenset[str]:
        """Delete the blobs that nothing needs now, nor did in the pass before; return what to look at next time."""
        return collect(self._ledger, self.blobs, seen=seen).seen

    def present(self, digest: str) -> int | None:
        """Return the size of a blob, or None if none is known; the thread that writes the ledger may ask this."""
        return self.blobs.known(digest)

    def blob(self, digest: str) -> Any:
        """Return the bytes of a blob, mapped if the store can."""
        return self.blobs.get(digest)

    def whole(self, digest: str) -> Any:
        """Do the same for one that came before this start: a disk may have damaged it since, so it is hashed again.

        Raises ``DigestMismatch``, and deletes it, if it is another.
        """
        verify(self.blobs, digest)
        return self.blobs.get(digest)
