"""What records, arrays and bytes can be refused for."""

from umbel.errors._base import UmbelError


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
