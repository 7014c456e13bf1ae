"""Uploads: blobs on their way in, in files that survive a restart, hashed as they grow."""

import os
import threading
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self, runtime_checkable

from blake3 import blake3

from umbel.envelope import Part
from umbel.errors import BadLength, Conflict, DigestMismatch, QuotaExceeded, StorageFull, Truncated
from umbel.failpoint import failpoint
from umbel.records._files import map_file
from umbel.store._blobs import Blobs
from umbel.store._disk import PREFIX, disk, hex_of, make_folder

_REMEMBERED: Final = 64
_NO_LIMIT: Final = 2**62


@runtime_checkable
class _Adopting(Protocol):
    """Blobs that can take a file as it is, one that is not flushed too, and flush it when that is wanted."""

    def adopt(self, path: Path, part: Part, *, durable: bool) -> None: ...

    def flush(self, digest: str) -> None: ...


class _Paused(NamedTuple):
    """How far a file was hashed when its upload was put aside."""

    offset: int
    hasher: blake3


class Uploads:
    """Staging files, one for each digest and owner, in one folder, best on the disk of the blobs.

    Each owner (a member's id, for one) has files of its own, so that nobody can spoil another's upload. An owner that
    begins an upload again takes it over: the connection that carried it before is dead, whatever it looks like.
    ``largest`` is how many bytes one blob may have, ``total`` how many all unfinished uploads may have together.
    """

    def __init__(
        self, folder: str | os.PathLike[str], blobs: Blobs, *, largest: int = _NO_LIMIT, total: int = _NO_LIMIT
    ) -> None:
        self._folder = Path(folder)
        self._blobs = blobs
        self._largest, self._total = largest, total
        self._gate = threading.Lock()
        self._active: dict[Path, Upload] = {}
        self._paused: dict[Path, _Paused] = {}
        make_folder(self._folder)
        with disk(self._folder):
            self._sizes = {path: path.stat().st_size for path in self._folder.glob("*.part")}
        self._swept: dict[Path, int] = {}

    def whole(self, digest: str, *, durable: bool = True) -> int | None:
        """Return the size of a blob that is there, or None; one that is to be ``durable`` is so from now on.

        It may have been uploaded before by one to whom that was not worth a wait.
        """
        size = self._blobs.has(digest)
        if size is not None and durable and isinstance(self._blobs, _Adopting):
            self._blobs.flush(digest)
        return size

    def offset(self, digest: str, owner: int = 0) -> int:
        """Return how many bytes of an owner's upload are on the disk."""
        path = self._path(digest, owner)
        with disk(path):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return 0

    def begin(self, digest: str, size: int, owner: int = 0, *, durable: bool = True) -> "Upload":
        """Begin an upload of ``size`` bytes, or go on where it ended: ``offset`` of what is returned says where.

        One that is not ``durable`` survives any process, but not a loss of power: for bytes that can be had again,
        which are not worth a wait for the disk.
        Raises ``QuotaExceeded`` for a blob that is too large, ``StorageFull`` when all uploads together would be.
        """
        path = self._path(digest, owner)
        if not 0 <= size <= self._largest:
            raise QuotaExceeded(f"expected a blob of at most {self._largest} bytes, got one of {size}", at=digest)
        # What there is is hashed when our gate is free again: that takes a second for each GiB, and others go on.
        return self._place(path, Part(digest, size), durable=durable).resume()

    def _place(self, path: Path, part: Part, *, durable: bool) -> "Upload":
        while True:
            with self._gate:
                former = self._active.get(path)
                if former is None:
                    self._reserve(path, part.size, part.digest)
                    upload = Upload(self, path, part, self._paused.pop(path, None), durable=durable)
                    self._active[path] = upload
                    return upload
            # Not under our gate: a step of it that is under way has its own, and wants ours at its end.
            former.close()

    def sweep(self) -> int:
        """Remove staging files that nobody has added to since the last sweep; return how many bytes they had."""
        with self._gate:
            idle = {path: size for path, size in self._sizes.items() if path not in self._active}
            old = [path for path, size in idle.items() if self._swept.get(path) == size]
            self._swept = {path: size for path, size in idle.items() if path not in old}
            for path in old:
                self._paused.pop(path, None)
                del self._sizes[path]
                with disk(path):
                    path.unlink(missing_ok=True)
        return sum(idle[path] for path in old)

    def finished(self, upload: "Upload", path: Path, part: Part, *, good: bool, durable: bool) -> None:
        """Give a whole file to the blobs, or remove a wrong one."""
        try:
            if good and self.whole(part.digest, durable=durable) != part.size:
                self._store(path, part, durable=durable)
            with disk(path):
                path.unlink(missing_ok=True)
        finally:
            self.put_aside(upload, path, None)

    def put_aside(self, upload: "Upload", path: Path, paused: _Paused | None) -> None:
        """Take note that an upload is over, with or without a rest that can go on."""
        with self._gate:
            if self._active.get(path) is not upload:
                return
            del self._active[path]
            self._sizes.pop(path, None)
            if paused is not None or path.exists():
                self._sizes[path] = path.stat().st_size
            if paused is not None:
                self._paused[path] = paused
                if len(self._paused) > _REMEMBERED:
                    del self._paused[next(iter(self._paused))]

    def _store(self, path: Path, part: Part, *, durable: bool) -> None:
        if isinstance(self._blobs, _Adopting):
            self._blobs.adopt(path, part, durable=durable)
        else:
            self._blobs.put([memoryview(map_file(path))] if part.size else [])

    def _reserve(self, path: Path, size: int, digest: str) -> None:
        others = sum(other for name, other in self._sizes.items() if name != path)
        if others + size > self._total:
            raise StorageFull(
                f"expected unfinished uploads of at most {self._total} bytes together, got {others} and {size} more: "
                "try again when others are done",
                at=digest,
            )
        self._sizes[path] = size

    def _path(self, digest: str, owner: int) -> Path:
        return self._folder / f"{hex_of(digest)}.{owner:d}.part"


class Upload:
    """One upload on its way; a context manager that puts it aside, to go on later, unless it was finished."""

    def __init__(self, uploads: Uploads, path: Path, part: Part, paused: _Paused | None, *, durable: bool) -> None:
        self._uploads, self._path, self._part, self._durable = uploads, path, part, durable
        self._gate = threading.Lock()
        self._paused = paused
        self.offset, self._hasher = 0, blake3()
        with disk(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def resume(self) -> Self:
        """Go on after the bytes on the disk, before anything else; raises ``Conflict`` if it was begun anew since."""
        with self._gate:
            self._require_open()
            try:
                self.offset, self._hasher = self._resume(self._paused)
            except BaseException:
                self._close()
                self._uploads.put_aside(self, self._path, None)
                raise
        return self

    def append(self, *pieces: bytes | memoryview) -> None:
        """Write bytes at the end of what is there.

        Raises:
            BadLength: if there are more than were announced.
            StorageFull: if the disk is full; what was written stays, and ``offset`` says how much that is.
            Conflict: if the owner has begun the upload anew.

        """
        with self._gate:
            self._require_open()
            for piece in pieces:
                self._append(memoryview(piece))

    def finish(self) -> Part:
        """Check the digest, flush the bytes if they are to be durable, and give them their name among the blobs.

        Raises ``Truncated`` while bytes are missing (the upload can go on), ``DigestMismatch`` for other bytes than the
        digest names (they are gone).
        """
        with self._gate:
            self._require_open()
            part = self._part
            if self.offset != part.size:
                raise Truncated(f"expected {part.size} bytes, got {self.offset}: send the rest", at=part.digest)
            found = f"{PREFIX}{self._hasher.hexdigest()}"
            good = found == part.digest
            if good:
                if self._durable:
                    with disk(self._path):
                        os.fsync(self._file)
                failpoint("store.upload-staged")
            self._close()
            self._uploads.finished(self, self._path, part, good=good, durable=self._durable)
        if not good:
            raise DigestMismatch(
                f"expected bytes with that digest, got some with {found}: send them anew", at=part.digest
            )
        failpoint("store.upload-finished")
        return part

    def close(self) -> None:
        """Put the upload aside; its bytes stay. Again, and after ``finish``, does nothing."""
        with self._gate:
            if self._file < 0:
                return
            self._close()
            self._uploads.put_aside(self, self._path, _Paused(self.offset, self._hasher))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, paused: _Paused | None) -> tuple[int, blake3]:
        """Go on after the bytes on the disk, which are hashed again unless this process has done so."""
        with disk(self._path):
            size = os.fstat(self._file).st_size
            if size > self._part.size:
                os.ftruncate(self._file, 0)
                size = 0
            os.lseek(self._file, size, os.SEEK_SET)
        if paused is not None and paused.offset == size:
            return size, paused.hasher
        hasher = blake3()
        if size:
            hasher.update(map_file(self._path))
        return size, hasher

    def _append(self, piece: memoryview) -> None:
        if self.offset + len(piece) > self._part.size:
            raise BadLength(
                f"expected {self._part.size} bytes, got {self.offset + len(piece)} or more", at=self._part.digest
            )
        while piece:
            with disk(self._path):
                written = os.write(self._file, piece)
            self._hasher.update(piece[:written])
            self.offset += written
            piece = piece[written:]

    def _require_open(self) -> None:
        if self._file < 0:
            raise Conflict("expected the one upload of this blob, got one that was taken over or ended", at="upload")

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
