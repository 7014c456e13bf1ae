"""What the three loops of a node share: the spool, the board, and bells that ring when there is something to do."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from umbel.envelope import Content
from umbel.errors import UmbelError
from umbel.http.wire import Task
from umbel.node._run import Finished
from umbel.node._spool import Spool
from umbel.node._status import Board

_T = TypeVar("_T")
_FULL: Final = 2.0  # seconds before a disk that refused is asked again

Key = tuple[int, int]  # run and message


class Stock:
    """The spool of a running node. Its files are written by the event loop's thread alone.

    ``late`` are finished messages that the server no longer wants, as far as it has said.
    """

    def __init__(self, spool: Spool, board: Board) -> None:
        self.spool = spool
        self.board = board
        self.late: set[Key] = set()
        self.arrived: dict[Key, float] = {}
        self._work = asyncio.Event()
        self._mail = asyncio.Event()

    async def work(self) -> None:
        """Wait until there may be a message to handle."""
        await self._work.wait()
        self._work.clear()

    async def mail(self) -> None:
        """Wait until there may be a reply to send."""
        await self._mail.wait()
        self._mail.clear()

    def ring(self) -> None:
        """Have both look again."""
        self._work.set()
        self._mail.set()
        self.board.change(holding=len(self.spool.holding))

    async def stored(self, change: Callable[[], _T]) -> _T:
        """Return what a change of the spool returns, repeated for as long as the disk refuses it."""
        while True:
            try:
                return change()
            except OSError as error:
                self.board.note(f"the folder of the node cannot be written, and is tried again: {error}")
            await asyncio.sleep(_FULL)

    async def needs(self, task: Task) -> tuple[Content | None, dict[str, int]]:
        """Return the state of a task's run, and the blobs of the task that must be fetched, with their sizes.

        Blobs that are there may have to be read first. Raises ``SpoolDamaged`` for a state that is lost.
        """

        def look() -> tuple[Content | None, dict[str, int]]:
            return self.spool.state(task.run), self.spool.missing(task.content)

        return look() if self.spool.is_read(task.run, task.content) else await asyncio.to_thread(look)

    async def is_whole(self, finished: Finished) -> bool:
        """Say whether the blobs of a finished reply are what was written."""
        return await asyncio.to_thread(self.spool.is_whole, finished)


async def unless_cancelled(task: "asyncio.Task[None]") -> bool:
    """Wait for a task and raise what it raises; return False if it was cancelled, while this one was not."""
    try:
        await asyncio.wait((task,))
    finally:
        task.cancel()
    if task.cancelled():
        return False
    task.result()
    return True


def brief(error: BaseException) -> str:
    """Return an error with its kind, in at most 500 characters."""
    text = str(error) if isinstance(error, UmbelError) else f"{type(error).__name__}: {error}"
    return text[:500]
