"""Record sets as they cross a network: a short description, and blobs that it names by digest.

A record set is taken apart into parts. Each of its parameters records is one part, the container of that record alone,
so that the model of a round is one blob with one name whatever travels beside it; metrics and configs together are
another. A part of few bytes travels inside the description; a larger one is a blob that whoever lacks it fetches.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from blake3 import blake3

from umbel.errors import BadValue, Mismatch
from umbel.records import ParametersRecord, RecordSet, dumps, loads
from umbel.records._container import known_digest
from umbel.records._names import check_names

__all__ = ["INLINE_LIMIT", "Content", "NamedPart", "Part", "blobs_of", "pack", "unpack"]

#: A part of up to so many bytes travels inside the description of a record set.
INLINE_LIMIT: Final = 32 * 1024
_MODEL: Final = "model"

_Segments: TypeAlias = Sequence[bytes | memoryview]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A container by name: its digest, its size in bytes, and the bytes themselves if they are few."""

    digest: str
    size: int
    data: bytes | None = None


class NamedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part that holds one parameters record, and what the record is called."""

    name: str
    part: Part


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record set in parts: its parameters records in order, and one part for all metrics and configs."""

    records: tuple[NamedPart, ...]
    rest: Part

    @property
    def size(self) -> int:
        """How many bytes the parts have together."""
        return self.rest.size + sum(named.part.size for named in self.records)


def pack(
    content: RecordSet, put: Callable[[_Segments], Part], known: Callable[[_Segments, str], Part] | None = None
) -> Content:
    """Take ``content`` apart. ``put`` stores the segments of a part that is too large to travel inside.

    ``known``, if it is given, does so where the digest of a part was computed before, and is not computed again.

    Raises ``RecordError`` for what no container can hold.
    """
    check_names(list(content.parameters_records), "parameters_records")

    def store(record: ParametersRecord) -> Part:
        digest = None if known is None else known_digest(record)
        return _part(dumps(record), put if known is None or digest is None else lambda parts: known(parts, digest))

    named = [NamedPart(name, store(record)) for name, record in content.parameters_records.items()]
    rest = RecordSet(metrics_records=dict(content.metrics_records), configs_records=dict(content.configs_records))
    return Content(tuple(named), _part(dumps(rest), put))


def _part(segments: _Segments, put: Callable[[_Segments], Part]) -> Part:
    size = sum(len(segment) for segment in segments)
    if size > INLINE_LIMIT:
        return put(segments)
    data = b"".join(segments)
    return Part(f"blake3:{blake3(data).hexdigest()}", size, data)


def unpack(content: Content, get: Callable[[str], object]) -> RecordSet:
    """Put a record set together again. ``get(digest)`` returns the verified bytes of a blob, best as mapped memory.

    Raises ``RecordError`` when a part is no container of its kind, or not the one that its digest names.
    """
    whole = _open(content.rest, get)
    if whole.parameters_records:
        raise Mismatch("expected metrics and configs alone, got parameters records beside them", at="content.rest")
    for named in content.records:
        if named.name in whole.parameters_records:
            raise BadValue(f"expected records of different names, got {named.name!r:.80} twice", at="content.records")
        whole.parameters_records[named.name] = _record(named, get)
    return whole


def _record(named: NamedPart, get: Callable[[str], object]) -> ParametersRecord:
    records = _open(named.part, get)
    if list(records.parameters_records) != [_MODEL] or records.metrics_records or records.configs_records:
        raise Mismatch("expected a part with one parameters record", at=f"content.records[{named.name!r:.80}]")
    return records.parameters_records[_MODEL]


def _open(part: Part, get: Callable[[str], object]) -> RecordSet:
    if part.data is None:
        return loads(get(part.digest))
    if len(part.data) != part.size:
        raise Mismatch(f"expected {part.size} bytes, got {len(part.data)}", at=f"part {part.digest}")
    return loads(part.data, expect=part.digest)


def blobs_of(content: Content) -> dict[str, int]:
    """Return the digests of the parts that do not travel inside, with their sizes."""
    parts = (*(named.part for named in content.records), content.rest)
    return {part.digest: part.size for part in parts if part.data is None}
