"""What a run is to the parts of the server that drive it, as frozen values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from umbel.envelope import Content
from umbel.grid import Node

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

    ``at`` is when an answer came, in seconds since 1970. One that is ``stored`` says only that there is an answer:
    it is in the ledger.
    """

    message: int
    content: Content | None = None
    error_code: int = 0
    reason: str = ""
    seconds: Mapping[str, float] | None = None
    stored: bool = False
    at: float = 0.0


class Phase(NamedTuple):
    """A phase that is planned: the nodes there were, when it was planned, and the bytes that each was sent.

    ``settled`` are the fates that are known, in the order in which they came to be.
    """

    roster: Sequence[Node]
    at: float
    sent: int
    settled: Sequence[Fate] = ()


class Note(NamedTuple):
    """What is known of a message for its story: its number, the bytes of what was sent, and where the seconds went."""

    message: int
    sent: int
    seconds: dict[str, float] | None = None


class Offer(NamedTuple):
    """The nodes that can be asked now, and in words what is still missing; nothing is when a phase can begin."""

    roster: Sequence[Node]
    missing: str
