"""Who is there: judged by progress alone, polls and bytes of bodies, on a clock that nobody can set."""

import time
from collections.abc import Callable


class Presence:
    """When each node was last heard of, in memory: a start of the server forgets it, so nobody is silent at first.

    ``patience`` is how many seconds a node may be silent. ``clock`` is monotonic. One thread uses an instance.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._started = clock()
        self._seen: dict[int, float] = {}
        self._moved: dict[int, float] = {}

    def seen(self, member: int) -> None:
        """Take note of a poll."""
        self._seen[member] = self._clock()

    def moved(self, member: int) -> None:
        """Take note of bytes of a body, going either way."""
        self._seen[member] = self._moved[member] = self._clock()

    def is_here(self, member: int) -> bool:
        """Say whether the node was heard of since the start, at most ``patience`` seconds ago."""
        return member in self._seen and not self.is_silent(member)

    def is_silent(self, member: int) -> bool:
        """Say whether the node was not heard of for ``patience``; of one that has not called yet, since the start."""
        return self.seconds_silent(member) >= self._patience

    def is_moving(self, member: int) -> bool:
        """Say whether bytes of the node moved in the last ``patience`` seconds."""
        return member in self._moved and self._clock() - self._moved[member] < self._patience

    def seconds_silent(self, member: int) -> float:
        """Return for how long the node was not heard of; of one that has not called, since the start."""
        return self._clock() - self._seen.get(member, self._started)

    def seconds_since(self, member: int) -> float | None:
        """Return for how long the node was not heard of; None for one that has not called since the start."""
        return self._clock() - self._seen[member] if member in self._seen else None
