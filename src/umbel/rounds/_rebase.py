"""Updates of overlapping rounds, brought onto the model of today."""

from copy import deepcopy

import numpy as np

from umbel.aggregation import flat
from umbel.aggregation._steps import Block, arrive, blocks, difference, is_float, real_parts
from umbel.errors import UpdateRejected
from umbel.records import ParametersRecord
from umbel.records._arena import allocate
from umbel.records._array import is_settled


def rebased(
    update: ParametersRecord, sent: ParametersRecord, model: ParametersRecord, share: float
) -> ParametersRecord:
    """Return ``model + share * (update - sent)``, element by element, in memory that nobody else changes.

    Floats of up to 32 bits are computed in float32, others in their own precision; integers and bools, which have no
    direction to go in, are the update's. An update that counts in full and was sent the model of today is itself.

    Raises:
        UpdateRejected: if that is not finite.

    """
    if share == 1 and sent is model:
        # A node may use the memory of what it sent again.
        return update if all(map(is_settled, update.values())) else deepcopy(update)
    given = {name: flat(array) for name, array in update.items()}
    outs = dict(zip(given, allocate([(array.dtype, array.size) for array in given.values()]), strict=True))
    with np.errstate(all="ignore"):
        for name, out in outs.items():
            if is_float(given[name].dtype):
                _move(name, (given[name], flat(sent[name]), flat(model[name])), share, out)
            else:
                np.copyto(out, given[name])
    arrays = {name: out.reshape(update[name].shape) for name, out in outs.items()}
    return ParametersRecord.from_numpy(arrays, copy=False)


def _move(name: str, arrays: tuple[Block, Block, Block], share: float, out: Block) -> None:
    x, y, z, room = map(real_parts, (*arrays, out))
    for part in blocks(x.size):
        step = difference(x[part], y[part])
        np.multiply(step, step.dtype.type(share), out=step)
        arrive(step, z[part], room[part])
        if not np.isfinite(room[part]).all():
            raise UpdateRejected(
                "expected an update that is finite where the model is today, got one that is not",
                at=f"parameters_records.model[{name!r}]",
            )
