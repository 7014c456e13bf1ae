"""What a run is to the parts of the server that drive it, as frozen values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from umbel.envelope import Content
from umbel.grid import Node

Config: TypeAlias = dict[str, bool | int | float | str]


class Commission(NamedTuple):
    """A run, as its grid needs it. ``wanted`` is how many nodes, or the names of the only ones, that it is for."""

    run: int
    name: str
    seed: int
    config: dict[str, bool | int | float | str]
    wanted: int | tuple[str, ...]


class Fate(NamedTuple):
    """What became of a message: content, or an error and why; and where the node's seconds went, if that is known.

    One that is ``stored`` says only that there is an answer, which is in the ledger.
    """

    message: int
    content: Content | None = None
    error_code: int = 0
    reason: str = ""
    seconds: Mapping[str, float] | None = None
    stored: bool = False


class Phase(NamedTuple):
    """A phase that is planned: the nodes there were, the fates that are known, and the bytes that each was sent."""

    roster: Sequence[Node]
    settled: Sequence[Fate]
    sent: int


class Note(NamedTuple):
    """What is known of a message for its story: its number, the bytes of what was sent, and where the seconds went."""

    message: int
    sent: int
    seconds: dict[str, float] | None = None


class Offer(NamedTuple):
    """The nodes that can be asked now, and in words what is still missing; nothing is when a phase can begin."""

    roster: Sequence[Node]
    missing: str
