"""The table of serialisation types: how an array became bytes, and how it comes back.

A codec is a pair of functions under a name. Codecs are registered by code, when a module is imported; nothing in a
record can add one.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from umbel.errors import BadShape, DuplicateName, Mismatch, RecordTypeError, UnknownStype
from umbel.records import _npy
from umbel.records._arena import aligned_empty
from umbel.records._brief import brief
from umbel.records._dtypes import PORTABLE, name_of, portable
from umbel.records._shapes import MAX_RANK, check_size, count_bytes

NPY = "numpy.ndarray"
RAW = "raw"
#: The stypes whose codecs compare what they find with what is declared by themselves.
BUILT_IN = frozenset((NPY, RAW))


class Codec(NamedTuple):
    """A pair of pure functions: ``encode(ndarray) -> bytes-like`` and ``decode(data, dtype, shape) -> ndarray``.

    ``decode`` may return a read-only view of ``data``. It must refuse, with a ``RecordError``, data that do not hold
    exactly an array of ``dtype`` and ``shape``, and must know the size of its result before it allocates it.
    """

    encode: Callable[[np.ndarray], bytes | memoryview]
    decode: Callable[[bytes | memoryview, str, list[int]], np.ndarray]


_NO_ARRAY = np.empty(0, np.uint8)
_CODECS: dict[str, Codec] = {}


def register_stype(
    name: str,
    encode: Callable[[np.ndarray], bytes | memoryview],
    decode: Callable[[bytes | memoryview, str, list[int]], np.ndarray],
) -> None:
    """Add the serialisation type ``name`` to the table.

    Args:
        name: what ``Array.stype`` will say; it crosses the wire.
        encode: takes an array of any shape and order, returns its bytes.
        decode: takes those bytes (``bytes`` or a read-only memoryview), the canonical dtype name and the shape; returns
            the array.

    Raises:
        DuplicateName: if another codec has the name.
        RecordTypeError: if the name is no str, or a codec no function.

    """
    given: tuple[object, ...] = (name, encode, decode)
    if not isinstance(given[0], str) or not all(map(callable, given[1:])):
        kinds = ", ".join(type(value).__name__ for value in given)
        raise RecordTypeError(f"expected a str and two functions, got {kinds}", at="register_stype")
    codec = Codec(encode, decode)
    if _CODECS.setdefault(name, codec) != codec:
        msg = f"the stype {brief(name)} is registered already; choose another name"
        raise DuplicateName(msg)


def codec(stype: str) -> Codec:
    """Return the codec called ``stype``.

    Raises:
        UnknownStype: if there is none, naming those there are.

    """
    found = _CODECS.get(stype)
    if found is None:
        msg = (
            f"no codec is registered for stype {brief(stype)} (known: {', '.join(map(repr, _CODECS))}); decode .data "
            f"yourself, for example with np.frombuffer, or register one with register_stype"
        )
        raise UnknownStype(msg)
    return found


def check_decoded(array: object, dtype: str, shape: list[int]) -> None:
    """Raise Mismatch if a codec of somebody's own returned another array than was declared."""
    if (
        not isinstance(array, np.ndarray)
        or list(array.shape) != shape
        or dtype not in (array.dtype.name, str(array.dtype))
    ):
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise Mismatch(f"declared {brief(dtype)} {brief(shape)}, but the payload was decoded to {found}")


def carries(stype: str, dtypes: Iterable[str]) -> bool:
    """Say whether an array of any of ``dtypes`` is certain to become ``stype`` without an error.

    Raises:
        UnknownStype: if there is no such codec.
        BadDtype: if it is certain that there will be one.

    """
    codec(stype)
    check = {NPY: _npy.check_dtype, RAW: portable}.get(stype)
    if check is not None:
        for dtype in dtypes:
            check(dtype)
    return check is not None


def place_raw(array: np.ndarray, dtype: np.dtype, buffer: np.ndarray, offset: int) -> None:
    """Write ``array`` into ``buffer`` at ``offset``, in C order and as ``dtype`` (its own, little-endian)."""
    np.ndarray(array.shape, dtype, buffer, offset)[...] = array


def _encode_raw(array: np.ndarray) -> memoryview:
    buffer = aligned_empty(array.nbytes)
    place_raw(array, portable(name_of(array.dtype)), buffer, 0)
    return buffer.data.toreadonly()


def decode_raw(data: bytes | memoryview, dtype: str, shape: list[int]) -> np.ndarray:
    kind = PORTABLE.get(dtype) or portable(dtype)
    try:
        array: np.ndarray = np.ndarray(shape, kind, data)
    except (TypeError, ValueError):
        array = _NO_ARRAY
    # The size is compared after the fact, because a view costs nothing and this is the path of every small array.
    # To NumPy, a single size of -1 means as many as there are.
    if array.nbytes != len(data) or array.ndim > MAX_RANK or array is _NO_ARRAY or shape == [-1]:
        check_size(len(data), count_bytes(shape, kind.itemsize), f"the raw payload of {dtype} {brief(shape)}")
        msg = f"the payload cannot be seen as {dtype} {brief(shape)}"
        raise BadShape(msg)
    return array


register_stype(NPY, _npy.encode, _npy.decode)
register_stype(RAW, _encode_raw, decode_raw)
