"""What a run is to the parts of the server that drive it, as frozen values."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from umbel.envelope import Content
from umbel.grid import Node
from umbel.message import Error, Message

Config: TypeAlias = dict[str, bool | int | float | str]


class Halted(Exception):
    """The loop of a run is left at a point from which it can go on."""


class Commission(NamedTuple):
    """A run, as its grid needs it. ``wanted`` is how many nodes, or the names of the only ones, that it is for."""

    run: int
    name: str
    seed: int
    config: dict[str, bool | int | float | str]
    wanted: int | tuple[str, ...]


class Fate(NamedTuple):
    """What became of a message: content, or an error and why; and where the node's seconds went, if that is known.

    ``at`` is when an answer came, in seconds since 1970, and ``fence`` the number that it came under, 0 if that is not
    known. One that is ``stored`` says only that there is an answer: it is in the ledger.
    """

    message: int
    content: Content | None = None
    error: Error | None = None
    seconds: Mapping[str, float] | None = None
    stored: bool = False
    at: float = 0.0
    fence: int = 0


class Planned(NamedTuple):
    """A message that the ledger has and the loop has not asked for yet: its node, and what became of it if it ended."""

    node: int
    fate: Fate | None = None


class Phase(NamedTuple):
    """A phase that is planned: the nodes there were, when it was planned, for how long, and what each was sent.

    ``content`` is None once its round is closed. ``messages`` are those that were planned before.
    """

    roster: Sequence[Node]
    at: float
    ttl: float
    content: Content | None
    messages: Mapping[int, Planned] = MappingProxyType({})

    @property
    def sent(self) -> int:
        """The bytes that each node was sent."""
        return 0 if self.content is None else self.content.size


class Asked(NamedTuple):
    """A message that waits for its reply: what the loop asked, of whom, when, and how many bytes that took.

    ``gone`` are seconds that had passed when a server took it up again: they are not the node's.
    """

    message: Message
    name: str
    at: float
    sent: int
    gone: float = 0.0


class Note(NamedTuple):
    """What is known of a message for its story: its round, the bytes of what was sent, and where the seconds went."""

    round: int
    sent: int
    seconds: dict[str, float] | None = None


class Offer(NamedTuple):
    """The nodes that can be asked now, and in words what is still missing; nothing is when a phase can begin."""

    roster: Sequence[Node]
    missing: str
