"""The loop that asks for work, all the time: the poll is the node's heartbeat."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

from umbel.failpoint import failpoint
from umbel.http.wire import Poll, Polled, Task
from umbel.node._line import Line
from umbel.node._membership import RELEASE
from umbel.node._stock import Key, Stock

_ROOM: Final = 4  # messages that a node takes in advance, each of another run
_PAUSE: Final = 0.5  # seconds, when the server can say nothing new yet


class Inbox:
    """Polls for one start of a node. ``cancel`` is told of messages that are no longer wanted."""

    def __init__(
        self, stock: Stock, line: Line, app: str, types: tuple[str, ...], cancel: Callable[[Key], None]
    ) -> None:
        self._stock = stock
        self._line = line
        self._app = app
        self._types = types
        self._cancel = cancel
        self._instance = secrets.token_hex(16)

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            polled = await self._line.poll(self._poll())
            for task in polled.tasks:
                await self._accept(task)
            if polled.cancelled and not self._forget(polled) and not polled.tasks:
                await asyncio.sleep(_PAUSE)  # until a reply that came too late is out of our hands

    def _poll(self) -> Poll:
        spool = self._stock.spool
        return Poll(
            instance=self._instance,
            holding=spool.holding,
            room=max(0, _ROOM - len(spool.waiting)),
            app=self._app,
            types=list(self._types),
            release=RELEASE,
        )

    async def _accept(self, task: Task) -> None:
        await self._stock.stored(lambda: self._stock.spool.accept(task))
        failpoint("node.leased")
        key = (task.run, task.message)
        self._stock.late.discard(key)
        self._stock.arrived[key] = time.monotonic()
        self._stock.ring()

    def _forget(self, polled: Polled) -> bool:
        """Give up what is no longer wanted; return whether that was anything."""
        spool = self._stock.spool
        held = {(each.run, each.message): each.fence for each in spool.holding}
        unwanted = [each for each in polled.cancelled if held.get((each.run, each.message)) == each.fence]
        gone = spool.cancel(unwanted)
        finished = {(each.run, each.message) for each in unwanted}.difference(gone)
        self._stock.late.update(finished)
        for key in (*gone, *finished):
            self._stock.arrived.pop(key, None)
            self._cancel(key)
        self._stock.ring()
        return bool(gone)
