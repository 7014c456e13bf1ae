"""Steps from one array to another, a block at a time: in float32 at least, and in a fixed order of roundings."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]

_FLOAT32: Final = np.dtype(np.float32)
_SIZE: Final = 2**14  # elements; a handful of blocks fits into a core's cache


def is_float(kind: np.dtype[Any]) -> bool:
    """Say whether elements are floats or complex numbers, which have differences; integers and bools have none."""
    return kind.kind in "fc" or "float" in kind.name


def real_parts(array: Block) -> Block:
    """Return the real and imaginary parts of complex numbers one by one, and anything else as it is."""
    return array.view(array.real.dtype) if array.dtype.kind == "c" else array


def blocks(size: int, step: int = _SIZE) -> Iterator[slice]:
    """Yield the parts of so many elements, ``step`` at a time."""
    return (slice(start, start + step) for start in range(0, size, step))


def difference(came: Block, sent: Block) -> Block:
    """Return ``came - sent`` of arrays of one dtype, in memory of its own, and in float32 where that is wider."""
    kind = sent.dtype if sent.dtype.itemsize > _FLOAT32.itemsize else _FLOAT32
    step: Block = came.astype(kind)
    np.subtract(step, sent.astype(kind, copy=False), out=step)
    return step


def arrive(step: Block, start: Block, out: Block) -> None:
    """Write ``start + step`` to ``out``, in the dtype of ``out``; the step is overwritten."""
    np.add(step, start.astype(step.dtype, copy=False), out=step)
    np.copyto(out, step, casting="unsafe")
