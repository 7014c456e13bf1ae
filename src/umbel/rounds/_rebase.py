"""Updates of overlapping rounds, brought onto the model of today."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import flat
from umbel.errors import UpdateRejected
from umbel.records import ParametersRecord
from umbel.records._arena import allocate

_SIZE: Final = 2**14  # elements; a handful of blocks fits into a core's cache
_FLOAT32: Final = np.dtype(np.float32)
_WIDE: Final = ("float64", "complex64", "complex128")

Block = NDArray[Any]


def rebased(
    update: ParametersRecord, sent: ParametersRecord, model: ParametersRecord, share: float
) -> ParametersRecord:
    """Return ``model + share * (update - sent)``, element by element, in memory of its own.

    Floats of up to 32 bits are computed in float32, others in their own precision; integers and bools, which have no
    direction to go in, are the update's. An update that counts in full and was sent the model of today is itself.

    Raises:
        UpdateRejected: if that is not finite.

    """
    if share == 1 and sent is model:
        return deepcopy(update)
    given = {name: flat(array) for name, array in update.items()}
    outs = dict(zip(given, allocate([(array.dtype, array.size) for array in given.values()]), strict=True))
    with np.errstate(all="ignore"):
        for name, out in outs.items():
            if _is_float(update[name].dtype):
                _move(name, (given[name], flat(sent[name]), flat(model[name])), share, out)
            else:
                np.copyto(out, given[name])
    arrays = {name: out.reshape(update[name].shape) for name, out in outs.items()}
    return ParametersRecord.from_numpy(arrays, copy=False)


def _is_float(dtype: str) -> bool:
    return dtype in _WIDE or "float" in dtype


def _move(name: str, arrays: tuple[Block, Block, Block], share: float, out: Block) -> None:
    x, y, z, room = (_parts(each) for each in (*arrays, out))
    kind = x.dtype if x.dtype.itemsize > _FLOAT32.itemsize else _FLOAT32
    factor = np.array(share, kind)
    for part in _blocks(x.size):
        step = x[part].astype(kind)
        np.subtract(step, y[part].astype(kind, copy=False), step)
        np.multiply(step, factor, step)
        np.add(step, z[part].astype(kind, copy=False), step)
        np.copyto(room[part], step, casting="unsafe")
        if not np.isfinite(room[part]).all():
            raise UpdateRejected(
                "expected an update that is finite where the model is today, got one that is not",
                at=f"parameters_records.model[{name!r}]",
            )


def _parts(array: Block) -> Block:
    return array.view(array.real.dtype) if array.dtype.kind == "c" else array


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _SIZE) for start in range(0, size, _SIZE))
