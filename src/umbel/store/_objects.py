"""Blobs in an object store (S3 and others, by URL), each with a copy in a local folder to be mapped."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from umbel.envelope import Part
from umbel.errors import MissingExtra, NotFound, StoreUnavailable, UsageError
from umbel.failpoint import failpoint
from umbel.records._files import map_file
from umbel.store._blobs import DirectoryBlobs, Segments, part_of
from umbel.store._disk import PREFIX, hex_of
from umbel.store._removals import Removals, Watch
from umbel.store._uploads import Uploads

# Up to so many bytes go in one request, which can say that nothing of that name may be there.
_ONE_REQUEST: Final = 8 * 2**20
_NETWORK: Final = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")
_RETRY: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_RETRY_ONCE: Final = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}
# Whoever gives an endpoint with http:// means it; obstore wants that said twice, and takes it from no environment.
_CLIENT: Final = {"connect_timeout": "10 s", "allow_http": True}
# No clock runs over a transfer: obstore gives one up after 30 s unless it is told otherwise. A question is no transfer.
_PATIENT: Final = {**_CLIENT, "timeout": "30 days"}
_SHORT: Final = {**_CLIENT, "timeout": "10 s"}
_LEAVING: Final = 20.0  # seconds that one who brings an object waits until its predecessor is removed
_REMEMBERED: Final = 65_536  # objects without a copy of which it is known that they are there
_NAME: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)


class ObjectBlobs:
    """Blobs under a URL such as ``s3://bucket/prefix``, named ``ab/cdef...`` after their digests.

    What is put goes to the object store first, then into ``folder``; what is got is fetched there once, checked
    against its digest, and mapped. The folder belongs to one process, and may be emptied while none uses it.
    ``config`` are settings of ``obstore`` for this kind of URL, such as ``{"region": "eu-central-1"}``; what is not
    among them is taken from the environment. ``options`` are those of its HTTP client.
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
        config, options = dict(config or {}), dict(options or {})
        self._store = self._reach(url, config, _PATIENT | options, _RETRY)
        self._brief = self._reach(url, config, _SHORT | options, _RETRY_ONCE)
        self._sizes: dict[str, int] = {}
        self._removals = Removals(self._remove)
        self._copies = DirectoryBlobs(folder)
        self._fetched = Uploads(Path(folder) / "fetched", self._copies)

    def has(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if it is not there."""
        with self._removals.watch(digest) as watch:
            size = self.known(digest)
            if size is not None or digest in self._removals:
                return size
            with self._errors(digest):
                try:
                    found: int = self._obstore.head(self._brief, _name(digest))["size"]
                except FileNotFoundError:
                    return None
            with self._removals.gate:
                if not watch.removed:
                    self._sizes[digest] = found
                    if len(self._sizes) > _REMEMBERED:
                        del self._sizes[next(iter(self._sizes))]
        return found

    def known(self, digest: str) -> int | None:
        """Return the size of a blob that has a copy here, or that was asked for before; nothing goes over a network."""
        size = self._copies.has(digest)
        if digest in self._removals:
            return None
        return self._sizes.get(digest) if size is None else size

    def get(self, digest: str) -> memoryview:
        """Return the bytes of a blob as mapped memory, fetched first if need be; raises ``NotFound``.

        Raises ``DigestMismatch`` if the object store has other bytes under that name.
        """
        if self._copies.has(digest) is None:
            self._fetch(digest)
        return self._copies.get(digest)

    def put(self, segments: Segments, digest: str | None = None) -> Part:
        """Store bytes, given in pieces, and return their digest and size once they are durable."""
        pieces = list(segments)
        part = part_of(pieces, digest)
        with self._removals.watch(part.digest) as watch:
            if self.has(part.digest) is None:
                self._send(part, lambda: pieces)
            self._copies.put(pieces, part.digest)
            self._settle(part, watch)
        return part

    def adopt(self, path: Path, part: Part, *, durable: bool) -> None:
        """Take a whole file under the name of its digest; ``path`` is gone afterwards."""
        with self._removals.watch(part.digest) as watch:
            self._send(part, lambda: [map_file(path)] if part.size else [])
            self._copies.adopt(path, part, durable=durable)
            self._settle(part, watch)

    def flush(self, digest: str) -> None:
        """Do nothing: what is here is in the object store."""

    def drop(self, digest: str) -> None:
        """Forget the copy of a blob, which is fetched anew when it is wanted."""
        self._copies.delete(digest)

    def copies(self) -> Iterator[str]:
        """Yield the digests of the blobs that have a copy."""
        return self._copies.list()

    def list(self) -> Iterator[str]:
        """Yield the digests of all blobs."""
        gone = self._removals.all()
        with self._errors(self._place):
            for page in self._obstore.list(self._brief):
                gone |= self._removals.all()
                names = (_NAME.fullmatch(each["path"]) for each in page)
                digests = (f"{PREFIX}{name[1]}{name[2]}" for name in names if name)
                yield from (digest for digest in digests if digest not in gone)

    def delete(self, digest: str) -> bool:
        """Remove a blob; return whether it was ``known``. From now on it is gone, and soon for the network too."""
        there = self.known(digest) is not None
        self._removals.add(digest)
        # A copy says that the object is there.
        with self._removals.gate:
            self._sizes.pop(digest, None)
        self._copies.delete(digest)
        return there

    def _remove(self, digest: str) -> None:
        with self._errors(digest), suppress(FileNotFoundError):
            self._obstore.delete(self._brief, _name(digest))

    def _settle(self, part: Part, watch: Watch) -> None:
        """Send what has a copy by now once more if the object was removed meanwhile."""
        while watch.removed:
            watch.removed = False
            with suppress(NotFound):
                copy = self._copies.get(part.digest)
                self._send(part, partial(tuple, [copy]))

    def _send(self, part: Part, pieces: Callable[[], Sequence[Any]]) -> None:
        self._removals.wait(part.digest, _LEAVING)
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
        with self._removals.watch(digest) as watch:
            with self._fetched.begin(digest, size, threading.get_ident()) as fetch:
                for piece in self._stream(digest, fetch.offset, size):
                    fetch.append(memoryview(piece))
                fetch.finish()
            if watch.removed:
                self._copies.delete(digest)

    def _stream(self, digest: str, offset: int, size: int) -> Iterator[Any]:
        if offset < size:
            with self._errors(digest):
                rest = {"range": {"offset": offset}} if offset else None
                yield from self._obstore.get(self._store, _name(digest), options=rest).stream()

    def _reach(self, url: str, config: dict[str, Any], options: dict[str, Any], retry: dict[str, Any]) -> Any:
        is_far = url.partition(":")[0] in _NETWORK
        settings = {"client_options": options, "retry_config": retry} if is_far else {}
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
