"""Blobs in an object store (S3 and others, by URL), each with a copy in a local folder to be mapped."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from umbel.envelope import Part
from umbel.errors import MissingExtra, NotFound, StoreUnavailable, UsageError
from umbel.failpoint import failpoint
from umbel.records._files import map_file
from umbel.store._blobs import DirectoryBlobs, Segments, part_of
from umbel.store._disk import PREFIX, hex_of
from umbel.store._uploads import Uploads

# Up to so many bytes go in one request, which can say that nothing of that name may be there.
_ONE_REQUEST: Final = 8 * 2**20
# No clock runs over a transfer: obstore gives one up after 30 s unless it is told otherwise.
_NETWORK: Final = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")
_RETRY: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_PATIENT: Final = {"timeout": "30 days", "connect_timeout": "10 s"}
_NAME: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)


class ObjectBlobs:
    """Blobs under a URL such as ``s3://bucket/prefix``, named ``ab/cdef...`` after their digests.

    What is put goes to the object store first, then into ``folder``; what is got is fetched there once, checked
    against its digest, and mapped. The folder belongs to one process, and may be emptied while none uses it.
    ``config`` are settings of ``obstore`` for this kind of URL, such as ``{"region": "eu-central-1"}``; ``options`` are
    those of its HTTP client, such as ``{"allow_http": True}``.
    """

    def __init__(
        self,
        url: str,
        folder: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._obstore = _obstore()
        self._place = url
        self._store = self._reach(url, dict(config or {}), dict(options or {}))
        self._copies = DirectoryBlobs(folder)
        self._fetched = Uploads(Path(folder) / "fetched", self._copies)

    def has(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if it is not there."""
        size = self._copies.has(digest)
        if size is not None:
            return size
        with self._errors(digest):
            try:
                found: int = self._obstore.head(self._store, _name(digest))["size"]
            except FileNotFoundError:
                return None
        return found

    def get(self, digest: str) -> memoryview:
        """Return the bytes of a blob as mapped memory, fetched first if need be; raises ``NotFound``.

        Raises ``DigestMismatch`` if the object store has other bytes under that name.
        """
        if self._copies.has(digest) is None:
            self._fetch(digest)
        return self._copies.get(digest)

    def put(self, segments: Segments) -> Part:
        """Store bytes, given in pieces, and return their digest and size once they are durable."""
        pieces = list(segments)
        part = part_of(pieces)
        if self.has(part.digest) is None:
            self._send(part, lambda: pieces)
        return self._copies.put(pieces)

    def adopt(self, path: Path, part: Part, *, durable: bool) -> None:
        """Take a whole file under the name of its digest; ``path`` is gone afterwards."""
        self._send(part, lambda: [map_file(path)] if part.size else [])
        self._copies.adopt(path, part, durable=durable)

    def flush(self, digest: str) -> None:
        """Do nothing: what is here is in the object store."""

    def list(self) -> Iterator[str]:
        """Yield the digests of all blobs."""
        with self._errors(self._place):
            for page in self._obstore.list(self._store):
                names = (_NAME.fullmatch(each["path"]) for each in page)
                yield from (f"{PREFIX}{name[1]}{name[2]}" for name in names if name)

    def delete(self, digest: str) -> bool:
        """Remove a blob; return whether it was there."""
        there = self.has(digest) is not None
        # The copy goes first: a copy says that the object is there.
        self._copies.delete(digest)
        with self._errors(digest), suppress(FileNotFoundError):
            self._obstore.delete(self._store, _name(digest))
        return there

    def _send(self, part: Part, pieces: Callable[[], Sequence[Any]]) -> None:
        failpoint("store.object-begun")
        with self._errors(part.digest):
            if part.size > _ONE_REQUEST:
                # In parts, which replace what is there, if anything: the same bytes.
                self._obstore.put(self._store, _name(part.digest), iter(pieces()))
                return
            try:
                self._obstore.put(self._store, _name(part.digest), b"".join(pieces()), mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                return

    def _fetch(self, digest: str) -> None:
        size = self.has(digest)
        if size is None:
            raise NotFound("no such blob is in the store: upload it, or fetch it again", at=digest)
        with self._fetched.begin(digest, size, threading.get_ident()) as fetch:
            for piece in self._stream(digest, fetch.offset, size):
                fetch.append(memoryview(piece))
            fetch.finish()

    def _stream(self, digest: str, offset: int, size: int) -> Iterator[Any]:
        if offset < size:
            with self._errors(digest):
                rest = {"range": {"offset": offset}} if offset else None
                yield from self._obstore.get(self._store, _name(digest), options=rest).stream()

    def _reach(self, url: str, config: dict[str, Any], options: dict[str, Any]) -> Any:
        if url.partition(":")[0] in _NETWORK:
            settings = {"client_options": {**_PATIENT, **options}, "retry_config": _RETRY}
        else:
            settings = {}
        try:
            return self._obstore.store.from_url(url, config=config or None, **settings)
        except (ValueError, TypeError, self._obstore.exceptions.BaseError) as error:
            raise UsageError(f"expected a URL such as s3://bucket/prefix: {error!s:.200}", at=url) from error

    @contextmanager
    def _errors(self, at: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise StoreUnavailable(
                f"the object store did not do what was asked; the request can be repeated: {error!s:.300}",
                at=at,
            ) from error


def _name(digest: str) -> str:
    name = hex_of(digest)
    return f"{name[:2]}/{name[2:]}"


def _obstore() -> Any:
    try:
        import obstore  # noqa: PLC0415 - optional
        import obstore.store  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingExtra(
            "blobs in an object store need obstore, which is not installed: `pip install 'umbel[s3]'`"
        ) from error
    return obstore
