"""META: what safetensors does not carry, as one canonical JSON text."""

import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from umbel.errors import BadHeader, BadName, BadValue, DuplicateName, RecordTypeError
from umbel.records._brief import brief
from umbel.records._layout import MAX_ARRAYS, MAX_RECORDS, MAX_VALUES, VERSION, Spec
from umbel.records._mapping import TypedMapping
from umbel.records._names import check_name, check_names, quote
from umbel.records._shapes import count_bytes
from umbel.records._syntax import check_count, check_syntax
from umbel.records._values import ConfigsRecord, MetricsRecord

T = TypeVar("T")
R = TypeVar("R", MetricsRecord, ConfigsRecord)
_AT = '__metadata__["umbel"]'
_FLOATS = ("nan", "inf", "-inf")
_PIECE = 1024


class Arrays(NamedTuple):
    """The arrays of one record: their names in order, and by their place the specs of those that are opaque."""

    record: str
    names: list[str]
    opaque: dict[int, Spec]


class Meta(NamedTuple):
    """The content of META."""

    parameters: list[Arrays]
    metrics: dict[str, MetricsRecord]
    configs: dict[str, ConfigsRecord]


class _Json(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    parameters: list[tuple[str, list[str | tuple[str, str, str, tuple[int, ...]]]]]
    metrics: list[tuple[str, list[tuple[str, Any]]]]
    configs: list[tuple[str, list[tuple[str, Any]]]]


def encode(meta: Meta) -> bytes:
    """Return META as JSON.

    Raises:
        RecordError: for a name or value that a container cannot hold, or too many of them.

    """
    return b"".join(_pieces(meta))


def _pieces(meta: Meta) -> Iterator[bytes]:
    """Yield the canonical text in small pieces, so that the reader can compare it without building it."""
    check_count("records", sum(map(len, meta)), MAX_RECORDS)
    check_count("arrays", sum(len(arrays.names) for arrays in meta.parameters), MAX_ARRAYS)
    values: list[TypedMapping[Any]] = [*meta.metrics.values(), *meta.configs.values()]
    check_count("values", sum(map(_count_values, values)), MAX_VALUES)
    yield b'{"version":%d,"parameters":' % VERSION
    yield from _list((arrays.record, _arrays(arrays)) for arrays in meta.parameters)
    yield b',"metrics":'
    yield from _list((name, _values(name, record)) for name, record in meta.metrics.items())
    yield b',"configs":'
    yield from _list((name, _values(name, record)) for name, record in meta.configs.items())
    yield b"}"


def _list(records: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    yield b"["
    for place, (name, pieces) in enumerate(records):
        yield f"{',' if place else ''}[{quote(check_name(name, 'RecordSet'))},[".encode()
        yield from pieces
        yield b"]]"
    yield b"]"


def decode(text: bytes, entries: int) -> Meta:
    """Return what META says of a container with ``entries`` tensors.

    Raises:
        RecordError: if ``text`` is not the canonical form of a Meta.

    """
    check_syntax(text, entries)
    found = _parse(text)
    meta = Meta(
        [_read_arrays(*pair) for pair in _unique(found.parameters, "parameters")],
        dict(_unique([(name, _record(MetricsRecord, name, pairs)) for name, pairs in found.metrics], "metrics")),
        dict(_unique([(name, _record(ConfigsRecord, name, pairs)) for name, pairs in found.configs], "configs")),
    )
    place = 0
    for piece in _pieces(meta):
        if not text.startswith(piece, place):
            expected, came = piece[:40], text[place : place + 40]
            raise BadHeader(f"expected META in canonical form, here {expected!r}, got {came!r}", at=f"{_AT}[{place}]")
        place += len(piece)
    return meta


def _parse(text: bytes) -> _Json:
    try:
        return msgspec.json.decode(text, type=_Json)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadHeader(f"expected META as the specification has it: {error}", at=_AT) from error


def _read_arrays(record: str, entries: list[Any]) -> Arrays:
    """Return the arrays of a record; ``entries`` becomes the list of their names."""
    opaque = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, str):
            entries[place], *said = entry
            opaque[place] = _spec(*said)
    if len(set(entries)) < len(entries):
        _unique([(name, None) for name in entries], f"parameters_records[{brief(record)}]")
    return Arrays(record, entries, opaque)


@lru_cache(maxsize=1024)
def _spec(stype: str, dtype: str, shape: tuple[int, ...]) -> Spec:
    spec = Spec(stype, dtype, shape)
    if spec.native:
        raise BadHeader(f"arrays of {dtype} serialised as {stype} must not be opaque", at=_AT)
    count_bytes(shape, 1)
    return spec


def _unique(pairs: list[tuple[str, T]], at: str) -> list[tuple[str, T]]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise DuplicateName(f"expected each name once, got {brief(name)} twice", at=at)
        seen.add(name)
    return pairs


def _record(kind: type[R], name: str, pairs: list[tuple[str, Any]]) -> R:
    at = f"{kind.__name__} {brief(name)}"
    values = {key: _plain(value) for key, value in _unique(pairs, at)}
    try:
        return kind(values)
    except TypeError as error:
        raise BadValue(f"expected a value of the specification: {error}", at=at) from error


def _plain(value: Any) -> Any:
    """Return the Python value for a VALUE; what is none is left for the record to refuse."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and len(value) == 1:
        [(kind, text)] = value.items()
        if kind == "float" and text in _FLOATS:
            return float(text)
        if kind == "bytes" and text.isascii():
            return _bytes(text)
    return value


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise BadValue(f"expected base64, got {text[:80]!a}") from error


def _arrays(arrays: Arrays) -> Iterator[bytes]:
    """Yield the arrays without the brackets, many at once, because a model may have 10,000."""
    record, names, opaque = arrays
    at = f"parameters_records[{brief(record)}]"
    for start in range(0, len(names), _PIECE):
        some = names[start : start + _PIECE]
        specs = [opaque[place] for place in range(start, start + len(some)) if place in opaque] if opaque else []
        check_names([*some, *(text for spec in specs for text in spec[:2])], at)
        entries = [(name, *opaque[place]) if place in opaque else name for place, name in enumerate(some, start)]
        yield b"%b%b" % (b"," if start else b"", msgspec.json.encode(entries)[1:-1])


def _values(record: str, values: MetricsRecord | ConfigsRecord) -> Iterator[bytes]:
    at = f"{type(values).__name__} {brief(record)}"
    for place, (key, value) in enumerate(values.items()):
        where = f"{at}[{brief(key)}]"
        yield f"{',' if place else ''}[{quote(check_name(key, at))},".encode()
        if isinstance(value, list):
            yield from _items(value, values, where)
        else:
            yield _scalar(value, where)
        yield b"]"


def _items(items: list[Any], values: MetricsRecord | ConfigsRecord, at: str) -> Iterator[bytes]:
    # The record gave its list away; what was added since has not been checked.
    if len({type(item) for item in items}) > 1:
        raise RecordTypeError("expected a list of one kind; something was added to it", at=at)
    yield b"["
    for place, item in enumerate(items):
        text = _scalar(values._scalar(item, at), at)  # noqa: SLF001 - one check for what is stored and what is written
        yield b"," + text if place else text
    yield b"]"


def _scalar(value: Any, at: str) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode() if math.isfinite(value) else b'{"float":"%b"}' % str(value).encode()
    if isinstance(value, bytes):
        return b'{"bytes":"%b"}' % b64encode(value)
    try:
        return quote(value).encode()
    except BadName as error:
        raise BadValue(error.message, at=at) from error


def _count_values(record: TypedMapping[Any]) -> int:
    return sum(len(value) or 1 if isinstance(value, list) else 1 for value in record.values())
