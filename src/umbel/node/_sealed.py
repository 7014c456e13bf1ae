"""Small files that say themselves whether they are whole: a digest, a line end, and JSON."""

import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from blake3 import blake3

from umbel.errors import SpoolDamaged
from umbel.records._files import sync_folder

_T = TypeVar("_T")
_HEX: Final = 64
_EARLY: Final = ".tmp"


def write(path: Path, value: object, *, durable: bool) -> None:
    """Put ``value`` into the file at ``path`` by one rename: after a crash the file is the old one or the new one.

    Unless it is ``durable``, that holds for a crash of this process alone, and a loss of power may leave a file that
    is damaged and shows it.
    """
    body = msgspec.json.encode(value)
    early = path.with_name(path.name + _EARLY)
    descriptor = os.open(early, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blake3(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            if durable:
                os.fsync(descriptor)
        early.replace(path)
    except BaseException:
        # Whatever happened, no half file may stay to fill a disk that may be full already.
        early.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def read(path: Path, kind: type[_T]) -> _T:
    """Return the value in the file at ``path``; raises ``SpoolDamaged`` if it is not what was written there."""
    seal, _, body = path.read_bytes().partition(b"\n")
    found = blake3(body).hexdigest().encode()
    if len(seal) != _HEX or seal != found:
        raise SpoolDamaged(
            f"expected the file that was written here, with digest {found.decode()[:16]}...", at=str(path)
        )
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise SpoolDamaged(f"expected a file of this release, got another: {error}", at=str(path)) from error


def clean(folder: Path) -> None:
    """Delete what a killed process left under early names."""
    for path in folder.glob(f"*{_EARLY}"):
        path.unlink()
