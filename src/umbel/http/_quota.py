"""How much of a server one member, or one address, may have."""

import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from umbel.errors import TooManyRequests

_KEPT: Final = 10_000  # buckets, before those that are full again are dropped


def too_many(what: str, wait: float, *, at: str = "") -> TooManyRequests:
    """Return the error that says how long to wait, with jitter, so that not all come back at once."""
    error = TooManyRequests(f"expected less at once: {what}; wait, then go on", at=at)
    # Not for secrets: it only spreads out those who wait.
    error.retry_after = round(wait * random.uniform(1.0, 1.5) + random.uniform(0.0, 0.25), 3)  # noqa: S311
    return error


class Rates:
    """Token buckets by key: ``rate`` a second, ``burst`` seconds of them at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(1.0, rate * burst)
        self._clock = clock
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable, at: str) -> None:
        """Take one from the bucket of ``key``.

        Raises ``TooManyRequests`` if it is empty.
        """
        now = self._clock()
        left, since = self._buckets.get(key, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        if left < 1.0:
            raise too_many(f"at most {self._rate:g} requests a second", (1.0 - left) / self._rate, at=at)
        self._buckets[key] = (left - 1.0, now)
        if len(self._buckets) > _KEPT:
            self._drop_full(now)

    def _drop_full(self, now: float) -> None:
        cut = self._most / self._rate
        self._buckets = {key: held for key, held in self._buckets.items() if now - held[1] < cut}

    def __len__(self) -> int:
        return len(self._buckets)


class Places:
    """How many of something are open at once, by key."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._taken: dict[Hashable, int] = {}

    @contextmanager
    def one(self, key: Hashable, at: str) -> Iterator[None]:
        """Hold a place.

        Raises ``TooManyRequests`` if all are taken.
        """
        self.enter(key, at)
        try:
            yield
        finally:
            self.leave(key)

    def enter(self, key: Hashable, at: str) -> None:
        """Take a place; raises ``TooManyRequests`` if there is none."""
        taken = self._taken.get(key, 0)
        if taken >= self._most:
            raise too_many(f"at most {self._most} {self._what}", 0.5, at=at)
        self._taken[key] = taken + 1

    def leave(self, key: Hashable) -> None:
        """Give a place back."""
        taken = self._taken[key] - 1
        if taken:
            self._taken[key] = taken
        else:
            del self._taken[key]

    def __len__(self) -> int:
        return sum(self._taken.values())


class Budget:
    """Bytes that may be held at once, by everyone together."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes.

        Raises ``TooManyRequests`` if so many are not left.
        """
        if size > self._left:
            raise too_many("the server is reading as many bodies as it has room for", 0.5)
        self._left -= size
        try:
            yield
        finally:
            self._left += size
