"""The closed list of dtypes that a record can carry, by their one canonical name.

A dtype crosses the wire as a name from this table, never as a class or a NumPy descriptor string. Sub-byte types of
ml_dtypes (int4, uint4 ...) take one byte an element, as they do in memory.
"""

import ml_dtypes
import numpy as np

from umbel.errors import BadDtype

_NUMPY_NAMES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
_ML_NAMES = (
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
    "int4",
    "uint4",
    "int2",
    "uint2",
)
# x86 keeps 80 bits in these, other machines 64 or 128: only `.npy` bytes carry them, and only between like machines.
_PLATFORM_NAMES = tuple(
    np.dtype(kind).name for kind in (np.longdouble, np.clongdouble) if np.dtype(kind).name not in _NUMPY_NAMES
)

#: Canonical name -> little-endian dtype, for every dtype whose bytes mean the same on every machine.
PORTABLE: dict[str, np.dtype] = {
    **{name: np.dtype(name).newbyteorder("<") for name in _NUMPY_NAMES},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _ML_NAMES},
}
#: Names whose payload can be `.npy` bytes (NumPy's format has no name for the dtypes of ml_dtypes).
NPY_NAMES = frozenset(_NUMPY_NAMES + _PLATFORM_NAMES)

#: The names of those, by dtype. Dtypes hash and compare by value, so one look-up answers for the usual case.
PORTABLE_NAMES = {dtype: name for name, dtype in PORTABLE.items()}


def name_of(dtype: np.dtype) -> str:
    """Return the canonical name of ``dtype`` whatever its byte order.

    Raises:
        BadDtype: for objects, strings, dates, void and structured dtypes.

    """
    name = PORTABLE_NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.name in PORTABLE or dtype.name in _PLATFORM_NAMES:
        return dtype.name
    msg = (
        f"expected a number or bool dtype that a record can carry, got {dtype!s}; "
        f"convert the array first, for example with .astype('float32') (known: {', '.join(PORTABLE)})"
    )
    raise BadDtype(msg)


def portable(name: str) -> np.dtype:
    """Return the little-endian dtype called ``name``.

    Raises:
        BadDtype: if ``name`` is not in the closed list, or means different bytes on different machines.

    """
    dtype = PORTABLE.get(name)
    if dtype is not None:
        return dtype
    if name in _PLATFORM_NAMES:
        msg = f"the bytes of {name} differ from machine to machine; convert to float64, or use stype='numpy.ndarray'"
        raise BadDtype(msg)
    msg = f"expected one of the dtypes {', '.join(PORTABLE)}, got {name[:60]!a}"
    raise BadDtype(msg)
