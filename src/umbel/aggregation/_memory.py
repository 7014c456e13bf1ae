"""Memory for results, used again once nobody holds the result that was in it.

The kernel clears fresh pages, which costs a tenth of an aggregation. In a training loop the result of one round is let
go of before the result of the round after next is needed, so two buffers take turns.
"""

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT: Final = 64
# Below this, memory comes from a heap that is warm already.
_LARGE: Final = 2**22

Kinds = Sequence[tuple[np.dtype[Any], int]]


class Memory:
    """Large buffers on loan: each comes back by itself when the last array in it is gone, and one is kept for later.

    Whoever holds an array of a result, or a view of one, holds its buffer: nothing is overwritten that can be seen.
    """

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: list[NDArray[np.uint8]] = []

    def allocate(self, kinds: Kinds) -> list[NDArray[Any]]:
        """Return unwritten flat arrays of the given dtypes and sizes, all in one buffer."""
        offsets, size = _lay_out(kinds)
        buffer = self._borrow(size) if size >= _LARGE else _aligned(size)
        return _split(buffer, kinds, offsets)

    def _borrow(self, size: int) -> NDArray[np.uint8]:
        spare = [buffer for buffer in self._spare if len(buffer) == size]
        self._spare.clear()
        buffer = spare[0] if spare else _aligned(size)
        # NumPy sees through views of views to their owner; it stops at an object that is no array.
        loan = (ctypes.c_uint8 * size).from_buffer(buffer.data)
        weakref.finalize(loan, self._take_back, buffer).atexit = False
        return np.frombuffer(memoryview(loan), np.uint8)

    def _take_back(self, buffer: NDArray[np.uint8]) -> None:
        self._spare[:] = [buffer]

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        """Leave the buffers out of copies."""
        return Memory, ()


def allocate(kinds: Kinds) -> list[NDArray[Any]]:
    """Return unwritten flat arrays of the given dtypes and sizes, all in one fresh buffer.

    One large buffer comes in huge pages: its first write costs a sixth of that into many small ones.
    """
    offsets, size = _lay_out(kinds)
    return _split(_aligned(size), kinds, offsets)


def _lay_out(kinds: Kinds) -> tuple[list[int], int]:
    offsets, end = [], 0
    for dtype, size in kinds:
        offsets.append(end)
        end += -(-size * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


def _aligned(size: int) -> NDArray[np.uint8]:
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size]


def _split(buffer: NDArray[np.uint8], kinds: Kinds, offsets: list[int]) -> list[NDArray[Any]]:
    return [np.ndarray(size, dtype, buffer, at) for (dtype, size), at in zip(kinds, offsets, strict=True)]
