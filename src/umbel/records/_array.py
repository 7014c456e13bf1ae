"""One serialised array: its dtype, shape, how it was serialised, and the bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from operator import index
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from umbel.errors import RecordError, RecordTypeError
from umbel.records._arena import aligned_empty
from umbel.records._brief import brief
from umbel.records._dtypes import name_of
from umbel.records._stypes import BUILT_IN, NPY, check_decoded, codec

_new = object.__new__
_SHOWN = 8
# A view with a zero in its shape cannot be cast.
_NO_BYTES = memoryview(b"")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Array:
    """A serialised array, with what is needed to turn it back into one.

    Args:
        dtype: name of the dtype of the array before it was serialised, such as ``"float32"`` or ``"bfloat16"``.
        shape: sizes of the array before it was serialised.
        stype: how ``data`` was made. ``"numpy.ndarray"`` is what ``np.save`` writes, ``"raw"`` is C-order little-endian
            bytes; any other name is yours, and so is decoding it.
        data: any bytes-like object. ``bytes`` are kept, anything else is held as a read-only memoryview of its bytes
            and not copied.

    Raises:
        RecordTypeError: if a field has the wrong type. The contents are not looked at until they are decoded.

    >>> import numpy as np
    >>> weights = array_from_numpy(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32))
    >>> weights.dtype, weights.shape, weights.stype
    ('float32', [2, 2], 'numpy.ndarray')
    >>> weights.numpy()
    array([[1., 2.],
           [3., 4.]], dtype=float32)

    A serialisation of your own needs no registration, as long as you decode it yourself:

    >>> a = np.arange(4, dtype=np.int16)
    >>> mine = Array(dtype=str(a.dtype), shape=list(a.shape), stype="my own", data=a.tobytes())
    >>> np.frombuffer(mine.data, dtype=mine.dtype).reshape(mine.shape)
    array([0, 1, 2, 3], dtype=int16)

    """

    dtype: str
    shape: list[int]
    stype: str
    data: bytes | memoryview

    __hash__ = None  # type: ignore[assignment]
    # Above ndarray's, so that `ndarray == array` asks this class instead of comparing element by element.
    __array_priority__ = 1.0

    def __post_init__(self) -> None:
        """Check the types of the fields and hold them in their one form."""
        for field in ("dtype", "stype"):
            value = getattr(self, field)
            if not isinstance(value, str):
                msg = f"expected a str for {field}, got {type(value).__name__}"
                raise RecordTypeError(msg, at=f"Array.{field}")
        object.__setattr__(self, "shape", _sizes(self.shape))
        if type(self.data) is not bytes:
            object.__setattr__(self, "data", read_only(self.data))

    def numpy(self, *, copy: bool = True) -> NDArray[Any]:
        """Return the array.

        Args:
            copy: True gives an array of your own; False a read-only view of ``data`` where the stype allows one.

        Raises:
            UnknownStype: if no codec is registered for ``stype``.
            RecordError: if ``data`` does not hold an array of ``dtype`` and ``shape``.

        """
        array = codec(self.stype).decode(self.data, self.dtype, self.shape)
        if self.stype not in BUILT_IN:
            check_decoded(array, self.dtype, self.shape)
        if not copy:
            array.setflags(write=False)
        elif not array.flags.writeable:
            array = array.copy(order="K")
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - the signature of NumPy
        """Let ``np.asarray(array)`` work; without a request for a copy it gives a read-only view."""
        array = self.numpy(copy=bool(copy))
        if dtype is None or array.dtype == dtype:
            return array
        if copy is False:
            raise RecordError(f"expected dtype {array.dtype} where no copy may be made, got {np.dtype(dtype)}")
        return array.astype(dtype)

    def __eq__(self, other: object) -> bool:
        """Compare dtype, shape, stype and bytes; an array that is not serialised is never equal."""
        if not isinstance(other, Array):
            return NotImplemented
        mine, theirs = (self.dtype, self.shape, self.stype), (other.dtype, other.shape, other.stype)
        return mine == theirs and len(self.data) == len(other.data) and same_bytes(self.data, other.data)

    def __repr__(self) -> str:
        """Show the fields, the data by their length and first bytes."""
        size = len(self.data)
        start = bytes(self.data[:_SHOWN]).hex(" ") + (" ..." if size > _SHOWN else "")
        data = f"<{size} bytes: {start}>" if size else "<0 bytes>"
        return f"Array(dtype={self.dtype!r}, shape={brief(self.shape)}, stype={self.stype!r}, data={data})"

    def __copy__(self) -> Self:
        """Return an equal array that shares the bytes."""
        return unchecked(self.dtype, list(self.shape), self.stype, self.data)  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return an equal array whose bytes nobody else can change: they are copied, unless nobody can as it is."""
        data = self.data if is_settled(self) else _copied(self.data)
        return unchecked(self.dtype, list(self.shape), self.stype, data)  # type: ignore[return-value]

    def __reduce__(self) -> tuple[object, ...]:
        """Let others pickle the array; a view is stored as the bytes it shows."""
        return Array, (self.dtype, self.shape, self.stype, bytes(self.data))


def unchecked(dtype: str, shape: list[int], stype: str, data: bytes | memoryview) -> Array:
    """Return an Array of fields that are known to be right; a tenth of the cost of checking 10,000 of them again."""
    array = _new(Array)
    _set_dtype(array, dtype)
    _set_shape(array, shape)
    _set_stype(array, stype)
    _set_data(array, data)
    return array


# The slots' own setters go round the check that makes the dataclass frozen, at a third of object.__setattr__'s cost.
_set_dtype, _set_shape, _set_stype, _set_data = (vars(Array)[field].__set__ for field in Array.__match_args__)


def array_from_numpy(ndarray: NDArray[Any], stype: str = NPY) -> Array:
    """Serialise a NumPy array, copying its data once.

    Args:
        ndarray: an array (or NumPy scalar) of numbers or bools, of any shape, order and byte order.
        stype: ``"numpy.ndarray"`` for `.npy` bytes, ``"raw"`` for plain little-endian bytes (needed for bfloat16 and
            the other dtypes of ml_dtypes), or the name of a registered codec.

    Raises:
        BadDtype: for objects, strings, dates, structured types, and dtypes that the stype cannot carry.
        RecordTypeError: for anything that is no NumPy array, and for masked arrays, whose mask would be lost.

    """
    array = plain(ndarray)
    return unchecked(name_of(array.dtype), list(array.shape), stype, codec(stype).encode(array))


def plain(value: object, at: str = "") -> NDArray[Any]:
    """Return ``value`` as a base-class array, without copying.

    Raises:
        RecordTypeError: if it is no NumPy array or scalar, or is masked.

    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        msg = "expected a plain array, got a masked one, whose mask would be lost; use .filled(...) first"
        raise RecordTypeError(msg, at=at)
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    msg = f"expected a NumPy array, got {type(value).__name__}; convert it with np.asarray(...)"
    raise RecordTypeError(msg, at=at)


def read_only(data: object) -> memoryview:
    """Return ``data`` as a flat read-only memoryview of bytes, without copying.

    Raises:
        RecordTypeError: if it is not bytes-like, or not contiguous.

    """
    try:
        view = memoryview(data)  # type: ignore[arg-type]
        return view.cast("B").toreadonly() if view.nbytes else _NO_BYTES
    except (TypeError, ValueError, BufferError) as error:
        msg = f"expected contiguous bytes-like data, got {type(data).__name__}"
        raise RecordTypeError(msg, at="Array.data") from error


def same_bytes(left: bytes | memoryview, right: bytes | memoryview) -> bool:
    """Compare two buffers of one length; memoryviews compare themselves an element at a time, NumPy does not."""
    return bool(np.array_equal(np.frombuffer(left, np.uint8), np.frombuffer(right, np.uint8)))


def is_settled(array: Array) -> bool:
    """Say whether the bytes of an array stay what they are: those of ``bytes``, and of a file mapped to be read."""
    data = array.data
    return type(data) is bytes or type(data.obj) is bytes or is_mapped(array)  # type: ignore[union-attr]


def is_mapped(array: Array) -> bool:
    """Say whether the bytes of an array are those of a file mapped to be read: they take no memory of the process."""
    owner = array.data.obj if type(array.data) is memoryview else None
    return type(owner) is mmap and memoryview(owner).readonly


def _copied(data: bytes | memoryview) -> memoryview:
    buffer = aligned_empty(len(data))
    buffer[...] = np.frombuffer(data, np.uint8)
    return buffer.data.toreadonly()


def _sizes(shape: object) -> list[int]:
    if isinstance(shape, str | bytes | Mapping) or not hasattr(shape, "__iter__"):
        msg = f"expected a list of int for shape, got {type(shape).__name__}"
        raise RecordTypeError(msg, at="Array.shape")
    sizes = list(shape)
    for place, size in enumerate(sizes):
        if isinstance(size, bool | np.bool_) or not hasattr(size, "__index__"):
            msg = f"expected an int, got {type(size).__name__} {brief(size)}"
            raise RecordTypeError(msg, at=f"Array.shape[{place}]")
        sizes[place] = index(size)
    return sizes
