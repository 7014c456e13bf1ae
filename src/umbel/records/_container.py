"""The verbs of the container: one byte form for a record set (`docs/spec/record.md`)."""

import re

from blake3 import blake3

from umbel.errors import DigestMismatch, RecordTypeError
from umbel.records import _reader, _writer
from umbel.records._array import read_only
from umbel.records._brief import brief
from umbel.records._gather import gather
from umbel.records._parameters import ParametersRecord
from umbel.records._recordset import RecordSet

_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
#: The name of the record, where a single parameters record is written as it is.
MODEL = "model"


def dumps(records: RecordSet | ParametersRecord) -> list[bytes | memoryview]:
    """Return the container of ``records`` as segments: a header, then the payloads themselves, not copied.

    Equal values give equal bytes. ``b"".join(dumps(records))`` is the container in one piece; ``os.writev`` and sockets
    take the segments as they are. A ParametersRecord alone is written as the record "model" of a record set.

    Raises:
        RecordError: for a name, value, shape or payload that a container cannot hold, or too many of them.

    >>> import numpy as np
    >>> record = ParametersRecord.from_numpy({"weight": np.arange(3.0)})
    >>> container = b"".join(dumps(record))
    >>> loads(container).parameters_records["model"]["weight"].numpy()
    array([0., 1., 2.])

    """
    return _writer.dumps(as_record_set(records))


def loads(data: object, *, expect: str | None = None) -> RecordSet:
    """Return the record set in a container; its arrays are views of ``data``, which is not copied.

    Args:
        data: the container, any contiguous bytes-like object. It must not change while the arrays are in use.
        expect: a digest that the container must have, checked before anything is read.

    Raises:
        DigestMismatch: if the container has another digest than expected.
        RecordError: if it is no container; the subclass says what is wrong.

    """
    view = read_only(data)
    if expect is not None:
        check_digest(view, expect)
    return _reader.loads(view)


def digest(records: RecordSet | ParametersRecord) -> str:
    """Return the name of the container of ``records``: "blake3:" and 64 hex digits.

    >>> import numpy as np
    >>> digest(ParametersRecord.from_numpy({"weight": np.arange(3.0)}))[:15]
    'blake3:22d1721c'

    """
    whole = as_record_set(records)
    solid = _writer.solid_alone(whole)
    if solid is None or not solid.lasting:
        return _digest(_writer.dumps(whole))
    solid.digest = solid.digest or _digest(_writer.dumps(whole))
    return solid.digest


def known_digest(record: ParametersRecord) -> str | None:
    """Return the digest of the container of ``record`` if it was computed before and its bytes cannot have changed."""
    solid = _writer.solid_alone(as_record_set(record))
    return None if solid is None else solid.digest


def _digest(segments: list[bytes | memoryview]) -> str:
    hasher = blake3()
    for piece in gather(segments):
        hasher.update(piece)
    return f"blake3:{hasher.hexdigest()}"


def check_digest(data: memoryview, expect: str) -> None:
    """Raise DigestMismatch if ``data`` has another digest than ``expect``, or that is none."""
    if not isinstance(expect, str):
        raise RecordTypeError(f"expected a digest as str, got {type(expect).__name__}")
    if not _DIGEST.fullmatch(expect):
        raise DigestMismatch(
            f'expected a digest of the form "blake3:" and 64 lower-case hex digits, got {brief(expect)}'
        )
    found = f"blake3:{blake3(data).hexdigest()}"
    if found != expect:
        raise DigestMismatch(f"expected a container with digest {expect}, got one with {found}; fetch it again")


def as_record_set(records: RecordSet | ParametersRecord) -> RecordSet:
    """Return ``records``, or the record set that holds them as "model"."""
    if isinstance(records, ParametersRecord):
        return RecordSet({MODEL: records})
    if isinstance(records, RecordSet):
        return records
    raise RecordTypeError(f"expected a RecordSet or a ParametersRecord, got {type(records).__name__}")
