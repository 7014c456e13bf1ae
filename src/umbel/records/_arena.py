"""One large buffer for a whole model.

A fresh allocation in 4 KiB pages costs about six times the copy into it. NumPy asks the kernel for huge pages from
4 MiB up, so one large `np.empty` for a record is several times cheaper than one buffer an array.
"""

from collections import deque
from weakref import finalize

import numpy as np

# Below this the allocator keeps memory by itself; above, it would be much to keep for a next model that may not come.
_LEAST_KEPT = 2**22
_MOST_KEPT = 2**26
_kept: deque[np.ndarray] = deque(maxlen=1)
#: Arrays start at multiples of this, which suits vector instructions and every dtype.
ALIGNMENT = 64


def align(offset: int) -> int:
    """Return the next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def aligned_empty(size: int) -> np.ndarray:
    """Return ``size`` unwritten bytes whose address is a multiple of 64.

    Memory that the system has to find anew costs several times the copy into it, most of all in a virtual machine
    whose host takes free memory back. So the memory of one dead model of up to 64 MiB is kept for the next.
    """
    memory = _take(size + ALIGNMENT)
    start = -memory.ctypes.data % ALIGNMENT
    # Made from a memoryview, not by slicing: NumPy lets a slice of a slice hold the memory and forget the slice
    # between, but every view of this buffer holds the buffer.
    buffer = np.frombuffer(memory.data[start : start + size], np.uint8)
    if _LEAST_KEPT <= len(memory) <= _MOST_KEPT:
        # Called when the last view is gone, and not before.
        finalize(buffer, _kept.append, memory).atexit = False
    return buffer


def _take(size: int) -> np.ndarray:
    """Return kept memory, if it is large enough and not far too large, or new memory."""
    try:
        memory = _kept.pop()
    except IndexError:
        return np.empty(size, np.uint8)
    return memory if size <= len(memory) <= 2 * size else np.empty(size, np.uint8)


class Arena:
    """A buffer that is used again, for loops that take a snapshot of one model every round.

    ``ParametersRecord.from_numpy(model, arena=arena)`` writes into the arena's memory, which costs no more than the
    copy itself. The price: the next record made with the same arena overwrites the arrays of the one before. Save,
    send or copy a record before you take the next.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = aligned_empty(0)

    def take(self, size: int) -> np.ndarray:
        """Return ``size`` bytes, the same ones every time as long as they suffice."""
        if size > len(self._buffer):
            self._buffer = aligned_empty(size)
        return self._buffer[:size]
