"""What a run is to the parts of the server that drive it, as frozen values."""

from collections.abc import Sequence
from typing import NamedTuple

from umbel.envelope import Content
from umbel.grid import Node
from umbel.http.wire import Config


class Commission(NamedTuple):
    """A run, as its grid needs it. ``wanted`` is how many nodes, or the names of the only ones, that it is for."""

    run: int
    name: str
    seed: int
    config: Config
    wanted: int | tuple[str, ...]


class Fate(NamedTuple):
    """What became of a message: content, or an error and why."""

    message: int
    content: Content | None
    error_code: int
    reason: str


class Phase(NamedTuple):
    """A phase of a round that is planned: the nodes there were, and the fates that are known by now."""

    roster: Sequence[Node]
    settled: Sequence[Fate]


class Offer(NamedTuple):
    """The nodes that can be asked now, and in words what is still missing; nothing is when a phase can begin."""

    roster: Sequence[Node]
    missing: str
