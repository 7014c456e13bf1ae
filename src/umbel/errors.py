"""Every error that Umbel raises on purpose, in one tree.

UmbelError                        something Umbel refuses; never raised itself
├── RecordError                   bytes, arrays or records that cannot be what they claim (a ValueError)
│   ├── Truncated                 the data end before they should
│   ├── TrailingBytes             data go on after they should end
│   ├── BadLength                 a declared length cannot be true
│   ├── LimitExceeded             more than the format allows (header, arrays, names, rank, values)
│   │   └── HeaderTooLarge        the declared header is over the limit
│   ├── TooDeep                   JSON nested deeper than the format allows
│   ├── BadHeader                 a header that is not the one canonical form
│   ├── BadName                   a name that is not NFC, has control characters or is no Unicode text
│   ├── DuplicateName             one name twice where names are unique
│   ├── BadDtype                  a dtype outside the closed list, or one that a stype cannot carry
│   ├── BadShape                  a shape that is no list of sizes, or whose product overflows
│   ├── BadOffsets                offsets that overlap, leave a hole or point outside
│   ├── BadValue                  a metric or config value outside the permitted range
│   ├── Mismatch                  declared and found dtype, shape or size disagree
│   └── DigestMismatch            the bytes are not those that the digest names
├── RecordTypeError               a value of the wrong Python type in a record (a TypeError)
│   └── UnknownStype              an array serialised in a way that no codec is registered for
├── MessageError                  a message that breaks the rules of messages (a ValueError)
│   └── MessageExpired            a reply to a message whose time to live has passed
├── PartitionError                rows that cannot be dealt out to nodes as asked (a ValueError)
├── StrategyError                 a strategy whose parts do not go together (a ValueError)
├── UpdateRejected                one node's update, refused at the gate with the reason
├── AggregationError              updates that cannot be combined into one record (an ArithmeticError)
├── RoundFailed                   a round in which too few updates were accepted, with every reason
├── CheckpointError               a checkpoint that cannot be read or does not fit the run
├── AppError                      an app that cannot be found, loaded or understood
├── UsageError                    a command line, a settings file or a path that cannot be used as given (a ValueError)
└── MissingExtra                  an optional dependency that is not installed (an ImportError)

Each class has a ``code`` (stable, for machines), an ``http_status`` and an ``exit_status`` (for the command line).
A message says what was expected, what came, where, and what to do next.
"""

from typing import ClassVar

__all__ = [
    "AggregationError",
    "AppError",
    "BadDtype",
    "BadHeader",
    "BadLength",
    "BadName",
    "BadOffsets",
    "BadShape",
    "BadValue",
    "CheckpointError",
    "DigestMismatch",
    "DuplicateName",
    "HeaderTooLarge",
    "LimitExceeded",
    "MessageError",
    "MessageExpired",
    "Mismatch",
    "MissingExtra",
    "PartitionError",
    "RecordError",
    "RecordTypeError",
    "RoundFailed",
    "StrategyError",
    "TooDeep",
    "TrailingBytes",
    "Truncated",
    "UmbelError",
    "UnknownStype",
    "UpdateRejected",
    "UsageError",
]


class UmbelError(Exception):
    """Base of every error that Umbel raises on purpose.

    ``at`` says where the fault was met (``parameters_records.model[3].shape``, ``header byte 120``); it ends the text.
    """

    code: ClassVar[str] = "umbel"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, at: str = "") -> None:
        super().__init__(message, at)
        self.message = message
        self.at = at

    def __str__(self) -> str:
        """Return the message, then the place."""
        return f"{self.message} - at {self.at}" if self.at else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Let the error cross processes with its message and place."""
        return _rebuild, (type(self), self.message, self.at)


def _rebuild(kind: type[UmbelError], message: str, at: str) -> UmbelError:
    return kind(message, at=at)


class RecordError(UmbelError, ValueError):
    """Bytes, arrays or records that cannot be what they claim to be."""

    code = "record"
    http_status = 422
    exit_status = 65


class Truncated(RecordError):
    """The data end before they should."""

    code = "record.truncated"


class TrailingBytes(RecordError):
    """Data go on after they should end."""

    code = "record.trailing-bytes"


class BadLength(RecordError):
    """A declared length cannot be true."""

    code = "record.bad-length"


class LimitExceeded(RecordError):
    """More of something than the format allows."""

    code = "record.limit-exceeded"
    http_status = 413


class HeaderTooLarge(LimitExceeded):
    """The declared header is over the limit."""

    code = "record.header-too-large"


class TooDeep(RecordError):
    """JSON nested deeper than the format allows."""

    code = "record.too-deep"


class BadHeader(RecordError):
    """A header that is not the one canonical form of what it says."""

    code = "record.bad-header"


class BadName(RecordError):
    """A name that is not NFC, holds control characters, or is no Unicode text."""

    code = "record.bad-name"


class DuplicateName(RecordError):
    """One name twice where names are unique."""

    code = "record.duplicate-name"


class BadDtype(RecordError):
    """A dtype outside the closed list, or one that the chosen stype cannot carry."""

    code = "record.bad-dtype"


class BadShape(RecordError):
    """A shape that is no list of sizes, or whose product is out of range."""

    code = "record.bad-shape"


class BadOffsets(RecordError):
    """Offsets that overlap, leave a hole, or point outside the data."""

    code = "record.bad-offsets"


class BadValue(RecordError):
    """A metric or config value outside the permitted range."""

    code = "record.bad-value"


class Mismatch(RecordError):
    """Declared and found dtype, shape or size disagree."""

    code = "record.mismatch"


class DigestMismatch(RecordError):
    """The bytes are not those that the digest names."""

    code = "record.digest-mismatch"


class RecordTypeError(UmbelError, TypeError):
    """A value of the wrong Python type in an array or record."""

    code = "record.type"
    http_status = 422
    exit_status = 65


class UnknownStype(RecordTypeError):
    """An array serialised in a way that no codec is registered for."""

    code = "record.unknown-stype"


class MessageError(UmbelError, ValueError):
    """A message that breaks the rules of messages."""

    code = "message"
    http_status = 422
    exit_status = 65


class MessageExpired(MessageError):
    """A reply to a message whose time to live has passed."""

    code = "message.expired"
    http_status = 410


class PartitionError(UmbelError, ValueError):
    """Rows that cannot be dealt out to nodes as asked."""

    code = "partition"
    http_status = 422
    exit_status = 64


class StrategyError(UmbelError, ValueError):
    """A strategy whose parts or numbers do not go together."""

    code = "strategy"
    http_status = 422
    exit_status = 64


class UpdateRejected(UmbelError):
    """One node's update, refused at the gate with the reason."""

    code = "update.rejected"
    http_status = 422


class AggregationError(UmbelError, ArithmeticError):
    """Updates that cannot be combined: no weight, another layout, or a result outside the dtype."""

    code = "aggregation"
    exit_status = 70


class RoundFailed(UmbelError):
    """A round in which too few updates were accepted; the message lists every reason."""

    code = "round.failed"
    exit_status = 70


class CheckpointError(UmbelError):
    """A checkpoint that cannot be read or does not fit the run."""

    code = "checkpoint"
    exit_status = 65


class AppError(UmbelError):
    """An app that cannot be found, loaded or understood."""

    code = "app"
    http_status = 422
    exit_status = 64


class UsageError(UmbelError, ValueError):
    """A command line, a settings file or a path that cannot be used as it was given."""

    code = "usage"
    http_status = 400
    exit_status = 2


class MissingExtra(UmbelError, ImportError):
    """An optional dependency that is not installed."""

    code = "missing-extra"
    exit_status = 69
