"""What a main that drives a run and its server say to each other, as frozen values; `umbel.http.wire` has the rest."""

from typing import Final

import msgspec

from umbel.envelope import Content

__all__ = ["AT_ONCE", "Answers", "Asked", "Asking", "Ending", "GivenUp", "Roster", "Told", "Wanted"]

#: Messages that one body asks or gives up, at most: a commit may not keep all others waiting.
AT_ONCE: Final = 10_000


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all bodies have in common."""


class Wanted(_Body, frozen=True):
    """Call ``call`` of a main: for which round and type of message it wants to know the nodes."""

    call: int
    round: int
    message_type: str


class Roster(_Body, frozen=True):
    """The nodes by name, and their ids; none as long as there is something to wait for."""

    names: list[str]
    nodes: list[int]
    missing: str = ""


class Asking(_Body, frozen=True):
    """Call ``call`` of a main: up to ``AT_ONCE`` messages of one content, by number, and the node that each is for."""

    call: int
    round: int
    message_type: str
    ttl: float
    content: Content
    messages: list[int]
    nodes: list[int]


class Asked(_Body, frozen=True):
    """When messages were planned, in seconds since 1970."""

    at: float


class Told(_Body, frozen=True):
    """What became of a message of a main: content or an error, and when it came, 0 if nothing did."""

    message: int
    at: float
    content: Content | None = None
    error_code: int | None = None
    error_reason: str | None = None


class Answers(_Body, frozen=True):
    """What a main is told after so many answers; their order never changes."""

    answers: list[Told]


class GivenUp(_Body, frozen=True):
    """Up to ``AT_ONCE`` messages of which a main will not hear any more."""

    messages: list[int]


class Ending(_Body, frozen=True):
    """A main has ended: with a state, and the digest of the model in it, or with the reason why it failed.

    ``calls`` is how many it made in all: one that was run again and makes fewer than before is another main.
    """

    calls: int | None = None
    reason: str = ""
    digest: str = ""
    state: Content | None = None
