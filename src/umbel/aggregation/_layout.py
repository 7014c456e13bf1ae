"""Records as flat arrays: what a template declares, views of what came, and room for a result."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._update import Update
from umbel.errors import AggregationError, RecordError, RecordTypeError
from umbel.records import Array, ParametersRecord
from umbel.records._arena import allocate
from umbel.records._parameters import solid_of
from umbel.records._solid import Layout

_RAW: Final = "raw"
_declared: Final = attrgetter("dtype", "shape", "stype")


class Slot(NamedTuple):
    """What a template says of one array."""

    name: str
    dtype: str
    shape: list[int]
    kind: np.dtype[Any]
    size: int
    nbytes: int


def slots(template: ParametersRecord) -> tuple[Slot, ...]:
    """Return the slots of ``template``, in order. Its payloads are not read.

    Raises:
        RecordError: if it declares a dtype that means different bytes on different machines, or no dtype at all.

    """
    solid = solid_of(template)
    if solid is not None:
        return _slots_in(solid.layout)
    return tuple(_slot(name, array.dtype, list(array.shape)) for name, array in template.items())


@lru_cache(maxsize=2)
def _slots_in(layout: Layout) -> tuple[Slot, ...]:
    return tuple(map(_slot, layout.names, layout.dtypes, layout.shapes))


def _slot(name: str, dtype: str, shape: list[int]) -> Slot:
    kind, size = dtype_of(dtype), prod(shape)
    return Slot(name, dtype, shape, kind, size, size * kind.itemsize)


@lru_cache(maxsize=256)
def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype called ``name`` in records.

    Raises:
        RecordError: if records know none.

    """
    return Array(name, [0], _RAW, b"").numpy(copy=False).dtype


def flat(array: Array) -> NDArray[Any]:
    """Return the elements of ``array`` in C order: a 1-D read-only view where the payload allows one.

    Raises:
        RecordError: if the payload does not hold what the array declares.
        RecordTypeError: if its stype has no codec.

    """
    shape = array.shape
    if array.stype == _RAW and (not shape or min(shape) > 0):  # as Array.numpy does, at half the cost
        kind = dtype_of(array.dtype)
        if prod(shape) * kind.itemsize == len(array.data):
            return np.frombuffer(array.data, kind)
    whole = array.numpy(copy=False)
    if whole.flags.c_contiguous and whole.dtype.isnative:
        return whole.reshape(-1)
    (copied,) = allocate([(whole.dtype.newbyteorder("="), whole.size)])
    copied.reshape(whole.shape)[...] = whole
    copied.setflags(write=False)
    return copied


def writable(array: Array) -> NDArray[Any]:
    """Return what ``flat`` does, to be written to: only for whoever made its memory, which nobody else has."""
    elements = flat(array)
    room = dict(elements.__array_interface__, data=(elements.ctypes.data, False))
    held = SimpleNamespace(__array_interface__=room, elements=elements)
    return np.asarray(held).view(elements.dtype)


class Columns(NamedTuple):
    """What records have whose arrays are just as they should be, raw and in order: each field of all of them."""

    names: list[str]
    declared: list[tuple[str, list[int], str]]
    sizes: list[int]


def columns(slots: Sequence[Slot]) -> Columns:
    """Return what ``plain`` compares."""
    return Columns(
        [slot.name for slot in slots],
        [(slot.dtype, slot.shape, _RAW) for slot in slots],
        [slot.nbytes for slot in slots],
    )


def plain(expected: Columns, record: ParametersRecord) -> list[memoryview] | None:
    """Return the payloads of all arrays, none of them empty; None of a record that is to be looked at array by array.

    Almost every update of a round is just as expected, and a few comparisons of lists are enough to know it.
    """
    arrays = record.values()
    if [*record] != expected.names or [*map(_declared, arrays)] != expected.declared:
        return None
    payloads = [array.data for array in arrays]
    return None if [*map(len, payloads)] != expected.sizes or 0 in expected.sizes else payloads  # type: ignore[return-value]


def view(slot: Slot, kind: np.dtype[Any], update: Update) -> NDArray[Any]:
    """Return the elements of the array ``slot`` of an update, taken as dtype ``kind``.

    Raises:
        AggregationError: if there is no such array, or of another dtype or shape, or with a payload that does not fit.

    """
    name, dtype, shape, _, _, nbytes = slot
    try:
        array = update.record[name]
        if array.dtype != dtype or array.shape != shape:
            raise _misfit(slot, update, f"{array.dtype} {array.shape}")
        is_plain = array.stype == _RAW and len(array.data) == nbytes
        return np.frombuffer(array.data, kind) if is_plain else flat(array).view(kind)
    except KeyError as error:
        raise _misfit(slot, update, "none") from error
    except (RecordError, RecordTypeError) as error:
        raise _misfit(slot, update, error.message) from error


def _misfit(slot: Slot, update: Update, came: str) -> AggregationError:
    return AggregationError(
        f"expected {slot.dtype} {slot.shape} from node {update.node!r}, got {came}; let the gate see updates first",
        at=f"array {slot.name!r}",
    )


def to_record(layout: Sequence[Slot], arrays: Sequence[NDArray[Any]]) -> ParametersRecord:
    """Return flat arrays as a record that views them."""
    shaped = {slot.name: array.reshape(slot.shape) for slot, array in zip(layout, arrays, strict=True)}
    return ParametersRecord.from_numpy(shaped, copy=False)
