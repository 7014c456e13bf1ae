"""Updates that an engine has in memory of its own, which are added if all their numbers are finite.

Such an update cannot wait for others, so nothing but a look at it proves its numbers before they are in the sums. A
compiled loop looks and adds in one call, with the bits of NumPy's multiplication and addition, while the update is in
the cache.
"""

import ctypes
from collections.abc import Sequence
from itertools import compress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, NUMBER, address, addresses
from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, columns, plain
from umbel.aggregation._steps import is_float
from umbel.aggregation._weights import Step
from umbel.records import ParametersRecord

# Bytes of sums that more than one thread would be of use for. An update of so many is in no cache when it is added.
_MOST: Final = 2**23

# (how to get a buffer, how to release it, payloads, room for their addresses, sums, their sizes, how many,
#  what the sums are multiplied with first, and then the update) -> whether it was added
_ARGUMENTS: Final = (ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, COUNT, NUMBER, NUMBER)
LOOPS: Final = _compiled.loops("screened", _ARGUMENTS, ctypes.c_int, kind=ctypes.PyDLL)
_BUFFERS: Final = [
    ctypes.cast(getattr(ctypes.pythonapi, name), ADDRESS).value for name in ("PyObject_GetBuffer", "PyBuffer_Release")
]


class Screen:
    """The sums of arrays of one dtype, and what an update is like that can be added to all of them at once.

    They are those of the ``chosen`` slots.
    """

    def __init__(self, slots: Sequence[Slot], chosen: Sequence[bool], sums: Sequence[NDArray[Any]]) -> None:
        self._like, self._chosen = columns(slots), chosen
        self._sums, self._sizes = sums, np.array([each.size for each in sums], np.uintp)
        self._payloads: Any = ctypes.py_object * len(sums)
        self._room = (ADDRESS * len(sums))()
        self._where = addresses(sums), address(self._sizes), len(sums)
        self._loop = LOOPS[sums[0].dtype]

    def add(self, record: ParametersRecord, step: Step) -> bool:
        """Add what was chosen of a record if it is as expected, raw and in order, and finite; say whether it was."""
        payloads = plain(self._like, record)
        if payloads is None:
            return False
        rescale, weight = (1.0 if factor is None else factor for factor in step)
        held = self._payloads(*compress(payloads, self._chosen))
        return self._loop(*_BUFFERS, held, self._room, *self._where, rescale, weight) == 1  # type: ignore[no-any-return]


def screen(slots: Sequence[Slot], kinds: Sequence[Kind], sums: Sequence[NDArray[Any]]) -> Screen | None:
    """Return the floats among the sums for the compiled loop; None where there is none for them, or they are too large.

    Integers beside them need no look, since all of them are finite.
    """
    chosen = [kind.in_place for kind in kinds]
    floats = [*compress(sums, chosen)]
    if not all(kind.in_place or not is_float(slot.kind) for slot, kind in zip(slots, kinds, strict=True)):
        return None
    dtypes = {each.dtype for each in floats}
    if len(dtypes) != 1 or not dtypes <= LOOPS.keys() or not all(each.size for each in sums):
        return None
    return Screen(slots, chosen, floats) if sum(each.nbytes for each in floats) < _MOST else None
