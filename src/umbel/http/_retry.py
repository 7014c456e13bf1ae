"""When to try again."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from umbel.errors import ServerUnreachable, TooManyRequests

_FIRST: Final = 0.1
_MOST: Final = 1.8

T = TypeVar("T")


def backoff() -> Iterator[float]:
    """Yield seconds to wait before each further try: 0.25 at most at first, never 2 or more, with jitter."""
    wait = _FIRST
    while True:
        # Not for secrets: it only spreads out those who come back.
        yield wait * random.uniform(0.5, 1.0) + random.uniform(0.0, 0.1)  # noqa: S311
        wait = min(2 * wait, _MOST)


async def keep_trying(
    operation: Callable[[], Awaitable[T]],
    *,
    waiting: Callable[[ServerUnreachable | TooManyRequests], None] | None = None,
) -> T:
    """Return what ``operation`` returns, repeated for as long as the server is not to be reached, or too busy.

    ``waiting`` is told each time. Any other error ends it.
    """
    waits = backoff()
    while True:
        try:
            return await operation()
        except ServerUnreachable as error:
            failure: ServerUnreachable | TooManyRequests = error
            wait = next(waits)
        except TooManyRequests as error:
            failure, wait = error, error.retry_after
        if waiting is not None:
            waiting(failure)
        await asyncio.sleep(wait)
