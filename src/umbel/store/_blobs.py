"""Blobs: bytes that never change, named by their digest."""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeAlias, runtime_checkable

from blake3 import blake3

from umbel.envelope import Part
from umbel.errors import DigestMismatch, NotFound
from umbel.failpoint import failpoint
from umbel.records._files import flush, map_file, sync_folder, write
from umbel.records._gather import gather, gathered
from umbel.store._disk import PREFIX, disk, hex_of, make_folder

Segments: TypeAlias = Iterable[bytes | memoryview]

_NAME: Final = 62
_LARGE: Final = 2**20
# A hold on a file, not a way to read it, where the system knows the difference.
_HOLD: Final = os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class Blobs(Protocol):
    """Where blobs are kept: six verbs, each safe to call from any thread.

    A digest is ``blake3:`` and 64 hexadecimal digits in lower case; for anything else each verb raises ``BadValue``.
    All raise ``StoreError`` for what the disk refuses, ``StorageFull`` when it is full.
    """

    def has(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if it is not there."""
        ...

    def known(self, digest: str) -> int | None:
        """Do as ``has``, at once: where that needs a network, None for a blob of which this process does not know yet.

        After ``has``, ``get`` and ``put`` it does. This is for whoever has others wait meanwhile.
        """
        ...

    def get(self, digest: str) -> memoryview:
        """Return the bytes of a blob, read-only, best as mapped memory; raises ``NotFound``."""
        ...

    def put(self, segments: Segments, digest: str | None = None) -> Part:
        """Store bytes, given in pieces, and return their digest and size once they are durable.

        A blob that is there already is left as it is: nothing is written anew. Whoever has computed the ``digest``
        already may say so.
        """
        ...

    def list(self) -> Iterator[str]:
        """Yield the digests of all blobs, in any order."""
        ...

    def delete(self, digest: str) -> bool:
        """Remove a blob, at once; return whether it was ``known``. Who has it mapped keeps what it has."""
        ...


class DirectoryBlobs:
    """Blobs in a folder: each a file named by its digest, under a folder named by the first two digits.

    A file has its name only once it is whole and flushed. The folder belongs to one process; what an earlier one left
    half written is removed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        make_folder(self.folder)
        with disk(self.folder):
            for left in self.folder.glob("??/.*.tmp"):
                left.unlink(missing_ok=True)

    def has(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if it is not there."""
        with disk(self.folder):
            try:
                return self._path(digest).stat().st_size
            except FileNotFoundError:
                return None

    def known(self, digest: str) -> int | None:
        """Do as ``has``: a look into the folder is at once."""
        return self.has(digest)

    def get(self, digest: str) -> memoryview:
        """Return the bytes of a blob as mapped memory; raises ``NotFound``.

        They are not hashed again: ``verify`` does that.
        """
        path = self._path(digest)
        try:
            with disk(path):
                return memoryview(map_file(path)) if path.stat().st_size else memoryview(b"")
        except FileNotFoundError:
            raise NotFound("no such blob is in the store: upload it, or fetch it again", at=digest) from None

    def put(self, segments: Segments, digest: str | None = None) -> Part:
        """Store bytes, given in pieces, and return their digest and size once they are durable."""
        pieces = gathered(list(segments))
        part = part_of(pieces, digest)
        path = self._path(part.digest)
        if not _is_flushed(path):
            make_folder(path.parent)
            failpoint("store.blob-begun")
            with disk(path):
                write(pieces, path)
            failpoint("store.blob-written")
        return part

    def adopt(self, path: Path, part: Part, *, durable: bool) -> None:
        """Take a whole file of the same disk under the name of its digest; ``path`` is gone afterwards.

        A ``durable`` one was flushed, and so is its name.
        """
        target = self._path(part.digest)
        make_folder(target.parent)
        with disk(target):
            path.replace(target)
            if durable:
                sync_folder(target.parent)

    def flush(self, digest: str) -> None:
        """Make a blob durable that is there."""
        _is_flushed(self._path(digest))

    def list(self) -> Iterator[str]:
        """Yield the digests of all blobs."""
        with disk(self.folder):
            for path in self.folder.glob("??/*"):
                if len(path.name) == _NAME and path.name[0] != ".":
                    yield f"{PREFIX}{path.parent.name}{path.name}"

    def delete(self, digest: str) -> bool:
        """Remove a blob; return whether it was there."""
        path = self._path(digest)
        with disk(path):
            try:
                held = os.open(path, _HOLD)
            except FileNotFoundError:
                return False
            size = os.fstat(held).st_size
            path.unlink(missing_ok=True)
        if size < _LARGE:
            os.close(held)
        else:
            # To give the room back takes a quarter of a second for a GiB; nobody needs to wait for that.
            threading.Thread(target=os.close, args=(held,), daemon=True).start()
        return True

    def _path(self, digest: str) -> Path:
        name = hex_of(digest)
        return self.folder / name[:2] / name[2:]


def _is_flushed(path: Path) -> bool:
    """Flush a blob that is there: it may have been adopted, and wait for the system to do so. False if it is not."""
    with disk(path):
        try:
            flush(path)
        except FileNotFoundError:
            return False
        sync_folder(path.parent)
    return True


def part_of(segments: Segments, digest: str | None = None) -> Part:
    """Return the digest, which is computed unless it is given, and the size of bytes given in pieces."""
    if digest is not None:
        return Part(digest, sum(map(len, segments)))
    hasher, size = blake3(), 0
    for piece in gather(segments):
        hasher.update(piece)
        size += len(piece)
    return Part(f"{PREFIX}{hasher.hexdigest()}", size)


@runtime_checkable
class _Copied(Protocol):
    """Blobs of which what is mapped are copies."""

    def drop(self, digest: str) -> None: ...

    def copies(self) -> Iterator[str]: ...


def here(blobs: Blobs) -> Iterator[str]:
    """Yield the digests of the blobs whose bytes are in files of this machine, which may damage them."""
    return blobs.copies() if isinstance(blobs, _Copied) else blobs.list()


def verify(blobs: Blobs, digest: str) -> int:
    """Hash a blob again, and return its size.

    A copy that is not what its name says is fetched anew; a blob that is not is removed, so that it can be uploaded or
    fetched again.

    Raises ``DigestMismatch`` then, and ``NotFound`` for one that is not there.
    """
    found = _whole(blobs, digest)
    if found is None and isinstance(blobs, _Copied):
        blobs.drop(digest)
        found = _whole(blobs, digest)
    if found is None:
        blobs.delete(digest)
        raise DigestMismatch(
            f"expected bytes with digest {digest}, got others: the blob was damaged and is removed, upload or fetch it "
            "again",
            at=digest,
        )
    return found.size


def _whole(blobs: Blobs, digest: str) -> Part | None:
    """Return a blob's part, None if its bytes are others; some stores find that out by themselves."""
    try:
        found = part_of([blobs.get(digest)])
    except DigestMismatch:
        return None
    return found if found.digest == digest else None
