#!/usr/bin/env python3
"""A `.npy` payload of any bytes is an array that NumPy reads too, and reads as the same, or ends in a RecordError.

The first byte of an input says what is declared: for 0 what the header itself says, else a dtype and a shape that may
not be true, of a `.npy` or a raw payload.
"""

import io
import sys
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["umbel"]):
    from umbel.errors import RecordError
    from umbel.records import Array, _npy

WORDS = Path(__file__).with_name("npy.dict")
NAMES = (
    "float32",
    "bool",
    "int8",
    "uint64",
    "complex64",
    "bfloat16",
    "int4",
    "float128",
    "<f4",
    ">f4",
    "O",
    "\x1b",
    "",
)


def declared(data: bytes) -> Array:
    """Return the Array that an input stands for."""
    kind, rest = data[0], data[1:]
    if kind == 0:
        header = _npy._parse(_npy._prefix(rest))
        return Array(header.dtype.name, list(header.shape), "numpy.ndarray", rest)
    rank, rest = (rest[0] % 5, rest[1:]) if rest else (0, rest)
    shape = [int.from_bytes(rest[place : place + 1], "little", signed=True) for place in range(rank)]
    return Array(NAMES[kind % len(NAMES)], shape, "raw" if kind & 128 else "numpy.ndarray", rest[rank:])


def one_input(data: bytes) -> None:
    """Hold one input against the promise."""
    if not data:
        return
    try:
        array = declared(data)
        mine = array.numpy(copy=False)
    except RecordError as error:
        assert str(error).isprintable(), f"not for a terminal: {error!r}"
        return
    assert list(mine.shape) == array.shape, "another shape than declared"
    if array.stype == "raw":
        assert mine.tobytes() == bytes(array.data), "other bytes than given"
        return
    theirs = np.load(io.BytesIO(array.data), allow_pickle=False)
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), "another array than NumPy reads"
    assert mine.tobytes() == theirs.tobytes(), "other bytes than NumPy reads"


if __name__ == "__main__":
    atheris.Setup([*sys.argv, f"-dict={WORDS}", "-max_len=1024"], one_input)
    atheris.Fuzz()
