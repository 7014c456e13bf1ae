"""Reading a container: bytes in, a record set of views out, or a named error.

The canonical header is a regular language, so one expression reads an entry, and nothing is built from bytes that have
not been checked. Where it does not match, the header is wrong; which error that is, `malformed` finds out.
"""

import re
from array import array
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

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
    Truncated,
)
from umbel.records import _meta
from umbel.records._array import unchecked
from umbel.records._brief import brief
from umbel.records._layout import (
    DATA_ALIGNMENT,
    DTYPE_OF,
    MAX_ARRAYS,
    MAX_HEADER,
    Form,
    Spec,
    form_of,
    keys_of,
)
from umbel.records._meta import Meta
from umbel.records._names import MAX_NAME_BYTES, unescape, unquote
from umbel.records._parameters import ParametersRecord, record_of, record_over
from umbel.records._recordset import RecordSet
from umbel.records._shapes import MAX_BYTES, MAX_RANK, check_size, count_bytes
from umbel.records._solid import Layout, Row, recalled, remembered
from umbel.records._stypes import RAW
from umbel.records._syntax import malformed

_PREFIX = 8
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_START = re.compile(rb'\{"__metadata__":\{"umbel":"([^"\\]*+(?:\\.[^"\\]*+)*+)"\}')
_ENTRY = re.compile(
    rb",(" + _STRING + rb'):\{"dtype":"([^"\\]*+)","shape":\[([^][]*+)\],"data_offsets":\[([^][]*+)\]\}'
)
_END = re.compile(rb"\} *+")
_DIMS = re.compile(rb"(?:(?:0|[1-9]\d{0,18})(?:,(?:0|[1-9]\d{0,18}))*+)?")
_CHUNK = 2**20
# Two names, their characters escaped; no longer key is worth decoding.
_MAX_KEY = 8 * MAX_NAME_BYTES + 4


def loads(data: memoryview) -> RecordSet:
    """Return the record set in the container ``data``; its arrays are views of ``data``."""
    header = _header(data)
    payload = data[_PREFIX + len(header) :]
    layout = recalled(header)
    if layout is None:
        meta, start = _read_meta(header)
        slots, size = _read_entries(header, start, meta)
        check_size(len(payload), size, "the container")
        layout = _layout(header, meta, slots)
        if layout is None:
            return RecordSet(_build(meta, slots, payload), meta.metrics, meta.configs)
    check_size(len(payload), layout.size, "the container")
    return RecordSet({layout.record: record_over(layout, payload)})


def _layout(header: memoryview, meta: Meta, slots: "_Slots") -> Layout | None:
    """Return the layout of a container that is one record of raw arrays: models are read again and again."""
    if len(meta.parameters) != 1 or meta.parameters[0].opaque or meta.metrics or meta.configs:
        return None
    (arrays,) = meta.parameters
    rows = [
        Row(name, form.spec.dtype, form.spec.shape, start, start + form.size)  # type: ignore[union-attr]
        for name, form, start in zip(arrays.names, slots.forms, slots.starts, strict=True)
    ]
    return remembered(arrays.record, rows, header)


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
        what = 'expected a header that begins with {"__metadata__":{"umbel":META}'
        raise malformed(header, 0, 0, f"{what} (umbel.interop.safetensors reads files from elsewhere)", "header")
    entries = _count_entries(header)
    if entries > MAX_ARRAYS:
        raise LimitExceeded(f"expected at most {MAX_ARRAYS} arrays in one container, got {entries} or more")
    return _meta.decode(unescape(match[1], '__metadata__["umbel"]'), entries), match.end()


def _count_entries(header: memoryview) -> int:
    """Return about how many tensors the header names (one may be missed at the edge of a chunk), without parsing it."""
    return sum(
        bytes(header[start : start + _CHUNK]).count(b'"data_offsets":[') for start in range(0, len(header), _CHUNK)
    )


class _Slots(NamedTuple):
    """For each array in the order of META: its form and where its payload starts."""

    forms: list[Form | None]
    starts: "array[int]"


def _read_entries(header: memoryview, at: int, meta: Meta) -> tuple[_Slots, int]:
    """Return the slots of all arrays, and the bytes of all payloads.

    The entries come in the order of the payloads. One loop, whose rare cases are functions: models of 10,000 arrays are
    read in it, and it keeps 16 bytes an array.
    """
    keys = keys_of([(arrays.record, arrays.names) for arrays in meta.parameters])
    said = _said(meta)
    slots = forms, starts = _Slots([None] * len(keys), array("Q", bytes(8 * len(keys))))
    end, alignment, place = 0, MAX_BYTES, -1
    match = _ENTRY.match(header, at)
    while match is not None:
        quoted, code, dims, offsets = match.groups()
        before, place = place, place + 1
        # Most often this is the next key, and has nothing to escape.
        if place >= len(keys) or keys[place].encode() != quoted[1:-1] or b"\\" in quoted:
            place = _find(keys, quoted, before, at)
        form = _native_form(code, dims) if place not in said else _opaque_form(code, dims, said[place])
        start, end = end, end + form.size
        if offsets != b"%d,%d" % (start, end):
            raise BadOffsets(f"expected [{start},{end}], got [{offsets[:80]!r}]", at=f"array {quoted[:80]!r}")
        if form.alignment >= alignment and (form.alignment > alignment or place <= before):
            raise _disorder(quoted, repeated=forms[place] is not None)
        forms[place], starts[place], alignment, at = form, start, form.alignment, match.end()
        match = _ENTRY.match(header, at)
    if _END.fullmatch(header, at) is None or len(header) - at > DATA_ALIGNMENT:
        raise malformed(header, at, 1, "expected a tensor in canonical form, or the end", "header")
    if None in forms:
        missing = keys[forms.index(None)]
        raise BadHeader(f"META names the array {brief(missing)}, but the header has no entry for it")
    count_bytes([end], 1)
    return slots, end


def _said(meta: Meta) -> dict[int, Spec]:
    """Return the specs of the opaque arrays by their place among all arrays."""
    firsts = accumulate((len(arrays.names) for arrays in meta.parameters), initial=0)
    return {
        first + place: spec
        for first, arrays in zip(firsts, meta.parameters, strict=False)
        for place, spec in arrays.opaque.items()
    }


def _find(keys: list[str], quoted: bytes, last: int, at: int) -> int:
    """Return the place of a key.

    Among payloads of one alignment the places rise, so the key is most often the next one, and all searches of one
    alignment together pass over the keys once. No table of 65,536 keys is needed.
    """
    if len(quoted) > _MAX_KEY:
        raise BadHeader(f"META does not name the array {brief(quoted)}", at=f"header byte {at}")
    key = unquote(quoted, at)
    following = last + 1
    if following < len(keys) and keys[following] == key:
        return following
    for start in (following, 0):
        with suppress(ValueError):
            return keys.index(key, start)
    raise BadHeader(f"META does not name the array {brief(key)}", at=f"header byte {at}")


def _disorder(quoted: bytes, *, repeated: bool) -> RecordError:
    if repeated:
        return DuplicateName(f"expected each array once, got {quoted[:80]!r} twice")
    return BadHeader("expected payloads in order of alignment, then of META", at=f"array {quoted[:80]!r}")


def _build(meta: Meta, slots: _Slots, payload: memoryview) -> dict[str, ParametersRecord]:
    """Return the records, their arrays views of ``payload``."""
    filled = zip(slots.forms, slots.starts, strict=True)
    records: dict[str, ParametersRecord] = {}
    for record, names, _ in meta.parameters:
        built = {}
        for name, (form, start) in zip(names, filled, strict=False):
            stype, dtype, shape = form.spec  # type: ignore[union-attr]
            built[name] = unchecked(dtype, list(shape), stype, payload[start : start + form.size])  # type: ignore[union-attr]
        records[record] = record_of(built)
    return records


@lru_cache(maxsize=4096)
def _native_form(code: bytes, dims: bytes) -> Form:
    dtype = DTYPE_OF.get(code.decode("latin-1"))
    if dtype is None:
        raise BadDtype(f"expected one of {', '.join(DTYPE_OF)}, got {code[:80]!r}")
    if dims.count(b",") >= MAX_RANK:
        raise BadShape(f"expected at most {MAX_RANK} dimensions, got {dims.count(b',') + 1}")
    if _DIMS.fullmatch(dims) is None:
        raise BadShape(f"expected a list of sizes, got [{dims[:80].decode('latin-1')!a}]")
    return form_of(RAW, dtype, tuple(map(int, dims.split(b","))) if dims else ())


@lru_cache(maxsize=4096)
def _opaque_form(code: bytes, dims: bytes, said: Spec) -> Form:
    found = _native_form(code, dims)
    if code != b"U8" or len(found.spec.shape) != 1:
        raise BadHeader(f"expected an opaque array to be a U8 tensor of one dimension, got {code!r} [{dims[:80]!r}]")
    form = form_of(*said)
    if form.size == -1:
        return form._replace(size=found.size)
    check_size(found.size, form.size, f"the raw payload of {said.dtype} {list(said.shape)}")
    return form
