"""`.npy` payloads: what `np.save` writes, read strictly, with headers cached.

Most models have few distinct (dtype, shape) pairs, so a header is built once and parsed once: the cache takes the cost
of an array from tens of microseconds to a few.
"""

import re
from functools import lru_cache
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from umbel.errors import BadDtype, BadHeader, BadShape, HeaderTooLarge, Mismatch, Truncated
from umbel.records._arena import aligned_empty
from umbel.records._brief import brief
from umbel.records._dtypes import NPY_NAMES, name_of
from umbel.records._shapes import check_size, count_bytes

_MAGIC = b"\x93NUMPY"
_SHORTEST = 10
_PREFIX = {1: (10, "<u2"), 2: (12, "<u4"), 3: (12, "<u4")}
# What NumPy writes for 32 dimensions fits. Headers that are read are kept, so a sender decides what this process holds.
_MAX_HEADER = 1024
_SIZE = rb"(?:0|[1-9]\d{0,18})"
_HEADER = re.compile(
    rb"\{'descr': ('[^']*'|\[.*\]), 'fortran_order': (True|False), "
    rb"'shape': \(((?:%s(?:, %s)*,?)?)\),? ?\} *\n?" % (_SIZE, _SIZE),
)


class Header(NamedTuple):
    """What a `.npy` header says: the dtype, the shape, the order, and where the data start."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    start: int


@lru_cache(maxsize=4096)
def _header_bytes(dtype: np.dtype, shape: tuple[int, ...], *, fortran: bool) -> bytes:
    out = BytesIO()
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    npy_format.write_array_header_1_0(out, fields)
    return out.getvalue()


def check_dtype(name: str) -> None:
    """Raise BadDtype if `.npy` has no name for the dtype called ``name``."""
    if name not in NPY_NAMES:
        msg = f"the .npy format cannot name {name} and would store it as anonymous void bytes; use stype='raw'"
        raise BadDtype(msg)


def encode(array: np.ndarray) -> memoryview:
    """Return the bytes that ``np.save(..., allow_pickle=False)`` writes for ``array``, in one copy.

    Raises:
        BadDtype: if `.npy` has no name for the dtype (bfloat16, float8 ...); ``raw`` carries those.

    """
    check_dtype(name_of(array.dtype))
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    header = _header_bytes(array.dtype, array.shape, fortran=fortran)
    buffer = aligned_empty(len(header) + array.nbytes)
    buffer[: len(header)] = np.frombuffer(header, np.uint8)
    order: Literal["C", "F"] = "F" if fortran else "C"
    np.ndarray(array.shape, array.dtype, buffer, len(header), order=order)[...] = array
    return buffer.data.toreadonly()


def decode(data: bytes | memoryview, dtype: str, shape: list[int]) -> np.ndarray:
    """Return a view of the array in the `.npy` bytes ``data``, which must hold ``dtype`` and ``shape``.

    Raises:
        RecordError: if the bytes are no `.npy` file, are cut, go on too long, hold objects or structured types, or hold
            another array than declared.

    """
    header = _parse(_prefix(data))
    found = name_of(header.dtype)
    if dtype not in (found, str(header.dtype)) or tuple(shape) != header.shape:
        msg = f"declared {brief(dtype)} {brief(list(shape))}, but the .npy payload holds {found} {list(header.shape)}"
        raise Mismatch(msg)
    check_size(len(data) - header.start, count_bytes(header.shape, header.dtype.itemsize), "the .npy payload")
    return np.ndarray(header.shape, header.dtype, data, header.start, order=header.order)


def _prefix(data: bytes | memoryview) -> bytes:
    """Return magic, version, length and header text, once they are known to be there."""
    start = bytes(data[:12])
    if not start.startswith(_MAGIC[: len(start)]):
        raise _not_npy(start)
    if len(start) < _SHORTEST:
        msg = f"expected a .npy payload of at least {_SHORTEST} bytes, got {len(start)}"
        raise Truncated(msg)
    if start[6] not in _PREFIX:
        msg = f"expected .npy version 1.0, 2.0 or 3.0, got {start[6]}.{start[7]}"
        raise BadHeader(msg)
    offset, kind = _PREFIX[start[6]]
    length = int.from_bytes(start[8 : 8 + int(kind[2])], "little")
    if length > _MAX_HEADER:
        msg = f"expected a .npy header of at most {_MAX_HEADER} bytes, got a declared length of {length}"
        raise HeaderTooLarge(msg)
    if offset + length > len(data):
        msg = f"the .npy header should end at byte {offset + length}, but the payload has {len(data)} bytes"
        raise Truncated(msg)
    return bytes(data[: offset + length])


def _not_npy(start: bytes) -> BadHeader | Mismatch:
    if start.startswith(b"PK"):
        return Mismatch("expected .npy bytes, got a zip archive (.npz?); store one array at a time")
    return BadHeader(f"expected .npy bytes, which begin with {_MAGIC!r}, got {start[:6]!r}")


@lru_cache(maxsize=4096)
def _parse(prefix: bytes) -> Header:
    offset, _ = _PREFIX[prefix[6]]
    match = _HEADER.fullmatch(prefix, offset)
    if match is None or prefix[7] != 0:
        msg = f"expected a .npy header with descr, fortran_order and shape, got {prefix[offset : offset + 80]!r}"
        raise BadHeader(msg)
    descr, fortran, dims = match.groups()
    shape = tuple(int(dim) for dim in dims.rstrip(b",").split(b", ")) if dims else ()
    if (len(shape) == 1) != dims.endswith(b","):
        msg = f"expected a tuple of sizes, got ({dims[:80].decode()})"
        raise BadShape(msg)
    return Header(_dtype(descr), shape, "F" if fortran == b"True" else "C", len(prefix))


def _dtype(descr: bytes) -> np.dtype:
    text = descr.decode("latin-1").strip("'")
    if not re.fullmatch(r"[<>|][biufc]\d{1,2}", text):
        msg = f"expected a plain number or bool dtype in the .npy header, got descr {text[:80]!r}"
        raise BadDtype(msg)
    try:
        return np.dtype(text)
    except TypeError as error:
        msg = f"this NumPy has no dtype {text!r}"
        raise BadDtype(msg) from error
