"""One large buffer for a whole model.

A fresh allocation in 4 KiB pages costs about six times the copy into it. NumPy asks the kernel for huge pages from
4 MiB up, so one large `np.empty` for a record is several times cheaper than one buffer an array.
"""

import numpy as np

#: Arrays start at multiples of this, which suits vector instructions and every dtype.
ALIGNMENT = 64


def align(offset: int) -> int:
    """Return the next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def aligned_empty(size: int) -> np.ndarray:
    """Return ``size`` unwritten bytes whose address is a multiple of 64."""
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size]


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
