"""The compiled loops of the package, where there are any: NumPy's bits in less time.

``_loops.c`` is compiled when the package is built, if there is a compiler; without it nothing differs but the time.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Block: TypeAlias = NDArray[Any]
Loop: TypeAlias = Callable[..., Any]
Addresses: TypeAlias = "ctypes.Array[ctypes.c_void_p]"

LIBRARY: Final = __file__.removesuffix("_compiled.py") + "_loops.so"

ADDRESS: Final = ctypes.c_void_p
COUNT: Final = ctypes.c_size_t
FLAG: Final = ctypes.c_int
# A number of the dtype that the loop is for.
NUMBER: Final = None
_NUMBERS: Final[Mapping[np.dtype[Any], tuple[str, Any]]] = {
    np.dtype(np.float32): ("float", ctypes.c_float),
    np.dtype(np.float64): ("double", ctypes.c_double),
}
# Of what the loops take: one more with every change of it.
_VERSION: Final = 4


def loops(
    name: str,
    arguments: Sequence[Any],
    result: Any = None,
    path: str = LIBRARY,
    *,
    kind: type[ctypes.CDLL] = ctypes.CDLL,
) -> dict[np.dtype[Any], Loop]:
    """Return a loop for each dtype; none, where nothing was compiled or this machine cannot load it.

    The ``kind`` of library that keeps other threads out, ``PyDLL``, is for loops that ask Python something.
    """
    try:
        library = kind(path)
        found = {dtype: getattr(library, f"umbel_{name}_{_VERSION}_{real}") for dtype, (real, _) in _NUMBERS.items()}
    except (OSError, AttributeError):  # one of another version has other names
        return {}
    for dtype, loop in found.items():
        _, number = _NUMBERS[dtype]
        loop.argtypes = [number if argument is NUMBER else argument for argument in arguments]
        loop.restype = result
    return found


def address(array: Block) -> int:
    """Return where the elements of an array begin."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def array_of(kind: Any, count: int) -> Any:
    """Return the type of so many; ctypes makes one anew wherever nobody has kept it, and types are dear garbage."""
    return kind * count


def addresses(arrays: Sequence[Block]) -> Addresses:
    """Return where the elements of each array begin, as a loop takes it."""
    return array_of(ADDRESS, len(arrays))(*map(address, arrays))  # type: ignore[no-any-return]


def as_they_are(dtype: np.dtype[Any], arrays: Sequence[Block]) -> bool:
    """Return whether a loop for ``dtype`` can take arrays from where they are."""
    return all(each.flags.c_contiguous and each.flags.aligned and each.dtype == dtype for each in arrays)
