"""Reading a container: bytes in, a record set of views out, or a named error.

The canonical header is a regular language, so one expression reads an entry, and nothing is built from bytes that have
not been checked. Where it does not match, the header is wrong; which error that is, `_explain` finds out.
"""

import re
from functools import lru_cache

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
from umbel.records import _meta
from umbel.records._array import unchecked
from umbel.records._layout import (
    DATA_ALIGNMENT,
    DTYPE_OF,
    MAX_ARRAYS,
    MAX_DEPTH,
    MAX_HEADER,
    Form,
    Spec,
    form_of,
    key_prefixes,
)
from umbel.records._meta import Meta
from umbel.records._names import quote, unquote
from umbel.records._parameters import ParametersRecord, record_of
from umbel.records._recordset import RecordSet
from umbel.records._shapes import check_size, count_bytes
from umbel.records._stypes import RAW

Slot = tuple[Form, int]
_PREFIX = 8
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_START = re.compile(rb'\{"__metadata__":\{"umbel":(' + _STRING + rb")\}")
_ENTRY = re.compile(
    rb",(" + _STRING + rb'):\{"dtype":"([^"\\]*+)","shape":\[([^][]*+)\],"data_offsets":\[([^][]*+)\]\}'
)
_END = re.compile(rb"\} *+")
_DIMS = re.compile(rb"(?:(?:0|[1-9]\d{0,18})(?:,(?:0|[1-9]\d{0,18}))*+)?")
_TOKEN = re.compile(_STRING + rb"|[][{}]")
_BEFORE_ALL = (-(2**53), -1)
_CHUNK = 2**20


def loads(data: memoryview) -> RecordSet:
    """Return the record set in the container ``data``; its arrays are views of ``data``."""
    header = _header(data)
    meta, start = _read_meta(header)
    slots, size = _read_entries(header, start, meta)
    payload = data[8 + len(header) :]
    check_size(len(payload), size, "the container")
    return RecordSet(_build(meta, slots, payload), meta.metrics, meta.configs)


def _header(data: memoryview) -> memoryview:
    if len(data) < _PREFIX:
        raise Truncated(f"expected a container, which has at least 8 bytes, got {len(data)}")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise HeaderTooLarge(f"expected a header of at most {MAX_HEADER} bytes, got a declared length of {length}")
    if length == 0 or (8 + length) % DATA_ALIGNMENT:
        msg = f"expected a header that ends at a multiple of {DATA_ALIGNMENT}, got a declared length of {length}"
        raise BadLength(f"{msg}; a safetensors file from elsewhere is read by umbel.interop.safetensors")
    if 8 + length > len(data):
        raise Truncated(f"the header should end at byte {8 + length}, but the data have {len(data)} bytes")
    return data[8 : 8 + length]


def _read_meta(header: memoryview) -> tuple[Meta, int]:
    match = _START.match(header)
    if match is None:
        raise _explain(header, 0)
    entries = _count_entries(header)
    if entries > MAX_ARRAYS:
        raise LimitExceeded(f"expected at most {MAX_ARRAYS} arrays in one container, got {entries} or more")
    text = unquote(bytes(match[1]), "header byte 26")
    return _meta.decode(text, entries), match.end()


def _count_entries(header: memoryview) -> int:
    """Return about how many tensors the header names (one may be missed at the edge of a chunk), without parsing it."""
    return sum(
        bytes(header[start : start + _CHUNK]).count(b'"data_offsets":[') for start in range(0, len(header), _CHUNK)
    )


def _read_entries(header: memoryview, at: int, meta: Meta) -> tuple[list[Slot | None], int]:
    """Return form and span of each array in the order of META, and the bytes of all.

    The entries come in the order of the payloads. Nothing but what the loop keeps is allocated, 10,000 entries take as
    many hundredths of a millisecond: hence one loop, and its rare cases in functions.
    """
    said = [spec for _, arrays in meta.parameters for _, spec in arrays]
    places = _places(meta)
    slots: list[Slot | None] = [None] * len(said)
    end, last = 0, _BEFORE_ALL
    match = _ENTRY.match(header, at)
    while match is not None:
        quoted, code, dims, offsets = match.groups()
        place = places.get(quoted)
        if place is None:
            raise BadHeader(f"META does not name the array {quoted[:80]!r}", at=f"header byte {at}")
        form = _native_form(code, dims) if said[place] is None else _opaque_form(code, dims, said[place])
        start, end = end, end + form.size
        if offsets != b"%d,%d" % (start, end):
            raise BadOffsets(f"expected [{start},{end}], got [{offsets[:80]!r}]", at=f"array {quoted[:80]!r}")
        order = (-form.alignment, place)
        if order <= last:
            raise _disorder(quoted, repeated=slots[place] is not None)
        slots[place], last, at = (form, start), order, match.end()
        match = _ENTRY.match(header, at)
    if _END.fullmatch(header, at) is None or len(header) - at > DATA_ALIGNMENT:
        raise _explain(header, at)
    if None in slots:
        missing = next(key for key, place in places.items() if slots[place] is None)
        raise BadHeader(f"META names the array {missing[:80]!r}, but the header has no entry for it")
    count_bytes([end], 1)
    return slots, end


def _places(meta: Meta) -> dict[bytes, int]:
    """Return where META names each array, by its key as it is written in the header."""
    prefixes = key_prefixes((name, [key for key, _ in arrays]) for name, arrays in meta.parameters)
    keys = [
        quote(prefix + name).encode()
        for prefix, (_, arrays) in zip(prefixes, meta.parameters, strict=True)
        for name, _ in arrays
    ]
    return dict(zip(keys, range(len(keys)), strict=True))


def _disorder(quoted: bytes, *, repeated: bool) -> RecordError:
    if repeated:
        return DuplicateName(f"expected each array once, got {quoted[:80]!r} twice")
    return BadHeader("expected payloads in order of alignment, then of META", at=f"array {quoted[:80]!r}")


def _build(meta: Meta, slots: list[Slot | None], payload: memoryview) -> dict[str, ParametersRecord]:
    """Return the records, their arrays views of ``payload``."""
    filled = iter(slots)
    records: dict[str, ParametersRecord] = {}
    for record, arrays in meta.parameters:
        built = {}
        for (name, _), slot in zip(arrays, filled, strict=False):
            form, start = slot  # type: ignore[misc]
            stype, dtype, shape = form.spec
            built[name] = unchecked(dtype, list(shape), stype, payload[start : start + form.size])
        records[record] = record_of(built)
    return records


@lru_cache(maxsize=4096)
def _native_form(code: bytes, dims: bytes) -> Form:
    dtype = DTYPE_OF.get(code.decode("latin-1"))
    if dtype is None:
        raise BadDtype(f"expected one of {', '.join(DTYPE_OF)}, got {code[:80]!r}")
    if _DIMS.fullmatch(dims) is None:
        raise BadShape(f"expected a list of sizes, got [{dims[:80].decode('latin-1')!a}]")
    return form_of(RAW, dtype, tuple(map(int, dims.split(b","))) if dims else ())


@lru_cache(maxsize=4096)
def _opaque_form(code: bytes, dims: bytes, said: Spec) -> Form:
    found = _native_form(code, dims)
    if code != b"U8" or len(found.spec.shape) != 1:
        raise BadHeader(f"expected an opaque array to be a U8 tensor of one dimension, got {code!r} [{dims!r}]")
    form = form_of(*said)
    if form.size == -1:
        return form._replace(size=found.size)
    check_size(found.size, form.size, f"the raw payload of {said.dtype} {list(said.shape)}")
    return form


def _explain(header: memoryview, place: int) -> RecordError:
    """Return the error for a header that is not canonical from byte ``place`` on."""
    depth = 0
    for token in _TOKEN.finditer(header):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            return TooDeep(f"expected JSON of at most {MAX_DEPTH} levels", at=f"header byte {token.start()}")
    found = bytes(header[place : place + 60])
    if place == 0:
        return BadHeader(
            f'expected a header that begins with {{"__metadata__":{{"umbel":, got {found!r}; '
            f"a safetensors file from elsewhere is read by umbel.interop.safetensors"
        )
    return BadHeader(f"expected a tensor in canonical form, or the end, got {found!r}", at=f"header byte {place}")
