"""What a thread has done for tasks of an event loop, told to it in one go."""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeAlias

_Pair: TypeAlias = "tuple[asyncio.Future[Any], Future[Any]]"


class Answers:
    """Takes what became of futures of other threads to those of one event loop, which is woken once for many."""

    def __init__(self) -> None:
        self._given: deque[_Pair] = deque()
        self._is_woken = False

    def give(self, waiting: "asyncio.Future[Any]", done: "Future[Any]") -> None:
        """Let ``waiting`` have what ``done`` has, soon. Any thread may call this."""
        self._given.append((waiting, done))
        loop = waiting.get_loop()
        # The loop clears the mark before it looks, so whoever finds it set is seen.
        if not self._is_woken and not loop.is_closed():
            self._is_woken = True
            loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._is_woken = False
        while self._given:
            waiting, done = self._given.popleft()
            if not waiting.done():
                _copy(done, waiting)


def _copy(done: "Future[Any]", waiting: "asyncio.Future[Any]") -> None:
    error = done.exception()
    if error is None:
        waiting.set_result(done.result())
    else:
        waiting.set_exception(error)
