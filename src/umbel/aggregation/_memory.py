"""Memory for results, used again once nobody holds the result that was in it.

The kernel clears fresh pages, which costs a tenth of an aggregation. In a training loop the result of one round is let
go of before the result of the round after next is needed, so two buffers take turns.
"""

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.records._arena import LARGE, aligned_empty, lay_out, split
from umbel.records._scratch import scratch_folder

Kinds = Sequence[tuple[np.dtype[Any], int]]


class Memory:
    """Large buffers on loan: each comes back by itself when the last array in it is gone, and one is kept for later.

    Whoever holds an array of a result, or a view of one, holds its buffer: nothing is overwritten that can be seen.
    A buffer from a file of one scratch folder serves results of that folder alone.
    """

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: list[tuple[str | None, NDArray[np.uint8]]] = []

    def allocate(self, kinds: Kinds) -> list[NDArray[Any]]:
        """Return unwritten flat arrays of the given dtypes and sizes, all in one buffer."""
        offsets, size = lay_out(kinds)
        # Below that, memory comes from a heap that is warm already.
        buffer = self._borrow(size) if size >= LARGE else aligned_empty(size)
        return split(buffer, kinds, offsets)

    def _borrow(self, size: int) -> NDArray[np.uint8]:
        folder = scratch_folder()
        buffer = self._take_spare(folder, size)
        if buffer is None:
            buffer = aligned_empty(size)
        # NumPy sees through views of views to their owner; it stops at an object that is no array.
        loan = (ctypes.c_uint8 * size).from_buffer(buffer.data)
        weakref.finalize(loan, self._take_back, folder, buffer).atexit = False
        return np.frombuffer(memoryview(loan), np.uint8)

    def _take_spare(self, folder: str | None, size: int) -> NDArray[np.uint8] | None:
        try:
            place, buffer = self._spare.pop()  # in one step, so that no two threads get one buffer
        except IndexError:
            return None
        return buffer if (place, len(buffer)) == (folder, size) else None

    def _take_back(self, folder: str | None, buffer: NDArray[np.uint8]) -> None:
        self._spare[:] = [(folder, buffer)]

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        """Leave the buffers out of copies."""
        return Memory, ()
