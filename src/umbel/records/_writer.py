"""Writing a container: a header, then views of the payloads. No joined copy of a model is ever made."""

from functools import lru_cache
from itertools import chain

from umbel.errors import HeaderTooLarge, RecordError
from umbel.records import _meta
from umbel.records._array import Array
from umbel.records._brief import brief
from umbel.records._layout import DATA_ALIGNMENT, MAX_HEADER, NATIVE, Form, check_payload, form_of, keys_of
from umbel.records._meta import Arrays, Meta
from umbel.records._names import escape, quote
from umbel.records._parameters import ParametersRecord, solid_of
from umbel.records._recordset import RecordSet
from umbel.records._shapes import count_bytes
from umbel.records._solid import Layout, Solid, recalled_like
from umbel.records._stypes import RAW

Placed = list[tuple[str, Array, Form]]


def dumps(records: RecordSet) -> list[bytes | memoryview]:
    """Return the container as segments: the header, then the payloads as they are, not copied."""
    return _known(records) or _composed(records)


def solid_alone(records: RecordSet) -> Solid | None:
    """Return what is known of the one record of ``records`` if that is all, and its container is what it came in."""
    found = _alone(records)
    if found is None:
        return None
    name, record = found
    solid = solid_of(record)
    return solid if solid is not None and solid.layout.record == name else None


def _known(records: RecordSet) -> list[bytes | memoryview] | None:
    """Return the container of one record that is like one that was read lately."""
    found = _alone(records)
    if found is None:
        return None
    name, record = found
    solid = solid_of(record)
    layout = _layout_like(record) if solid is None else solid.layout
    if layout is None or layout.record != name:
        return None
    payloads = [record[each].data for each in layout.placed] if solid is None else [solid.data]
    return [_prefixed(layout.header), *payloads]


def _alone(records: RecordSet) -> tuple[str, ParametersRecord] | None:
    """Return the one parameters record of ``records``, with its name, if there is nothing else."""
    if len(records.parameters_records) != 1 or records.metrics_records or records.configs_records:
        return None
    (entry,) = records.parameters_records.items()
    return entry


def _prefixed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def _layout_like(record: ParametersRecord) -> Layout | None:
    """Return the layout of a record that is not solid, but made like a model that was read lately."""
    arrays = list(record.values())
    layout = recalled_like(list(record), [array.dtype for array in arrays], [array.shape for array in arrays])
    if layout is None or {array.stype for array in arrays} != {RAW}:
        return None
    return layout if [len(array.data) for array in arrays] == layout.sizes else None


def _composed(records: RecordSet) -> list[bytes | memoryview]:
    forms = [_forms(name, record) for name, record in records.parameters_records.items()]
    said = [_said(*entry) for entry in zip(records.parameters_records.items(), forms, strict=True)]
    meta = Meta(said, dict(records.metrics_records), dict(records.configs_records))
    placed = _place(records, said, forms)
    return [_header(_meta.encode(meta), placed), *(array.data for _, array, _ in placed)]


def _forms(record: str, arrays: ParametersRecord) -> list[Form]:
    forms = []
    for name, array in arrays.items():
        try:
            form = form_of(array.stype, array.dtype, tuple(array.shape))
            check_payload(array, form)
        except RecordError as error:
            raise type(error)(error.message, at=f"parameters_records[{brief(record)}][{brief(name)}]") from error
        forms.append(form)
    return forms


def _said(entry: tuple[str, ParametersRecord], forms: list[Form]) -> Arrays:
    name, record = entry
    return Arrays(name, list(record), {place: form.spec for place, form in enumerate(forms) if not form.native})


def _place(records: RecordSet, said: list[Arrays], forms: list[list[Form]]) -> Placed:
    """Return key, array and form of all arrays in the order of their payloads."""
    keys = keys_of([(arrays.record, arrays.names) for arrays in said])
    arrays = chain.from_iterable(record.values() for record in records.parameters_records.values())
    placed = list(zip(keys, arrays, chain.from_iterable(forms), strict=True))
    placed.sort(key=lambda entry: -entry[2].alignment)
    return placed


def _header(meta: bytes, placed: Placed) -> bytes:
    count_bytes([sum(len(array.data) for _, array, _ in placed)], 1)
    parts, start = [], 0
    for key, array, form in placed:
        stop = start + len(array.data)
        begin = _entry(form) if form.native else f'{{"dtype":"U8","shape":[{stop - start}],"data_offsets":['
        parts.append(f",{quote(key)}:{begin}{start},{stop}]}}")
        start = stop
    text = b'{"__metadata__":{"umbel":%b}%b}' % (escape(meta), "".join(parts).encode())
    if len(text) > MAX_HEADER - DATA_ALIGNMENT:
        raise HeaderTooLarge(f"expected a header of at most {MAX_HEADER} bytes, got {len(text)}; use shorter names")
    padded = text + b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    return _prefixed(padded)


@lru_cache(maxsize=4096)
def _entry(form: Form) -> str:
    dims = ",".join(map(str, form.spec.shape))
    return f'{{"dtype":"{NATIVE[form.spec.dtype]}","shape":[{dims}],"data_offsets":['
