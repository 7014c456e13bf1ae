"""Reading a container: bytes in, a record set of views out, or a named error.

The canonical header is a regular language, so one expression reads an entry, and nothing is built from bytes that have
not been checked. Where it does not match, the header is wrong; which error that is, `_explain` finds out.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
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
    TooDeep,
    Truncated,
)
from umbel.records import _meta
from umbel.records._array import unchecked
from umbel.records._layout import DATA_ALIGNMENT, DTYPE_OF, MAX_ARRAYS, MAX_DEPTH, MAX_HEADER, Form, form_of, key_prefixes
from umbel.records._meta import Meta
from umbel.records._names import unquote
from umbel.records._parameters import ParametersRecord
from umbel.records._recordset import RecordSet
from umbel.records._shapes import check_size, count_bytes
from umbel.records._stypes import RAW

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
    slots = _Slots(meta)
    for place, entry in _entries(header, start):
        slots.fill(place, *entry)
    payload = data[8 + len(header) :]
    check_size(len(payload), slots.finish(), "the container")
    return RecordSet(slots.build(payload), meta.metrics, meta.configs)


def _header(data: memoryview) -> memoryview:
    if len(data) < 8:
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


def _entries(header: memoryview, place: int) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    while (match := _ENTRY.match(header, place)) is not None:
        yield place, match.groups()
        place = match.end()
    end = _END.fullmatch(header, place)
    if end is None or len(header) - place > DATA_ALIGNMENT:
        raise _explain(header, place)


class _Slots:
    """The arrays that META names, in its order, filled from the entries, which come in the order of the payloads."""

    def __init__(self, meta: Meta) -> None:
        prefixes = key_prefixes((name, [key for key, _ in arrays]) for name, arrays in meta.parameters)
        self._meta = meta
        self._said = [spec for _, arrays in meta.parameters for _, spec in arrays]
        self._place = {
            key: place
            for place, key in enumerate(
                prefix + name
                for prefix, (_, arrays) in zip(prefixes, meta.parameters, strict=True)
                for name, _ in arrays
            )
        }
        self._forms: list[Form | None] = [None] * len(self._said)
        self._starts = [0] * len(self._said)
        self._stops = [0] * len(self._said)
        self._end = 0
        self._last = _BEFORE_ALL

    def fill(self, at: int, quoted: bytes, code: bytes, dims: bytes, offsets: bytes) -> None:
        """Take the next entry, which stands ``at`` this byte of the header."""
        name = quoted[1:-1].decode("utf-8", "replace") if b"\\" not in quoted else unquote(quoted, f"header byte {at}")
        place = self._place.get(name)
        if place is None:
            raise BadHeader(f"META does not name the array {name!a:.80}", at=f"header byte {at}")
        form, size = self._form(place, name, code, dims)
        start, stop = self._end, self._end + size
        if offsets != b"%d,%d" % (start, stop):
            raise BadOffsets(f"expected [{start},{stop}], got [{offsets[:80].decode('latin-1')!a}]", at=f"array {name!a:.80}")
        self._step((-form.alignment, place), name)
        self._forms[place], self._starts[place], self._stops[place] = form, start, stop
        self._end = stop

    def _form(self, place: int, name: str, code: bytes, dims: bytes) -> tuple[Form, int]:
        try:
            found = _native_form(code, dims)
            said = self._said[place]
            form = found if said is None else form_of(*said)
        except RecordError as error:
            raise type(error)(error.message, at=f"array {name!a:.80}") from error
        if said is not None:
            if code != b"U8" or len(found.spec.shape) != 1:
                raise BadHeader("expected an opaque array to be a U8 tensor of one dimension", at=f"array {name!a:.80}")
            if form.size not in (-1, found.size):
                check_size(found.size, form.size, f"the raw payload of {name!a:.80}")
        return form, found.size

    def _step(self, order: tuple[int, int], name: str) -> None:
        if order <= self._last and self._forms[order[1]] is not None:
            raise DuplicateName(f"expected each array once, got {name!a:.80} twice")
        if order <= self._last:
            raise BadHeader("expected payloads in order of alignment, then of META", at=f"array {name!a:.80}")
        self._last = order

    def finish(self) -> int:
        """Return the bytes of all payloads, once every array has been filled."""
        missing = next((key for key, place in self._place.items() if self._forms[place] is None), None)
        if missing is not None:
            raise BadHeader(f"META names the array {missing!a:.80}, but the header has no entry for it")
        count_bytes([self._end], 1)
        return self._end

    def build(self, payload: memoryview) -> dict[str, ParametersRecord]:
        """Return the records, their arrays views of ``payload``."""
        slots = zip(self._forms, self._starts, self._stops, strict=True)
        records = {}
        for record, arrays in self._meta.parameters:
            built = records[record] = ParametersRecord()
            for (name, _), (form, start, stop) in zip(arrays, slots, strict=False):
                stype, dtype, shape = form.spec  # type: ignore[union-attr]
                built._data[name] = unchecked(dtype, list(shape), stype, payload[start:stop])
        return records


@lru_cache(maxsize=4096)
def _native_form(code: bytes, dims: bytes) -> Form:
    dtype = DTYPE_OF.get(code.decode("latin-1"))
    if dtype is None:
        raise BadDtype(f"expected one of {', '.join(DTYPE_OF)}, got {code[:80]!r}")
    if _DIMS.fullmatch(dims) is None:
        raise BadShape(f"expected a list of sizes, got [{dims[:80].decode('latin-1')!a}]")
    return form_of(RAW, dtype, tuple(map(int, dims.split(b","))) if dims else ())


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
