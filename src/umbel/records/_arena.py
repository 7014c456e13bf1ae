"""One large buffer for a whole model.

A fresh allocation in 4 KiB pages costs about six times the copy into it. NumPy asks the kernel for huge pages from
4 MiB up, so one large `np.empty` for a record is several times cheaper than one buffer an array. Every buffer of the
size of a model is made here, so that `scratch` can put all of them into files.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.records._scratch import mapped, scratch_folder

#: Arrays start at multiples of this, which suits vector instructions and every dtype.
ALIGNMENT = 64
#: From here on a buffer is large: NumPy asks for huge pages, and a scratch block for a file.
LARGE = 2**22


def align(offset: int) -> int:
    """Return the next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def aligned_empty(size: int) -> np.ndarray:
    """Return ``size`` unwritten bytes whose address is a multiple of 64; large ones in a file, in a scratch block."""
    folder = scratch_folder() if size >= LARGE else None
    if folder is not None:
        return mapped(size, folder)
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size]


def allocate(kinds: Iterable[tuple[np.dtype[Any], int]]) -> list[NDArray[Any]]:
    """Return unwritten flat arrays of the given dtypes and numbers of elements, all in one fresh buffer."""
    kinds = list(kinds)
    offsets, size = lay_out(kinds)
    return split(aligned_empty(size), kinds, offsets)


def lay_out(kinds: Iterable[tuple[np.dtype[Any], int]]) -> tuple[list[int], int]:
    """Return where each array begins in a buffer for all of them, and the size of the buffer."""
    offsets, end = [], 0
    for dtype, size in kinds:
        offsets.append(end)
        end = align(end + size * dtype.itemsize)
    return offsets, end


def split(buffer: np.ndarray, kinds: Iterable[tuple[np.dtype[Any], int]], offsets: Iterable[int]) -> list[NDArray[Any]]:
    """Return flat arrays that are parts of ``buffer``."""
    return [np.ndarray(size, dtype, buffer, at) for (dtype, size), at in zip(kinds, offsets, strict=True)]


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
