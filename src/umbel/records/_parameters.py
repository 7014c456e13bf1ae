"""The parameter record: a model as named, ordered, serialised arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from umbel.errors import RecordError, RecordTypeError
from umbel.records._arena import Arena, align, aligned_empty
from umbel.records._array import Array, array_from_numpy, plain, read_only, unchecked
from umbel.records._brief import brief
from umbel.records._dtypes import PORTABLE, PORTABLE_NAMES, name_of, portable
from umbel.records._mapping import TypedMapping, drain
from umbel.records._solid import Layout, Solid, recalled_like
from umbel.records._stypes import RAW, carries, decode_raw, place_raw

P = TypeVar("P", bound="ParametersRecord")
_SHOWN = 6


class ParametersRecord(TypedMapping[Array]):
    """Named arrays in order: a serialised counterpart of a PyTorch ``state_dict``.

    Args:
        array_dict: the arrays to begin with.
        keep_input: False, the default, empties ``array_dict`` once all of it is known to be right, so that the record
            is the only holder of the arrays; True leaves it alone. Neither copies bytes.

    Raises:
        RecordTypeError: if a key is no str or a value no Array; ``array_dict`` is then as it was.

    >>> import numpy as np
    >>> arrays = {"weight": array_from_numpy(np.eye(2)), "bias": array_from_numpy(np.zeros(2))}
    >>> record = ParametersRecord(arrays, keep_input=True)
    >>> list(record), len(arrays)
    (['weight', 'bias'], 2)
    >>> record = ParametersRecord(arrays)
    >>> list(record), len(arrays)
    (['weight', 'bias'], 0)
    >>> record["bias"].numpy()
    array([0., 0.])

    """

    __slots__ = ("_solid",)
    # Of arrays that stand in one buffer; None of others, and once an array was exchanged.
    _solid: Solid | None

    def __init__(self, array_dict: Mapping[str, Array] | None = None, keep_input: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the original
        super().__init__(array_dict, keep_input=keep_input)
        self._solid = None

    def __setitem__(self, key: str, value: Array) -> None:
        """Store ``value`` under ``key``, once both are checked."""
        super().__setitem__(key, value)
        self._solid = None

    def __delitem__(self, key: str) -> None:
        """Remove ``key``."""
        super().__delitem__(key)
        self._solid = None

    def update(self, other: Any = (), /, **entries: Any) -> None:
        """Store several entries, or none of them if one is wrong."""
        super().update(other, **entries)
        self._solid = None

    def copy(self) -> Self:
        """Return a mapping of its own with the same values."""
        twin = record_of(self._data.copy(), type(self))
        twin._solid = self._solid  # noqa: SLF001 - made here
        return twin

    __copy__ = copy

    def _check_value(self, key: str, value: object) -> Array:
        if not isinstance(value, Array):
            msg = f"expected an Array, got {type(value).__name__}; serialise it with array_from_numpy(...)"
            raise RecordTypeError(msg, at=f"ParametersRecord[{brief(key)}]")
        return value

    def count_bytes(self) -> int:
        """Return the bytes of all payloads and of all names in UTF-8."""
        names = "".join(self._data)
        size = len(names) if names.isascii() else sum(len(name.encode()) for name in self._data)
        return size + sum([len(array.data) for array in self._data.values()])

    @classmethod
    def from_numpy(
        cls,
        arrays: Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]],
        *,
        stype: str = RAW,
        keep_input: bool = True,
        copy: bool = True,
        arena: Arena | None = None,
    ) -> Self:
        """Serialise a whole model.

        Args:
            arrays: arrays by name, or a sequence, whose arrays are named "0", "1" ...
            stype: ``"raw"`` copies all arrays into one allocation; any other stype serialises each by itself.
            keep_input: False empties ``arrays`` and lets go of each array once it is read, so that a model that nobody
                else holds is never in memory twice. With a registered codec, which may refuse one, all go at the end.
            copy: False makes read-only views of the caller's arrays instead of a snapshot (``"raw"`` only): they
                change when the caller's arrays do. An array that is not little-endian and C-order is copied.
            arena: write into this buffer instead of a new one. See ``Arena``.

        Raises:
            BadDtype: for a dtype that the stype cannot carry.
            RecordTypeError: if a name is no str or a value no NumPy array. ``arrays`` is then as it was.

        >>> import numpy as np
        >>> record = ParametersRecord.from_numpy({"weight": np.ones((2, 2), np.float32)})
        >>> record["weight"]
        Array(dtype='float32', shape=[2, 2], stype='raw', data=<16 bytes: 00 00 80 3f 00 00 80 3f ...>)
        >>> record.to_numpy()["weight"]
        array([[1., 1.],
               [1., 1.]], dtype=float32)

        """
        taken = _named(arrays)
        if stype == RAW and not copy:
            record = record_of(_views(taken), cls)
            if not keep_input:
                drain(arrays)
            return record
        places, size = _plan(taken)
        layout = _known(taken, places) if stype == RAW else None
        if layout is not None:
            places, size = [(row.name, row.dtype, row.start) for row in layout.rows], layout.size
        certain = carries(stype, {dtype for _, dtype, _ in places})
        buffer = _buffer(arena, size) if stype == RAW else None
        if certain and not keep_input:
            drain(arrays)
        if buffer is not None:
            record = record_of(_snapshot(taken, places, buffer), cls)
            if layout is not None:
                record._solid = Solid(layout, buffer.data.toreadonly(), lasting=arena is None)  # noqa: SLF001 - made here
            return record
        record = record_of({name: array_from_numpy(taken.pop(name), stype) for name, _, _ in places}, cls)
        if not certain and not keep_input:
            # A codec registered by others may refuse the last array, so the caller keeps all until it has not.
            drain(arrays)
        return record

    def to_numpy(self, *, copy: bool = True) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, in order.

        Args:
            copy: True gives arrays of your own; False read-only views of the payloads where the stype allows.

        Raises:
            RecordError: if a payload does not hold what its Array says.

        """
        arrays = {}
        for name, array in self._data.items():
            try:
                if copy or array.stype != RAW:
                    arrays[name] = array.numpy(copy=copy)
                else:  # as numpy() does, without its detours: the path of every message
                    arrays[name] = decode_raw(array.data, array.dtype, array.shape)
            except (RecordError, RecordTypeError) as error:
                raise type(error)(error.message, at=f"ParametersRecord[{brief(name)}]") from error
        return arrays

    def __repr__(self) -> str:
        """Show the arrays; of many, the first and the last."""
        shown = [f"{name!r}: {array!r}" for name, array in self._data.items()]
        if len(shown) > 2 * _SHOWN:
            shown = [*shown[:_SHOWN], f"... {len(shown) - 2 * _SHOWN} more ...", *shown[-_SHOWN:]]
        return f"ParametersRecord({{{', '.join(shown)}}})"


# Where an array goes in the arena: its name, its dtype's name, its offset. A plain tuple, for 10,000 arrays' sake.
_Place: TypeAlias = tuple[str, str, int]


def _named(arrays: object) -> dict[str, NDArray[Any]]:
    if isinstance(arrays, Mapping):
        return dict(arrays)
    if isinstance(arrays, Sequence):
        return {str(place): array for place, array in enumerate(arrays)}
    msg = f"expected a mapping or a sequence of NumPy arrays, got {type(arrays).__name__}"
    raise RecordTypeError(msg)


def _plan(arrays: dict[str, NDArray[Any]]) -> tuple[list[_Place], int]:
    """Check every name and array before the first byte is copied; lay the arrays out one after the other."""
    places, end = [], 0
    for name, value in arrays.items():
        array = arrays[name] = value if type(value) is np.ndarray and type(name) is str else _checked(name, value)
        places.append((name, PORTABLE_NAMES.get(array.dtype) or name_of(array.dtype), end))
        end = align(end + array.nbytes)
    return places, end


def _known(arrays: Mapping[str, NDArray[Any]], places: Sequence[_Place]) -> Layout | None:
    """Return the layout of a model that was read lately and is made of such arrays: a trained one is laid out alike."""
    names, dtypes = [name for name, _, _ in places], [dtype for _, dtype, _ in places]
    return recalled_like(names, dtypes, [list(arrays[name].shape) for name in names])


def _checked(name: object, value: object) -> NDArray[Any]:
    if type(name) is not str:
        msg = f"expected a str as name, got {type(name).__name__} {brief(name)}"
        raise RecordTypeError(msg)
    return value if type(value) is np.ndarray else plain(value, at=f"arrays[{brief(name)}]")


def _buffer(arena: Arena | None, size: int) -> np.ndarray:
    return aligned_empty(size) if arena is None else arena.take(size)


def _snapshot(arrays: dict[str, NDArray[Any]], places: list[_Place], buffer: np.ndarray) -> dict[str, Array]:
    """Copy the arrays to their places, letting go of each once it is copied."""
    view = buffer.data.toreadonly()
    serialised = {}
    for name, dtype, offset in places:
        array = arrays.pop(name)
        place_raw(array, PORTABLE[dtype], buffer, offset)
        serialised[name] = unchecked(dtype, list(array.shape), RAW, view[offset : offset + array.nbytes])
    return serialised


def _views(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """Return views of arrays as ``raw`` wants them; of one that is not so, a view of a copy that is."""
    views = {}
    for name, value in arrays.items():
        array = value if type(value) is np.ndarray and type(name) is str else _checked(name, value)
        known = PORTABLE_NAMES.get(array.dtype)
        dtype = known or name_of(array.dtype)
        try:
            data = array.data.cast("B").toreadonly() if known else None
        except (TypeError, ValueError):  # not C-order, no elements, or a dtype that Python's buffers have no letter for
            data = None
        if data is None:
            data = read_only(np.ascontiguousarray(array, portable(dtype)).reshape(-1).view(np.uint8))
        views[name] = unchecked(dtype, list(array.shape), RAW, data)
    return views


def record_over(layout: Layout, payload: memoryview, *, lasting: bool = False) -> ParametersRecord:
    """Return the solid record whose payloads are in ``payload``, read-only and of the size that the layout has."""
    record: ParametersRecord = record_of(layout.over(payload))
    record._solid = Solid(layout, payload, lasting=lasting)  # noqa: SLF001 - made here
    return record


def solid_of(record: ParametersRecord) -> Solid | None:
    """Return what is known of a record if it is solid, and nobody has changed the shape of an array since."""
    solid: Solid | None = getattr(record, "_solid", None)  # folds take any mapping of arrays, and always have
    if solid is None or [array.shape for array in record.values()] != solid.layout.shapes:
        return None
    return solid


def record_of(arrays: dict[str, Array], kind: type[P] = ParametersRecord) -> P:  # type: ignore[assignment]
    """Return the record that holds ``arrays``, which are known to be right, itself."""
    record = kind.__new__(kind) if kind is ParametersRecord else kind()
    record._data, record._solid = arrays, None  # noqa: SLF001 - the check of 10,000 arrays would cost more than their bytes
    return record
