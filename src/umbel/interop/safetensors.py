"""Plain safetensors files: models from elsewhere as records, and records as files that hold nothing but the arrays.

Every container of ``umbel.records`` opens in any safetensors reader already. This module reads what others wrote,
which has no record names, no explicit order and no canonical form, and writes files without Umbel's metadata.

It has a reader of its own, so that a hostile file ends in a named error here too, and so that bfloat16 and float8 come
in without PyTorch; nothing needs to be installed for it.
"""

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from umbel.errors import BadDtype, BadHeader, HeaderTooLarge, RecordError, RecordTypeError
from umbel.interop._tensors import DTYPES, METADATA, Tensor, read
from umbel.records import Array, ParametersRecord, array_from_numpy
from umbel.records._array import read_only, unchecked
from umbel.records._dtypes import PORTABLE
from umbel.records._files import map_file, write
from umbel.records._layout import DATA_ALIGNMENT, MAX_HEADER
from umbel.records._stypes import RAW

__all__ = ["dumps", "load", "loads", "save"]

_CODES = {name: code for code, name in DTYPES.items()}


def dumps(record: ParametersRecord, *, metadata: Mapping[str, str] | None = None) -> list[bytes | memoryview]:
    """Return a safetensors file as segments: a header, then the payloads.

    Payloads that are raw bytes are not copied; others are decoded first. The header names the arrays in the order of
    the record; the bytes stand in order of item size, so that each begins where its dtype likes.

    Args:
        record: the arrays.
        metadata: strings for ``__metadata__``, such as ``{"format": "pt"}``, which some readers ask for.

    Raises:
        RecordTypeError: if ``record`` is no ParametersRecord, or the metadata are not strings.
        BadDtype: for a dtype that safetensors lacks, with the name of the array.
        RecordError: if a payload does not hold what its Array says.

    >>> import numpy as np
    >>> record = ParametersRecord.from_numpy({"weight": np.arange(3.0)})
    >>> loads(b"".join(dumps(record))).to_numpy()
    {'weight': array([0., 1., 2.])}

    """
    if not isinstance(record, ParametersRecord):
        raise RecordTypeError(f"expected a ParametersRecord, got {type(record).__name__}")
    arrays = {name: _raw(name, array) for name, array in record.items()}
    order = sorted(arrays, key=lambda name: -PORTABLE[arrays[name].dtype].itemsize)
    starts, end = {}, 0
    for name in order:
        starts[name] = end
        end += len(arrays[name].data)
    return [_header(arrays, starts, metadata), *(arrays[name].data for name in order)]


def loads(data: object) -> ParametersRecord:
    """Return the tensors of a safetensors file as a record; its arrays are views of ``data``, which is not copied.

    Args:
        data: the file, any contiguous bytes-like object. It must not change while the arrays are in use.

    Raises:
        RecordError: if it is no safetensors file; the subclass says what is wrong.

    """
    tensors, payload = read(read_only(data))
    return ParametersRecord({tensor.name: _array(tensor, payload) for tensor in tensors})


def save(record: ParametersRecord, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``record`` to a safetensors file, so that after a crash the file is there whole or not at all.

    Args:
        record: the arrays.
        path: where to; a file that is there is replaced.
        metadata: strings for ``__metadata__``, such as ``{"format": "pt"}``, which some readers ask for.

    Raises:
        RecordError: for a record that a safetensors file cannot hold; nothing is written.
        OSError: if the disk refuses; nothing is left behind.

    """
    write(dumps(record, metadata=metadata), path)


def load(path: str | os.PathLike[str]) -> ParametersRecord:
    """Return the tensors in the safetensors file at ``path``. The file is mapped: arrays are views, read when used.

    Args:
        path: the file. It must not be overwritten while the arrays are in use; replacing it is safe.

    Raises:
        RecordError: if it is no safetensors file; the subclass says what is wrong.
        OSError: if it cannot be read.

    """
    return loads(map_file(path))


def _array(tensor: Tensor, payload: memoryview) -> Array:
    return unchecked(tensor.dtype, list(tensor.shape), RAW, payload[tensor.start : tensor.stop])


def _raw(name: str, array: Array) -> Array:
    """Return ``array`` with a raw payload that is known to be what it says."""
    at = f"ParametersRecord[{name!a:.80}]"
    if name == METADATA:
        raise BadHeader("safetensors keeps this name for itself; rename the array", at=at)
    try:
        decoded = array.numpy(copy=False)
    except (RecordError, RecordTypeError) as error:
        raise type(error)(error.message, at=at) from error
    if decoded.dtype.newbyteorder("=").name not in _CODES:
        raise BadDtype(f"safetensors has no {array.dtype}; convert the array, or use umbel.records.save", at=at)
    return array if array.stype == RAW else array_from_numpy(decoded, RAW)


def _header(arrays: Mapping[str, Array], starts: Mapping[str, int], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, object] = {} if metadata is None else {METADATA: _strings(metadata)}
    for name, array in arrays.items():
        span = [starts[name], starts[name] + len(array.data)]
        entries[name] = {"dtype": _CODES[array.dtype], "shape": array.shape, "data_offsets": span}
    text = msgspec.json.encode(entries)
    if len(text) > MAX_HEADER - DATA_ALIGNMENT:
        raise HeaderTooLarge(f"expected a header of at most {MAX_HEADER} bytes, got {len(text)}; use shorter names")
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _strings(metadata: Mapping[Any, Any]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise RecordTypeError(f"expected metadata from str to str, got {key!r:.80}: {value!r:.80}")
    return dict(metadata)
