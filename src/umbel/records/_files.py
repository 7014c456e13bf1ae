"""Records on disk: written once, whole, under their name; read by mapping."""

import mmap
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from umbel.errors import RecordError, Truncated
from umbel.records._container import dumps, loads
from umbel.records._gather import gather
from umbel.records._parameters import ParametersRecord
from umbel.records._recordset import RecordSet

# So many characters of a file's name go into that of its temporary file: 160 bytes at most, of the 255 there are.
_SHOWN = 40
# Linux takes at most this many pieces in one call.
_IOV_MAX = 1024
# Pieces joined from small segments are copies; a batch of them must not grow to a copy of the model.
_JOINED_MAX = 4 * 2**20


def save(records: RecordSet | ParametersRecord, path: str | os.PathLike[str]) -> None:
    """Write the container of ``records`` to ``path``, so that after a crash the file is there whole or not at all.

    The model is not copied in memory. A file that is there is replaced, not overwritten: whoever has it mapped keeps
    what it had.

    Raises:
        RecordError: for records that a container cannot hold; nothing is written.
        OSError: if the disk refuses; nothing is left behind.

    """
    write(dumps(records), path)


def write(segments: Iterable[bytes | memoryview], path: str | os.PathLike[str], *, durable: bool = True) -> None:
    """Write ``segments`` one after the other to ``path``, whole or not at all.

    Unless it is ``durable``, that holds for a crash of this process, and not for a loss of power.
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:_SHOWN]}.", suffix=".tmp", dir=target.parent)
    try:
        try:
            os.fchmod(descriptor, 0o666 & ~_umask())
            _write(descriptor, gather(segments))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        Path(name).replace(target)
    except BaseException:
        # Whatever happened, an interrupt included, no half file may stay.
        with suppress(OSError):
            Path(name).unlink()
        raise
    if durable:
        sync_folder(target.parent)


def load(path: str | os.PathLike[str], *, expect: str | None = None) -> RecordSet:
    """Return the record set in the file at ``path``. The file is mapped: its arrays are views, read when used.

    Args:
        path: a file that ``save`` wrote. It must not be overwritten while the arrays are in use; replacing it is safe.
        expect: a digest that the file must have; checking it reads the whole file once.

    Raises:
        RecordError: if the file is no container, or has another digest.
        OSError: if it cannot be read.

    """
    mapped = map_file(path)
    try:
        return loads(mapped, expect=expect)
    except RecordError as error:
        raise type(error)(error.message, at=", ".join(filter(None, (_legible(path), error.at)))) from error


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Return the file at ``path`` as memory that cannot be written to; the system reads it page by page when used."""
    with open(path, "rb", opener=_open_at_once) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Truncated("expected a file of arrays, got an empty one", at=_legible(path))
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe under its name is found to be empty, not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _legible(path: str | os.PathLike[str]) -> str:
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _write(descriptor: int, pieces: Iterable[bytes | memoryview]) -> None:
    batch: list[bytes | memoryview] = []
    joined = 0
    for piece in pieces:
        batch.append(piece)
        joined += len(piece) if isinstance(piece, bytes) else 0
        if len(batch) == _IOV_MAX or joined >= _JOINED_MAX:
            _write_batch(descriptor, batch)
            batch, joined = [], 0
    _write_batch(descriptor, batch)


def _write_batch(descriptor: int, batch: list[bytes | memoryview]) -> None:
    """Write all of ``batch``; the kernel may take less than it is given (2 GiB at most)."""
    while batch:
        written = os.writev(descriptor, batch)
        while batch and written >= len(batch[0]):
            written -= len(batch.pop(0))
        if batch:
            batch[0] = memoryview(batch[0])[written:]


def flush(path: Path) -> None:
    """Flush a file that was written before to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names of the files in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the mask for new files; reading it means setting it, for a moment."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
