"""Whose turn it is where rounds overlap: who is asked when somebody has answered, whose updates make a model now."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from umbel.rounds._gather import Question
from umbel.rounds._held import Held
from umbel.rounds._memory import Memory
from umbel.strategy import Overlap
from umbel.strategy._informed import by_speed


class Turns(Protocol):
    """Nodes in tiers; ``busy`` is how many of each train."""

    def groups(self, question: Question, memory: Memory) -> Sequence[Sequence[int]]:
        """Return the positions of each tier in a round."""

    def full(self, held: Held, busy: Mapping[int, int]) -> int | None:
        """Return the tier whose updates make the next model now, if there is one."""

    def room(self, tier: int, held: Held, busy: Mapping[int, int]) -> int:
        """Return how many more nodes of a tier can be asked."""


class Buffer(NamedTuple):
    """All nodes are of one tier: whoever answers makes room for another, and so many updates make a model."""

    concurrency: int
    size: int

    def groups(self, question: Question, memory: Memory) -> Sequence[Sequence[int]]:
        """Return all positions."""
        del memory
        return [question.positions]

    def full(self, held: Held, busy: Mapping[int, int]) -> int | None:
        """Return the tier once the buffer is full."""
        del busy
        return 0 if held.count(0) >= self.size else None

    def room(self, tier: int, held: Held, busy: Mapping[int, int]) -> int:
        """Return how many train too few."""
        del held
        return self.concurrency - busy[tier]


class Tiers(NamedTuple):
    """Nodes of a tier wait for one another: a model is made when none of them trains, of ``least`` updates or more."""

    number: int
    size: int
    least: int

    def groups(self, question: Question, memory: Memory) -> Sequence[Sequence[int]]:
        """Return the positions by speed."""
        occasion = memory.occasion(question.nodes, 0, question.round)
        return by_speed(question.positions, self.number, self.least, occasion)

    def full(self, held: Held, busy: Mapping[int, int]) -> int | None:
        """Return the first tier that waits for nobody any more, and has enough."""
        done = (tier for tier in range(self.number) if not busy[tier])
        return next((tier for tier in done if held.count(tier) >= self.least), None)

    def room(self, tier: int, held: Held, busy: Mapping[int, int]) -> int:
        """Return nothing while a tier trains; then a whole cohort, or as many as are missing for lack of updates."""
        here = held.count(tier)
        return 0 if busy[tier] or here >= self.least else self.size - here


def turns_of(plan: Overlap, least: int) -> Turns:
    """Return whose turn it is by a plan, in rounds that need at least so many updates."""
    return Tiers(plan.tiers, plan.buffer, least) if plan.tiers else Buffer(plan.concurrency, plan.buffer)
