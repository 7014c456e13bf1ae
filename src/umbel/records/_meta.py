"""META: what safetensors does not carry, as one canonical JSON text."""

import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from umbel.errors import BadHeader, BadName, BadValue, DuplicateName, LimitExceeded, RecordTypeError, TooDeep
from umbel.records._layout import MAX_ARRAYS, MAX_RECORDS, MAX_VALUES, VERSION, Spec
from umbel.records._mapping import TypedMapping
from umbel.records._names import check_name, check_names, quote
from umbel.records._shapes import count_bytes
from umbel.records._values import ConfigsRecord, MetricsRecord

T = TypeVar("T")
R = TypeVar("R", MetricsRecord, ConfigsRecord)
_AT = '__metadata__["umbel"]'
_FLOATS = ("nan", "inf", "-inf")


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
    parameters: list[tuple[str, list[str | tuple[str, str, str, list[int]]]]]
    metrics: list[tuple[str, list[tuple[str, Any]]]]
    configs: list[tuple[str, list[tuple[str, Any]]]]


def encode(meta: Meta) -> str:
    """Return META as JSON.

    Raises:
        RecordError: for a name or value that a container cannot hold, or too many of them.

    """
    return "".join(_pieces(meta))


def _pieces(meta: Meta) -> Iterator[str]:
    """Yield the canonical text in small pieces, so that the reader can compare it without building it."""
    _check_count("records", sum(map(len, meta)), MAX_RECORDS)
    _check_count("arrays", sum(len(arrays.names) for arrays in meta.parameters), MAX_ARRAYS)
    values: list[TypedMapping[Any]] = [*meta.metrics.values(), *meta.configs.values()]
    _check_count("values", sum(map(_count_values, values)), MAX_VALUES)
    yield f'{{"version":{VERSION},"parameters":'
    yield from _list((arrays.record, [_arrays(arrays)]) for arrays in meta.parameters)
    yield ',"metrics":'
    yield from _list((name, _values(name, record)) for name, record in meta.metrics.items())
    yield ',"configs":'
    yield from _list((name, _values(name, record)) for name, record in meta.configs.items())
    yield "}"


def _list(records: Iterable[tuple[str, Iterable[str]]]) -> Iterator[str]:
    yield "["
    for place, (name, parts) in enumerate(records):
        yield f"{',' if place else ''}[{quote(check_name(name, 'RecordSet'))},["
        for position, part in enumerate(parts):
            yield f",{part}" if position else part
        yield "]]"
    yield "]"


def decode(text: str, entries: int) -> Meta:
    """Return what META says of a container with ``entries`` tensors.

    Raises:
        RecordError: if ``text`` is not the canonical form of a Meta.

    """
    # Every value stands beside a comma: this bounds the objects before decoding makes the first.
    _check_count("values", text.count(",") // 2, MAX_VALUES + MAX_RECORDS + 20 * entries)
    found = _parse(text)
    if found.version != VERSION:
        raise BadHeader(f"expected version {VERSION}, got {found.version}; a newer Umbel may read it")
    meta = Meta(
        [_read_arrays(*pair) for pair in _unique(found.parameters, "parameters")],
        dict(_unique([(name, _record(MetricsRecord, name, pairs)) for name, pairs in found.metrics], "metrics")),
        dict(_unique([(name, _record(ConfigsRecord, name, pairs)) for name, pairs in found.configs], "configs")),
    )
    place = 0
    for piece in _pieces(meta):
        if not text.startswith(piece, place):
            found_text = text[place : place + 40]
            raise BadHeader(
                f"expected META in canonical form, here {piece[:40]!a}, got {found_text!a}", at=f"{_AT}[{place}]"
            )
        place += len(piece)
    return meta


def _parse(text: str) -> _Json:
    try:
        return msgspec.json.decode(text, type=_Json)
    except RecursionError as error:
        raise TooDeep("expected JSON of at most 8 levels", at=_AT) from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BadHeader(f"expected META as the specification has it: {error}", at=_AT) from error


def _read_arrays(record: str, entries: list[str | tuple[str, str, str, list[int]]]) -> Arrays:
    names = [entry if isinstance(entry, str) else entry[0] for entry in entries]
    opaque = {place: _spec(entry) for place, entry in enumerate(entries) if not isinstance(entry, str)}
    if len(set(names)) < len(names):
        _unique([(name, None) for name in names], f"parameters_records[{record!a:.80}]")
    return Arrays(record, names, opaque)


def _spec(entry: tuple[str, str, str, list[int]]) -> Spec:
    name, stype, dtype, shape = entry
    spec = Spec(stype, dtype, tuple(shape))
    if spec.native:
        raise BadHeader(f"array {name!a:.80} ({stype}, {dtype}) must not be opaque")
    count_bytes(shape, 1)
    return spec


def _unique(pairs: list[tuple[str, T]], at: str) -> list[tuple[str, T]]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise DuplicateName(f"expected each name once, got {name!a:.80} twice", at=at)
        seen.add(name)
    return pairs


def _record(kind: type[R], name: str, pairs: list[tuple[str, Any]]) -> R:
    at = f"{kind.__name__} {name!a:.80}"
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
        if kind == "bytes" and isinstance(text, str) and text.isascii():
            return _bytes(text)
    return value


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise BadValue(f"expected base64, got {text[:80]!a}") from error


def _arrays(arrays: Arrays) -> str:
    """Return the arrays without the brackets; all at once, because a model may have 10,000."""
    record, names, opaque = arrays
    check_names(
        [*names, *(text for spec in opaque.values() for text in spec[:2])], f"parameters_records[{record!a:.80}]"
    )
    entries = [(name, *opaque[place]) if place in opaque else name for place, name in enumerate(names)]
    return msgspec.json.encode(entries)[1:-1].decode()


def _values(record: str, values: TypedMapping[Any]) -> Iterator[str]:
    at = f"{type(values).__name__} {record!a:.80}"
    for key, value in values.items():
        yield f"[{quote(check_name(key, at))},{_json(value, f'{at}[{key!a:.80}]')}]"


def _json(value: Any, at: str) -> str:
    if isinstance(value, list):
        if len({type(item) for item in value}) > 1:
            raise RecordTypeError("expected a list of one kind; something was added to it", at=at)
        return _join(_json(item, at) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'{{"float":"{value}"}}'
    if isinstance(value, bytes):
        return f'{{"bytes":"{b64encode(value).decode()}"}}'
    if isinstance(value, str):
        return _text(value, at)
    raise RecordTypeError(f"expected a plain value, got {type(value).__name__}", at=at)


def _text(value: str, at: str) -> str:
    try:
        return quote(value)
    except BadName as error:
        raise BadValue(error.message, at=at) from error


def _join(parts: Iterable[str]) -> str:
    return f"[{','.join(parts)}]"


def _count_values(record: TypedMapping[Any]) -> int:
    return sum(len(value) if isinstance(value, list) else 1 for value in record.values())


def _check_count(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise LimitExceeded(f"expected at most {limit} {what} in one container, got {found}")
