"""Arrays of an update beside those of the model that it comes from, a block at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from umbel.aggregation import flat
from umbel.aggregation._layout import dtype_of
from umbel.aggregation._steps import Block, blocks, is_float, real_parts
from umbel.errors import UpdateRejected
from umbel.records import ParametersRecord
from umbel.records._arena import allocate


class Pair(NamedTuple):
    """The elements of one array: as they came, in the model that was sent, and room for those that are made."""

    came: Block
    sent: Block
    out: Block


def floats(record: ParametersRecord) -> list[str]:
    """Return the names of arrays of floats and complex numbers, which have differences; others go as they are."""
    return [name for name, array in record.items() if is_float(dtype_of(array.dtype))]


def changed(
    record: ParametersRecord,
    sent: ParametersRecord,
    names: Iterable[str],
    change: Callable[[Pair], None],
    *,
    came: str = "",
    made: str = "",
) -> ParametersRecord:
    """Return ``record`` with other arrays under some names, in memory of its own.

    ``change`` fills the room of one block of one array after the other, in the order of ``names``; parts of complex
    numbers go one by one.

    Args:
        record: what came; further arrays stay as they are.
        sent: the model that was sent, which has ``names``.
        names: which arrays to change.
        change: what to do with a block.
        came: the dtype that arrays of ``record`` must have, "" for that of the model.
        made: the dtype of the arrays that are made, "" for that of the model.

    Raises:
        UpdateRejected: for an array that is missing, or of another dtype or shape.

    """
    names = list(names)
    require_alike(record, sent, names, came)
    given, beside = ([flat(each[name]) for name in names] for each in (record, sent))
    outs = allocate(
        [(dtype_of(made or sent[name].dtype), array.size) for name, array in zip(names, beside, strict=True)]
    )
    with np.errstate(all="ignore"):
        for whole in map(Pair, given, beside, outs):
            for block in _blocks(whole):
                change(block)
    arrays = {name: out.reshape(sent[name].shape) for name, out in zip(names, outs, strict=True)}
    return ParametersRecord({**record, **ParametersRecord.from_numpy(arrays, copy=False)})


def require_alike(record: ParametersRecord, sent: ParametersRecord, names: Iterable[str], dtype: str = "") -> None:
    """Raise ``UpdateRejected`` unless arrays have the shape that they were sent in, and their dtype or ``dtype``."""
    for name in names:
        _require(record, name, dtype or sent[name].dtype, sent[name].shape)


def _require(record: ParametersRecord, name: str, dtype: str, shape: list[int]) -> None:
    array, at = record.get(name), f"parameters_records.model[{name!r}]"
    if array is None:
        raise UpdateRejected(f"expected an array {dtype} {shape}, got none of this name", at=at)
    if (array.dtype, array.shape) != (dtype, shape):
        raise UpdateRejected(f"expected {dtype} {shape}, got {array.dtype!s:.40} {array.shape!s:.80}", at=at)


def _blocks(whole: Pair) -> Iterator[Pair]:
    came, sent, out = map(real_parts, whole)
    for part in blocks(sent.size):
        yield Pair(came[part], sent[part], out[part])
