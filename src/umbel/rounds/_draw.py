"""Whom to ask next: nodes of a selection one by one, in an order that the run's seed and the round decide."""

from collections.abc import Callable, Sequence
from typing import Final

from umbel.context import derive_seed
from umbel.grid import Node
from umbel.message import Message
from umbel.rounds._gather import Question

_REJECTIONS: Final = 32


class Draw:
    """The nodes of a round's question that can be asked, in groups, each of which is drawn from by itself.

    ``is_busy`` says which nodes cannot be asked at present, given a group and a name. Where most of many nodes are
    busy, all are looked through for those that are free, and not again until one more of them may be.
    """

    def __init__(
        self, seed: int, question: Question, groups: Sequence[Sequence[int]], is_busy: Callable[[int, str], bool]
    ) -> None:
        self.question = question
        self._seed, self._groups, self._is_busy = seed, groups, is_busy
        self._tries = [0] * len(groups)
        self._asked: list[set[int]] = [set() for _ in groups]
        self._free: list[list[int] | None] = [None] * len(groups)
        self._slots = 0

    def look_again(self) -> None:
        """Take note that other nodes may be free now."""
        self._free = [None] * len(self._groups)

    def next(self, group: int) -> tuple[Node, Message] | None:
        """Return a node that was not drawn before and is not busy, and the message to it; None if there is none."""
        place = self._place(group)
        if place is None:
            return None
        node = self.question.nodes[place]
        message = self.question.message(self._slots, node)
        self._asked[group].add(place)
        self._slots += 1
        return node, message

    def _place(self, group: int) -> int | None:
        positions, free = self._groups[group], self._free[group]
        if len(self._asked[group]) == len(positions):
            return None
        if free is None:
            for _ in range(_REJECTIONS):
                place = positions[self._index(group, len(positions))]
                if self._is_free(group, place):
                    return place
            free = self._free[group] = [place for place in positions if self._is_free(group, place)]
        return free.pop(self._index(group, len(free))) if free else None

    def _index(self, group: int, count: int) -> int:
        self._tries[group] += 1
        of = f" of tier {group + 1}" if len(self._groups) > 1 else ""
        return derive_seed(self._seed, self.question.round, "", f"draw {self._tries[group]}{of}") * count >> 63

    def _is_free(self, group: int, place: int) -> bool:
        return place not in self._asked[group] and not self._is_busy(group, self.question.nodes[place].name)
