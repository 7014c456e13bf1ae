"""Whom to ask next: nodes of a selection one by one, in an order that the run's seed and the round decide."""

from collections.abc import Collection, Sequence
from typing import Final

from umbel.context import derive_seed
from umbel.grid import Node
from umbel.message import Message
from umbel.rounds._gather import Question

_REJECTIONS: Final = 32


class Draw:
    """The nodes of a round's question that can be asked, in groups, each of which is drawn from by itself."""

    def __init__(self, seed: int, question: Question, groups: Sequence[Sequence[int]]) -> None:
        self.question = question
        self._seed, self._groups = seed, groups
        self._tries = [0] * len(groups)
        self._asked: set[int] = set()

    def next(self, group: int, *busy: Collection[str]) -> tuple[Node, Message] | None:
        """Return a node that was not drawn before and is not busy, and the message to it; None if there is none."""
        place = self._place(group, busy)
        if place is None:
            return None
        node = self.question.nodes[place]
        message = self.question.message(len(self._asked), node)
        self._asked.add(place)
        return node, message

    def _place(self, group: int, busy: Sequence[Collection[str]]) -> int | None:
        positions = self._groups[group]
        for _ in range(_REJECTIONS):
            if len(positions) <= len(self._asked) and all(place in self._asked for place in positions):
                return None
            place = positions[self._index(group, len(positions))]
            if self._is_free(place, busy):
                return place
        free = [place for place in positions if self._is_free(place, busy)]
        return free[self._index(group, len(free))] if free else None

    def _index(self, group: int, count: int) -> int:
        self._tries[group] += 1
        of = f" of tier {group + 1}" if len(self._groups) > 1 else ""
        return derive_seed(self._seed, self.question.round, "", f"draw {self._tries[group]}{of}") * count >> 63

    def _is_free(self, place: int, busy: Sequence[Collection[str]]) -> bool:
        if place in self._asked:
            return False
        name = self.question.nodes[place].name
        return not any(name in names for names in busy)
