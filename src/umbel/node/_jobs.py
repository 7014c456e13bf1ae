"""What a node and its handler's process say to each other: one line of JSON each time, through a pipe.

Arrays never cross the pipe. The handler's process maps the blobs of the message, and writes those of its reply itself.
"""

from typing import Any, Final, TypeAlias

import msgspec

from umbel.envelope import Content

Config: TypeAlias = dict[str, bool | int | float | str]


class Setup(msgspec.Struct, frozen=True):
    """The first line to the process: which app, in which folder, with how many bytes of memory at most."""

    app: str
    folder: str
    memory: int | None
    tracebacks: bool


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The app is there and handles messages of these types."""

    types: tuple[str, ...]


class NotLoaded(msgspec.Struct, frozen=True, tag=True):
    """The app cannot be loaded: why, and on which line."""

    message: str
    at: str


class Job(msgspec.Struct, frozen=True):
    """A message to handle, all that its context needs, and two folders: of blobs, and for those of the reply."""

    run: int
    message: int
    round: int
    message_type: str
    seed: int
    ttl: float
    run_config: Config
    member: int
    node_name: str
    node_config: Config
    content: Content
    state: Content | None
    blobs: str
    desk: str


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """What became of a message: content and the node's next state (None if it is empty), or an error.

    ``seconds`` says where the time went, by phase.
    """

    content: Content | None = None
    state: Content | None = None
    error_code: int | None = None
    error_reason: str | None = None
    seconds: dict[str, float] = {}


Said: TypeAlias = Loaded | NotLoaded | Outcome

_SAID: Final = msgspec.json.Decoder(Said)


def line(value: object) -> bytes:
    """Return a value as one line."""
    return msgspec.json.encode(value) + b"\n"


def said(text: bytes) -> Said:
    """Return what the handler's process said."""
    value: Said = _SAID.decode(text)
    return value


def failed(code: int, reason: str, **seconds: Any) -> Outcome:
    """Return the outcome of a message that failed."""
    return Outcome(error_code=int(code), error_reason=reason, seconds=seconds)
