"""The header of a safetensors file from elsewhere, whose entries may stand in any order and with any white space.

Everything else is strict: names and keys once, whole numbers, offsets without gap or overlap, a known dtype, sizes that
agree. The header is read as text twice. The first time only numbers are kept, so that refusing a long one is cheap.
"""

import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from umbel.errors import (
    BadDtype,
    BadHeader,
    BadLength,
    BadOffsets,
    BadShape,
    DuplicateName,
    HeaderTooLarge,
    LimitExceeded,
    RecordError,
    TooDeep,
    Truncated,
)
from umbel.records._dtypes import PORTABLE
from umbel.records._layout import DTYPE_OF, MAX_ARRAYS, MAX_DEPTH, MAX_HEADER
from umbel.records._names import check_name
from umbel.records._shapes import MAX_BYTES, check_size, count_bytes

METADATA = "__metadata__"
#: The name of a dtype in safetensors -> its canonical name.
DTYPES = DTYPE_OF | {"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}

# Bytes of the number that says how long the header is.
_LENGTH = 8
_S = r"[ \t\n\r]*+"
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
_NUMBER = r"(?:0|[1-9]\d{0,18})"
_MEMBER = re.compile(rf'{_S}({_STRING}){_S}:{_S}\{{((?:[^"{{}}]++|{_STRING})*+)\}}{_S}([,}}])'.encode())
_FIELD = re.compile(rf'{_S}({_STRING}){_S}:{_S}({_STRING}|\[[^]["]*+\]|[^]["\s,]++){_S}(,|\Z)'.encode())
# What every writer known writes, tried first because it is read in one step.
_PLAIN = re.compile(rb'"dtype":("[^"\\]*+"),"shape":(\[[\d,]*+\]),"data_offsets":(\[[\d,]*+\])')
# Twice as many as any shape may have, so that a list of millions is refused unread. No possessive repeat of the group:
# Python before 3.11.5 goes on from inside the repetition that failed, and so takes "[1,]".
_NUMBERS = re.compile(rf"\[{_S}(?:{_NUMBER}{_S}(?:,{_S}{_NUMBER}{_S}){{0,63}})?\]".encode())
_EMPTY = re.compile(rf"\{{{_S}\}} *+".encode())
_TOKEN = re.compile(rf"{_STRING}|[][{{}}]".encode())
_FIELDS = (b'"dtype"', b'"shape"', b'"data_offsets"')


class Tensor(NamedTuple):
    """What the header says of a tensor: canonical dtype, shape, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read(data: memoryview) -> tuple[list[Tensor], memoryview]:
    """Return the tensors in the order of the header, and the bytes that their offsets count in.

    Raises:
        RecordError: if ``data`` is no safetensors file; the subclass says what is wrong.

    """
    header = _header(data)
    size = _survey(header)
    payload = data[_LENGTH + len(header) :]
    check_size(len(payload), size, "the safetensors file")
    return list(_tensors(header)), payload


def _header(data: memoryview) -> memoryview:
    if len(data) < _LENGTH:
        raise Truncated(f"expected a safetensors file, which has at least {_LENGTH} bytes, got {len(data)}")
    length = int.from_bytes(data[:_LENGTH], "little")
    if length > MAX_HEADER:
        raise HeaderTooLarge(f"expected a header of at most {MAX_HEADER} bytes, got a declared length of {length}")
    if length < len("{}"):
        raise BadLength(f"expected a header of at least 2 bytes, got a declared length of {length}")
    if _LENGTH + length > len(data):
        raise Truncated(f"the header should end at byte {_LENGTH + length}, but the data have {len(data)} bytes")
    return data[_LENGTH : _LENGTH + length]


def _survey(header: memoryview) -> int:
    """Check the whole header; return where the last tensor ends."""
    spans, hashes = array("q"), array("q")
    for tensor in _tensors(header):
        spans.extend((tensor.start, tensor.stop))
        hashes.append(hash(tensor.name))
    _check_names(header, np.array(hashes))
    return _check_offsets(header, np.array(spans, np.int64).reshape(-1, 2))


def _check_names(header: memoryview, hashes: np.ndarray) -> None:
    """Raise DuplicateName if two names are equal; only names with equal hashes are compared."""
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: set[str] = set()
    for tensor in _tensors(header) if suspects else ():
        if tensor.name in seen:
            raise DuplicateName(f"expected each tensor once, got {tensor.name!a:.80} twice")
        if hash(tensor.name) in suspects:
            seen.add(tensor.name)


def _check_offsets(header: memoryview, spans: np.ndarray) -> int:
    """Return where the last tensor ends, once it is known that they follow one another without gap or overlap."""
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    begins = np.concatenate(([0], spans[order, 1]))
    wrong = np.flatnonzero(spans[order, 0] != begins[:-1])
    if wrong.size:
        tensor = next(islice(_tensors(header), int(order[wrong[0]]), None))
        msg = f"expected a tensor that begins at {begins[wrong[0]]}, got [{tensor.start}, {tensor.stop}]"
        raise BadOffsets(msg, at=f"tensor {tensor.name!a:.80}")
    return int(begins[-1])


def _tensors(header: memoryview) -> Iterator[Tensor]:
    """Yield the tensors of the header; raise where it is not as it should be."""
    if _EMPTY.fullmatch(header):
        return
    if bytes(header[:1]) != b"{":
        raise BadHeader(f'expected a header that begins with "{{", got {bytes(header[:40])!r}')
    at, count, closed, described = 1, 0, b",", False
    while closed == b",":
        match = _MEMBER.match(header, at)
        if match is None:
            raise _explain(header, at)
        quoted, body, closed = match.groups()
        name = _text(quoted, at)
        if name != METADATA:
            count += 1
            yield _tensor(name, body, count)
        elif described:
            raise DuplicateName(f"expected {METADATA} once, got it twice", at=f"header byte {at}")
        else:
            _check_metadata(body)
            described = True
        at = match.end()
    if bytes(header[at:]).strip(b" "):
        raise _explain(header, at)


def _tensor(name: str, body: bytes, count: int) -> Tensor:
    at = f"tensor {name!a:.80}"
    if count > MAX_ARRAYS:
        raise LimitExceeded(f"expected at most {MAX_ARRAYS} tensors in one file, got more")
    check_name(name, at)
    plain = _PLAIN.fullmatch(body)
    code, dims, offsets = plain.groups() if plain else _three(body, at)
    try:
        dtype, shape, size = _form(code, dims)
    except RecordError as error:
        raise type(error)(error.message, at=at) from error
    match _numbers(offsets):
        case (start, stop) if stop - start == size and stop < MAX_BYTES:
            return Tensor(name, dtype, shape, start, stop)
    raise BadOffsets(f"expected [start, start + {size}], got {_show(offsets)}", at=at)


def _three(body: bytes, at: str) -> list[bytes]:
    fields = _fields(body, at)
    if fields.keys() != set(_FIELDS):
        raise BadHeader(f"expected dtype, shape and data_offsets, got {list(fields)!r:.200}", at=at)
    return [fields[key] for key in _FIELDS]


def _fields(body: bytes, at: str) -> dict[bytes, bytes]:
    """Return the members of a JSON object whose values are strings, numbers, or lists of numbers."""
    fields: dict[bytes, bytes] = {}
    place, comma = 0, b","
    while comma:
        match = _FIELD.match(body, place)
        if match is None:
            raise _explain(body, place, at)
        key, value, comma = match.groups()
        if key in fields:
            raise DuplicateName(f"expected each key once, got {_show(key)} twice", at=at)
        fields[key] = value
        place = match.end()
    return fields


@lru_cache(maxsize=4096)
def _form(code: bytes, dims: bytes) -> tuple[str, tuple[int, ...], int]:
    dtype = DTYPES.get(code[1:-1].decode("latin-1")) if code.startswith(b'"') else None
    if dtype is None:
        raise BadDtype(f"expected one of {', '.join(DTYPES)}, got {_show(code)}")
    shape = _numbers(dims)
    if shape is None:
        raise BadShape(f"expected a list of sizes, got {_show(dims)}")
    return dtype, shape, count_bytes(shape, PORTABLE[dtype].itemsize)


def _numbers(text: bytes) -> tuple[int, ...] | None:
    return tuple(map(int, re.findall(rb"\d+", text))) if _NUMBERS.fullmatch(text) else None


def _check_metadata(body: bytes) -> None:
    if not body.strip(b" \t\n\r"):
        return
    for key, value in _fields(body, METADATA).items():
        if not value.startswith(b'"'):
            raise BadHeader(f"expected a string for {_show(key)}, got {_show(value)}", at=METADATA)
        _text(value, 0)


def _text(quoted: bytes, at: int) -> str:
    try:
        return quoted[1:-1].decode() if b"\\" not in quoted else msgspec.json.decode(quoted, type=str)
    except (ValueError, msgspec.DecodeError) as error:
        raise BadHeader(f"expected a JSON string in UTF-8, got {_show(quoted)}", at=f"header byte {at}") from error


def _explain(text: memoryview | bytes, place: int, at: str = "header") -> RecordError:
    """Return the error for JSON that is not what a safetensors header has from byte ``place`` on."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            return TooDeep(f"expected JSON of at most {MAX_DEPTH} levels", at=f"{at}, byte {token.start()}")
    found = _show(bytes(text[place : place + 80]))
    return BadHeader(f"expected another member, or the end of the header, got {found}", at=f"{at}, byte {place}")


def _show(text: bytes) -> str:
    return f"{text[:80]!r}"
