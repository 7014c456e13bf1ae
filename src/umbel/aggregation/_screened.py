"""Updates that an engine has in memory of its own, which are added if all their numbers are finite.

Such an update cannot wait for others, so nothing but a look at it proves its numbers before they are in the sums. A
compiled loop looks and adds in one call, with the bits of NumPy's multiplication and addition, while the update is in
the cache. Another one divides these sums in the end: with few nodes, what is done once a round is most of it.
"""

import ctypes
from collections.abc import Sequence
from itertools import compress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import _compiled
from umbel.aggregation._compiled import ADDRESS, COUNT, FLAG, NUMBER, address, addresses, array_of
from umbel.aggregation._finite import count_not_finite
from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, columns, plain
from umbel.aggregation._shares import LEAST
from umbel.aggregation._steps import is_float
from umbel.aggregation._weights import Step
from umbel.records import ParametersRecord

# Bytes of sums that more than one thread would be of use for. An update of so many is in no cache when it is added.
_MOST: Final = 2 * LEAST

# (how to get a buffer, how to release it, payloads, room for their addresses, sums, their sizes, how many, whether
#  nothing is in them, what they are multiplied with first, and then the update) -> whether it was added
_ARGUMENTS: Final = (ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, COUNT, FLAG, NUMBER, NUMBER)
LOOPS: Final = _compiled.loops("screened", _ARGUMENTS, ctypes.c_int, kind=ctypes.PyDLL)
# (sums, their sizes, how many, divisor) -> whether all are finite then
_DIVISION: Final = (ADDRESS, ADDRESS, COUNT, NUMBER)
_DIVIDED: Final = _compiled.loops("divided", _DIVISION, FLAG)
_BUFFERS: Final = [
    ctypes.cast(getattr(ctypes.pythonapi, name), ADDRESS).value for name in ("PyObject_GetBuffer", "PyBuffer_Release")
]


class Screen:
    """The sums of all floats of one dtype, and what an update is like that can be added to them at once.

    Floats of the other dtype are looked at before; integers need no look, since all of them are finite. Neither is
    added here.
    """

    def __init__(
        self, slots: Sequence[Slot], kinds: Sequence[Kind], sums: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> None:
        self.dtype, self._loop = dtype, LOOPS[dtype]
        self._like, self._taken = columns(slots), [self.takes(kind) for kind in kinds]
        self._others = [(at, kind.view) for at, kind in enumerate(kinds) if kind.in_place and not self._taken[at]]
        self._sums = [*compress(sums, self._taken)]
        self._sizes = np.array([each.size for each in self._sums], np.uintp)
        self._payloads = array_of(ctypes.py_object, len(self._sums))
        self._room = array_of(ADDRESS, len(self._sums))()
        self._where = addresses(self._sums), address(self._sizes), len(self._sums)

    def takes(self, kind: Kind) -> bool:
        """Say whether arrays of a kind are added here."""
        return kind.in_place and kind.total == self.dtype

    def add(self, record: ParametersRecord, step: Step, *, fresh: bool) -> bool:
        """Add a record if it is as expected, raw and in order, and all its numbers are finite; say whether it was.

        Nothing is in ``fresh`` sums: the record is only kept.
        """
        payloads = plain(self._like, record)
        if payloads is None or not self._are_finite(payloads):
            return False
        rescale = 1.0 if step.rescale is None else step.rescale
        weight = 1.0 if step.weight is None else step.weight
        held = self._payloads(*compress(payloads, self._taken))
        return self._loop(*_BUFFERS, held, self._room, *self._where, fresh, rescale, weight) == 1  # type: ignore[no-any-return]

    def divide(self, divisor: float) -> bool:
        """Make means of the sums that are taken here; say whether all are finite."""
        return _DIVIDED[self.dtype](*self._where, divisor) == 1  # type: ignore[no-any-return]

    def _are_finite(self, payloads: Sequence[memoryview]) -> bool:
        """Say whether the floats that the loop does not see are finite."""
        if not self._others:
            return True
        with np.errstate(all="ignore"):
            return not any(count_not_finite(np.frombuffer(payloads[at], view)) for at, view in self._others)


def screened_dtype(slots: Sequence[Slot], kinds: Sequence[Kind]) -> np.dtype[Any] | None:
    """Return the dtype of the sums that a ``Screen`` takes: the one that most bytes have.

    None where there is no loop for them, or they are too large, or some floats are narrower than their sums.
    """
    pairs = list(zip(slots, kinds, strict=True))
    if not LOOPS or not all(kind.in_place or not is_float(slot.kind) for slot, kind in pairs):
        return None
    floats = [(slot.nbytes, kind.total) for slot, kind in pairs if kind.in_place]
    nbytes = {dtype: sum(size for size, total in floats if total == dtype) for dtype in LOOPS}
    dtype = max(nbytes, key=nbytes.__getitem__)
    fits = nbytes[dtype] > 0 and sum(nbytes.values()) < _MOST and all(slot.size for slot in slots)
    return dtype if fits else None
