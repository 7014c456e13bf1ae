"""Messages: what the server asks of a node, and what the node answers.

A message carries either content (a ``RecordSet``) or an error, never both. Everything here is frozen: to change a
message, make another one. Times are in seconds; ``created_at`` and ``ttl`` run on one clock, the server's, and
whoever hands a message to a node on another clock restamps it.
"""

from enum import IntEnum, StrEnum
from math import inf
from typing import Final, NoReturn

import msgspec

from umbel import _clock
from umbel.errors import MessageError, MessageExpired
from umbel.records import RecordSet

__all__ = ["DEFAULT_TTL", "Error", "ErrorCode", "Message", "MessageType", "Metadata"]

DEFAULT_TTL: Final = 43_200.0

_NEARLY_ALL: Final = 0.999_999  # of a time to live
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_SECONDS: Final = (float, int)
_IDS: Final = ("run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message", "group_id")


class MessageType(StrEnum):
    """The message types every node understands; an app may handle any other non-empty string as well."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"


class ErrorCode(IntEnum):
    """Why a reply has an error instead of content. Codes from 100 on are Umbel's own; the others are Flower's."""

    UNKNOWN = 0
    LOAD_CLIENT_APP_EXCEPTION = 1
    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MOD_FAILED_PRECONDITION = 6
    UNKNOWN_MESSAGE_TYPE = 100
    BAD_REPLY = 101
    NOT_ALLOWED = 102
    HANDLER_LOST = 103


class Metadata(msgspec.Struct, frozen=True):
    """Where a message comes from, where it goes, and how long it lives.

    Ids are signed 64-bit integers. ``message_id`` 0 means "not given yet" and ``reply_to_message`` 0 "not a reply".
    ``group_id`` groups the messages of one round. ``ttl`` is in seconds from ``created_at`` (seconds since 1970).

    Raises ``MessageError`` for an id that is no 64-bit integer, an empty message type, or a time that is not finite.
    """

    run_id: int
    message_id: int
    src_node_id: int
    dst_node_id: int
    reply_to_message: int
    group_id: int
    ttl: float
    message_type: str
    created_at: float = msgspec.field(default_factory=_clock.now)

    def __post_init__(self) -> None:
        """Refuse values that cannot be, in one expression because two of these are made for every task."""
        kind: object = self.message_type
        if not (
            type(self.run_id) is type(self.message_id) is type(self.src_node_id) is int
            and type(self.dst_node_id) is type(self.reply_to_message) is type(self.group_id) is int
            and _INT64_MIN <= self.run_id <= _INT64_MAX
            and _INT64_MIN <= self.message_id <= _INT64_MAX
            and _INT64_MIN <= self.src_node_id <= _INT64_MAX
            and _INT64_MIN <= self.dst_node_id <= _INT64_MAX
            and _INT64_MIN <= self.reply_to_message <= _INT64_MAX
            and _INT64_MIN <= self.group_id <= _INT64_MAX
            and type(self.ttl) in _SECONDS
            and type(self.created_at) in _SECONDS
            and 0 < self.ttl < inf
            and -inf < self.created_at < inf
            and isinstance(kind, str)
            and kind != ""
        ):
            _refuse_metadata(self)

    @property
    def expires_at(self) -> float:
        """The time, in seconds since 1970, from which on a reply is refused."""
        return self.created_at + self.ttl

    def reply(self, ttl: float, created_at: float) -> "Metadata":
        """Return the metadata of a reply, from the destination to the source, with its time to live in seconds."""
        return Metadata(
            run_id=self.run_id,
            message_id=0,
            src_node_id=self.dst_node_id,
            dst_node_id=self.src_node_id,
            reply_to_message=self.message_id,
            group_id=self.group_id,
            ttl=ttl,
            message_type=self.message_type,
            created_at=created_at,
        )

    def answered(self, at: float, passed: float) -> "Metadata":
        """Return the metadata of a reply that came at a time, so many seconds after it was asked for; 0 if none came.

        Whoever kept the reply has decided that it came in time: however late it was, some time to live is left.
        """
        taken = min(max(0.0, passed), self.ttl * _NEARLY_ALL) if at else 0.0
        return self.reply(self.ttl - taken, at or self.created_at)


def _refuse_metadata(metadata: Metadata) -> NoReturn:
    for name in _IDS:
        value = getattr(metadata, name)
        if type(value) is not int or not _INT64_MIN <= value <= _INT64_MAX:
            message = f"expected an int of at most 64 bits with a sign, got {value!r} ({type(value).__name__})"
            raise MessageError(message, at=f"metadata.{name}")
    if not (type(metadata.ttl) in _SECONDS and 0 < metadata.ttl < inf):
        message = f"expected a time to live in seconds, finite and above 0, got {metadata.ttl!r}"
        raise MessageError(message, at="metadata.ttl")
    if not (type(metadata.created_at) in _SECONDS and -inf < metadata.created_at < inf):
        message = f"expected a time in seconds since 1970, got {metadata.created_at!r}"
        raise MessageError(message, at="metadata.created_at")
    message = f"expected a message type such as 'train', a non-empty str, got {metadata.message_type!r}"
    raise MessageError(message, at="metadata.message_type")


class Error(msgspec.Struct, frozen=True):
    """Why there is no content: a 64-bit code for machines (see ``ErrorCode``) and a reason for people."""

    code: int
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse a code that is no integer and a reason that is no text."""
        code, reason = _untyped(self.code), _untyped(self.reason)
        if not isinstance(code, int) or isinstance(code, bool) or not _INT64_MIN <= code <= _INT64_MAX:
            message = f"expected an int, one of ErrorCode, got {code!r:.80} ({type(code).__name__})"
            raise MessageError(message, at="error.code")
        if not (reason is None or isinstance(reason, str)):
            raise MessageError(f"expected a str or None, got {type(reason).__name__}", at="error.reason")
        if reason is not None and not _is_unicode(reason):
            raise MessageError(f"expected Unicode text, got a lone surrogate in {reason!a:.80}", at="error.reason")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _untyped(value: object) -> object:
    # What an annotation promises is what a check must not assume.
    return value


class Message:
    """Metadata and exactly one of content and error.

    Raises ``MessageError`` (a ``ValueError``) when both or neither are given, or when one has the wrong type.
    """

    # Neither a struct nor a frozen dataclass: their fields cannot be properties that refuse to be read.
    __slots__ = ("_content", "_error", "metadata")

    #: Where the message comes from, where it goes, and how long it lives.
    metadata: Metadata
    _content: RecordSet | None
    _error: Error | None

    def __init__(self, metadata: Metadata, content: RecordSet | None = None, error: Error | None = None) -> None:
        if (content is None) is (error is None):
            both = "neither" if content is None else "both"
            message = f"expected either content or an error, got {both}: pass exactly one of content= and error="
            raise MessageError(message, at="message")
        carried = isinstance(content, RecordSet) if error is None else isinstance(error, Error)
        if not (carried and isinstance(metadata, Metadata)):
            _refuse_parts(metadata, content, error)
        set_field = object.__setattr__
        set_field(self, "metadata", metadata)
        set_field(self, "_content", content)
        set_field(self, "_error", error)

    @property
    def content(self) -> RecordSet:
        """The content; raises ``MessageError`` if the message has an error instead."""
        if self._content is None:
            message = f"this message has no content but {self._error!r}: ask has_content() first, or read .error"
            raise MessageError(message, at="message.content")
        return self._content

    @property
    def error(self) -> Error:
        """The error; raises ``MessageError`` if the message has content instead."""
        if self._error is None:
            message = "this message has no error but content: ask has_error() first, or read .content"
            raise MessageError(message, at="message.error")
        return self._error

    def has_content(self) -> bool:
        """Return whether the message carries content."""
        return self._content is not None

    def has_error(self) -> bool:
        """Return whether the message carries an error."""
        return self._error is not None

    def create_reply(self, content: RecordSet, ttl: float | None = None, *, now: float | None = None) -> "Message":
        """Return a reply with ``content``, from this message's destination to its source.

        The reply keeps run, group and type and never outlives this message: ``ttl`` (seconds; ``None`` for all that
        is left) is cut to the time that is left at ``now`` (seconds since 1970; ``None`` for this machine's clock).
        Raises ``MessageExpired`` when no time is left.
        """
        return Message(self._reply_metadata(ttl, now), content=content)

    def create_error_reply(self, error: Error, ttl: float | None = None, *, now: float | None = None) -> "Message":
        """Return a reply with ``error``; times as in ``create_reply``."""
        return Message(self._reply_metadata(ttl, now), error=error)

    def _reply_metadata(self, ttl: float | None, now: float | None) -> Metadata:
        asked = self.metadata
        created_at = _clock.now() if now is None else now
        remaining = asked.created_at + asked.ttl - created_at
        if not remaining > 0:
            message = (
                f"expected a reply within {asked.ttl} s of the message, got one {-remaining:.3f} s late: "
                "the server has given this message up; ask again with a longer ttl"
            )
            raise MessageExpired(message, at=f"message {asked.message_id}")
        return asked.reply(remaining if ttl is None or ttl > remaining else ttl, created_at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        mine = (self.metadata, self._content, self._error)
        return mine == (other.metadata, other._content, other._error)

    __hash__ = None  # type: ignore[assignment]  # content is not hashable

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a message is frozen, so {name!r} cannot be set: make another message")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a message is frozen, so {name!r} cannot be deleted: make another message")

    def __reduce__(self) -> tuple[object, ...]:
        return Message, (self.metadata, self._content, self._error)

    def __repr__(self) -> str:
        carried = f"error={self._error!r}" if self._content is None else f"content={self._content!r}"
        return f"Message(metadata={self.metadata!r}, {carried})"


def _refuse_parts(metadata: object, content: object, error: object) -> None:
    for name, value, kind in (
        ("metadata", metadata, Metadata),
        ("content", content, RecordSet | None),
        ("error", error, Error | None),
    ):
        if not isinstance(value, kind):
            expected = getattr(kind, "__name__", str(kind))
            raise MessageError(f"expected {expected}, got {type(value).__name__}", at=f"message.{name}")
