"""The seam between the training loop and whatever runs the nodes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from umbel.message import Message

__all__ = ["Grid", "Node"]


class Node(NamedTuple):
    """A node as the server knows it: a stable name for people, and the id that its messages carry."""

    name: str
    node_id: int


class Grid(Protocol):
    """Five verbs with which a training loop reaches its nodes; an engine is a class that has them.

    The loop promises to read ``replies()`` to its end, or to ``cancel`` what it no longer wants, before it sends again.
    To a grid with ``overlapping = True`` it may send more in between, and go on with ``replies()`` later. A reply's
    ``created_at`` is when it came, and its ``ttl`` what was left of the message's, both on the grid's own clock.
    """

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes that can be asked in a phase of a round, sorted by name, without listing them.

        A million may cost nothing. A grid whose nodes come and go gives those that are there and handle the type; for
        a phase that was begun before, those that it was begun with.
        """
        ...

    def send(self, messages: Iterable[Message]) -> None:
        """Ask the nodes; ``messages`` may be read now or only when a node is free to take the next one."""
        ...

    def replies(self) -> Iterator[Message]:
        """Yield replies in any order, until nothing is outstanding or the engine stops waiting.

        A node whose reply never comes is left out: the loop sees which of its messages were not answered.
        """
        ...

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give these messages up; a reply to one of them need not come, and is ignored if it does."""
        ...

    def close(self) -> None:
        """Stop and give back what the engine holds; nothing is outstanding afterwards."""
        ...
