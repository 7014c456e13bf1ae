"""Open a model file of any kind Umbel knows: its own container, plain safetensors, or one ``.npy`` array."""

import contextlib
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umbel import checkpoint
from umbel.cli._folder import RunFolder, going_on, read_start
from umbel.cli._text import nearest, safe, size
from umbel.errors import RecordError, UmbelError, UsageError
from umbel.interop import safetensors
from umbel.records import Array, ParametersRecord, RecordSet, digest, load

_NPY_MAGIC = b"\x93NUMPY"
_MODEL = "model.safetensors"
_HEADER_LIMIT = 16 << 20


@dataclass(frozen=True)
class Opened:
    """A model file: its records are views of the mapped file."""

    path: Path
    kind: str
    size: int
    records: RecordSet
    digest: str


def open_model(path: Path) -> Opened:
    """Return what is in the file at ``path``; of a run's folder, its final model.

    Raises:
        UsageError: if there is no such file.
        RecordError: if the file is damaged or of no known kind.

    """
    file = path / _MODEL if path.is_dir() else path
    if not file.is_file():
        raise UsageError(_missing(file, path))
    kind, records = _read(file)
    return Opened(file, kind, file.stat().st_size, records, digest(records))


def _missing(file: Path, given: Path) -> str:
    if given.is_dir():
        return _unfinished(RunFolder(given)) or (
            f'expected a model file or the folder of a run, but "{safe(str(given))}" holds no {_MODEL}'
        )
    if file.exists():
        return f'expected a model file, but "{safe(str(file))}" is no regular file'
    folder = file.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = nearest(file.name, sorted(names)) if names else ""
    return f'there is no file "{safe(str(file))}"{near}'


def _unfinished(folder: RunFolder) -> str:
    """Say how far a run has come that has no model yet; nothing if the folder is none of a run."""
    with contextlib.suppress(UmbelError, OSError, KeyError):
        rounds = read_start(folder)["settings"]["rounds"]
        run = checkpoint.read(folder.checkpoint).state.configs_records["run"]
        done = f"stopped after round {run['round']!r} of {rounds}, or is under way"
        return f'the run in "{safe(str(folder.path))}" {done}, and has no model yet; go on with: {going_on(folder)}'
    return ""


def _read(file: Path) -> tuple[str, RecordSet]:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        header = stream.read(length) if length <= _HEADER_LIMIT else b""
    if start.startswith(_NPY_MAGIC[: len(start)]) and start[:6] == _NPY_MAGIC:
        return "npy", _read_npy(file)
    if b'"umbel"' in header:
        return "umbel", load(file)
    if header.lstrip().startswith(b"{"):
        return "safetensors", RecordSet({"model": safetensors.load(file)})
    msg = (
        f"expected an Umbel container, a .safetensors file or a .npy array, got {size(file.stat().st_size)} that begin "
        f"with {start[:8]!r}; a file of another kind has to be converted first (umbel.interop)"
    )
    raise RecordError(msg, at=safe(str(file)))


def _read_npy(file: Path) -> RecordSet:
    try:
        nd = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise RecordError(f"expected one array in .npy form: {error}", at=safe(str(file))) from error
    with file.open("rb") as stream:
        payload = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    array = Array(nd.dtype.name, list(nd.shape), "numpy.ndarray", memoryview(payload))
    return RecordSet({"model": ParametersRecord({file.stem: array})})
