"""Memory that the system can write out: large buffers as mappings of files that have no name.

A server folds models that are larger than the memory it may take. In a ``scratch`` block every large buffer is a shared
mapping of a temporary file: the system may write its pages out and take them back, they count as file memory and not
as the process's own, and they are outside ``RLIMIT_DATA``. The file is unlinked before it has a byte, so nothing of it
outlives the buffer, however the process ends.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from umbel.errors import StorageFull, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PIECE = 2**20
_folder: ContextVar[str | None] = ContextVar("umbel.records.scratch", default=None)


@contextmanager
def scratch(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let large buffers that are made in this block, by this thread, be temporary files in ``folder``.

    That goes for what an aggregation, a server optimizer, ``ParametersRecord.from_numpy`` and copies of arrays
    allocate, from 4 MiB on. The values are the same, and a buffer that is made here stays what it is after the block.
    Its disk space is taken at once and given back with the last array that views it.

    A block holds for the thread, or the asyncio task, that enters it: a thread that was started inside one begins
    without. Blocks may be nested; the innermost counts.

    Inside the block an allocation raises ``StorageFull`` when the disk has no room, and ``StoreError`` when the folder
    cannot be written.

    >>> import tempfile
    >>> from umbel.records import ParametersRecord
    >>> with tempfile.TemporaryDirectory() as folder, scratch(folder):
    ...     record = ParametersRecord.from_numpy({"w": np.ones(2**20, np.float32)})
    >>> float(record["w"].numpy().sum())
    1048576.0

    """
    token = _folder.set(os.fspath(folder))
    try:
        yield
    finally:
        _folder.reset(token)


def scratch_folder() -> str | None:
    """Return the folder of the block that this thread is in, or None."""
    return _folder.get()


def mapped(size: int, folder: str) -> np.ndarray:
    """Return ``size`` bytes, zero and page-aligned, in a file of ``folder`` that has no name.

    All of its blocks are reserved now: a full disk is an error here, and never a signal at the first write.
    """
    try:
        descriptor = _nameless(folder)
        try:
            _reserve(descriptor, size)
            return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        finally:
            os.close(descriptor)
    except OSError as error:
        kind = StorageFull if error.errno in _FULL else StoreError
        raise kind(
            f"expected room for {size} bytes of temporary memory, got: {error.strerror or error}; make room on that "
            "disk, or use a folder on another",
            at=folder,
        ) from error


def _nameless(folder: str) -> int:
    path = os.path.join(folder, f".scratch-{os.urandom(8).hex()}")  # noqa: PTH118 - pathlib costs more than the file
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)  # noqa: PTH108 - likewise
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(_PIECE)  # where the system cannot reserve, writing does
    for start in range(0, size, _PIECE):
        os.pwrite(descriptor, zeros[: size - start], start)
