"""Writing a container: a header, then views of the payloads. No joined copy of a model is ever made."""

from functools import lru_cache

from umbel.errors import HeaderTooLarge, RecordError
from umbel.records import _meta
from umbel.records._array import Array
from umbel.records._layout import DATA_ALIGNMENT, MAX_HEADER, NATIVE, Form, Spec, check_payload, form_of, key_prefixes
from umbel.records._meta import Meta
from umbel.records._names import quote
from umbel.records._recordset import RecordSet
from umbel.records._shapes import count_bytes

Placed = list[tuple[str, Array, Form]]


def dumps(records: RecordSet) -> list[bytes | memoryview]:
    """Return the container as segments: the header, then the payloads as they are, not copied."""
    parameters = records.parameters_records
    placed = _place(records)
    meta = Meta(
        [(name, [(key, _said(array)) for key, array in record.items()]) for name, record in parameters.items()],
        dict(records.metrics_records),
        dict(records.configs_records),
    )
    return [_header(_meta.encode(meta), placed), *(array.data for _, array, _ in placed)]


def _place(records: RecordSet) -> Placed:
    """Return key, array and form of all arrays in the order of their payloads."""
    placed = []
    parameters = records.parameters_records
    for prefix, (record, arrays) in zip(key_prefixes(parameters.items()), parameters.items(), strict=True):
        for name, array in arrays.items():
            try:
                form = form_of(array.stype, array.dtype, tuple(array.shape))
                check_payload(array, form)
            except RecordError as error:
                raise type(error)(error.message, at=f"parameters_records[{record!a:.80}][{name!a:.80}]") from error
            placed.append((prefix + name, array, form))
    placed.sort(key=lambda entry: -entry[2].alignment)
    return placed


def _said(array: Array) -> Spec | None:
    form = form_of(array.stype, array.dtype, tuple(array.shape))
    return None if form.native else form.spec


def _header(meta: str, placed: Placed) -> bytes:
    count_bytes([sum(len(array.data) for _, array, _ in placed)], 1)
    parts = [f'{{"__metadata__":{{"umbel":{quote(meta)}}}']
    start = 0
    for key, array, form in placed:
        stop = start + len(array.data)
        begin = _entry(form) if form.native else f'{{"dtype":"U8","shape":[{stop - start}],"data_offsets":['
        parts.append(f"{quote(key)}:{begin}{start},{stop}]}}")
        start = stop
    text = (",".join(parts) + "}").encode()
    if len(text) > MAX_HEADER - DATA_ALIGNMENT:
        raise HeaderTooLarge(f"expected a header of at most {MAX_HEADER} bytes, got {len(text)}; use shorter names")
    padded = text + b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    return len(padded).to_bytes(8, "little") + padded


@lru_cache(maxsize=4096)
def _entry(form: Form) -> str:
    dims = ",".join(map(str, form.spec.shape))
    return f'{{"dtype":"{NATIVE[form.spec.dtype]}","shape":[{dims}],"data_offsets":['
