"""The blobs of a node: a folder of files, each named by the digest of its bytes.

blobs/<64 hex digits>       whole
incoming/<64 hex digits>    being fetched; its size is where the fetch goes on
work/<name>/                what the handler's process writes for one message; moved to blobs/ when that is finished
"""

import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

from umbel.errors import DigestMismatch
from umbel.records._files import sync_folder

_DIGEST: Final = re.compile(r"blake3:([0-9a-f]{64})")
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """Blobs by digest. A blob that was there before this process is read once before it is trusted."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._work = folder / "work"
        self._trusted: set[str] = set()
        shutil.rmtree(self._work, ignore_errors=True)  # of a process that was killed
        for path in (self.blobs, self._incoming, self._work):
            path.mkdir(exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where the blob is or would be."""
        return self.blobs / name_of(digest)

    def incoming(self, digest: str) -> Path:
        """Return where the bytes of a blob are put while it is fetched."""
        return self._incoming / name_of(digest)

    def has(self, digest: str, size: int) -> bool:
        """Say whether the blob is there, whole. The first time it is asked for, it is read."""
        if digest in self._trusted:
            return True
        if _is_whole(self.path(digest), digest, size):
            self._trusted.add(digest)
            return True
        return False

    def trusts(self, digests: Iterable[str]) -> bool:
        """Say whether blobs are known to be there and whole, without a look at the disk."""
        return self._trusted.issuperset(digests)

    def arrived(self, digest: str, size: int, *, checked: bool) -> None:
        """Take in a blob whose bytes have all been fetched.

        Raises ``DigestMismatch``, and deletes them, if they are others. Whoever fetched them may have ``checked`` that.
        """
        path = self.incoming(digest)
        if not checked and not _is_whole(path, digest, size):
            path.unlink(missing_ok=True)
            raise DigestMismatch(f"expected the {size} bytes of {digest}, got others: fetch them again", at=str(path))
        path.replace(self.path(digest))
        self._trusted.add(digest)

    def desk(self) -> Path:
        """Return a new folder for what is written for one message."""
        return Path(tempfile.mkdtemp(dir=self._work))

    def adopt(self, desk: Path) -> None:
        """Move the blobs on a desk to the others and make their names durable.

        The desk stays until it is cleared: a disk that refuses what comes after this is asked for all of it again.
        """
        names = [path.name for path in desk.iterdir() if _NAME.fullmatch(path.name)]
        for name in names:
            (desk / name).replace(self.blobs / name)
            self._trusted.add(f"blake3:{name}")
        if names:
            sync_folder(self.blobs)

    def clear(self, desk: Path) -> None:
        """Delete a desk with all that is on it."""
        shutil.rmtree(desk, ignore_errors=True)

    def keep(self, digests: Container[str]) -> None:
        """Delete every other blob, whole or not. Whoever has one mapped keeps what it sees."""
        for path in (*self._listed(self.blobs), *self._listed(self._incoming)):
            digest = f"blake3:{path.name}"
            if digest not in digests:
                path.unlink(missing_ok=True)
                self._trusted.discard(digest)

    def _listed(self, folder: Path) -> Iterator[Path]:
        return folder.iterdir()


def name_of(digest: str) -> str:
    """Return the name of the file of a blob. A digest comes from the network, and only hex digits may touch a path."""
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise DigestMismatch(f'expected a digest, "blake3:" and 64 lower-case hex digits, got {digest!r:.80}')
    return found[1]


def _is_whole(path: Path, digest: str, size: int) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size or size == 0:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return f"blake3:{blake3(mapped).hexdigest()}" == digest
    except FileNotFoundError:
        return False
