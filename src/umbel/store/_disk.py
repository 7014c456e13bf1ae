"""What the operating system says when a disk fails, as errors of ours, and digests as the names of files."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from umbel.errors import BadValue, StorageFull, StoreError, StoreUnavailable
from umbel.records._files import sync_folder

_DIGEST: Final = re.compile(r"blake3:([0-9a-f]{64})", re.ASCII)
PREFIX: Final = "blake3:"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def hex_of(digest: str) -> str:
    """Return the 64 hexadecimal digits of a digest; raises ``BadValue`` for anything that is not exactly one."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadValue(f"expected blake3: and 64 hexadecimal digits in lower case, got {digest!a:.100}", at="digest")
    return match[1]


@contextmanager
def disk(place: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error of ours."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _named(error, place) from error


def _named(error: OSError, place: Path) -> StoreError:
    at = str(error.filename or place)
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFull(f"no room is left: make some, the request can be repeated ({said})", at=at)
    if error.errno in _BUSY:
        return StoreUnavailable(f"too much is open at once: repeat the request, raise the limit ({said})", at=at)
    if error.errno == errno.EIO:
        return StoreError(f"the disk failed: look at it and at the system log ({said})", at=at)
    return StoreError(f"the store cannot be used: check the folder and its rights ({said})", at=at)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, so that it is there after a crash too."""
    if not folder.is_dir():
        with disk(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
