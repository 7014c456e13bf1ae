"""The client of a server, for nodes and for the command line."""

import asyncio
import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

import aiohttp

from umbel.errors import (
    BadAnswer,
    BadRange,
    HttpError,
    NotFound,
    Replayed,
    ServerUnreachable,
    SignatureExpired,
    TooManyRequests,
    UmbelError,
    UsageError,
    VersionMismatch,
    WrongAudience,
    WrongOffset,
)
from umbel.http import _faults, _json
from umbel.http._identity import Identity
from umbel.http._line import Line
from umbel.http._signature import EMPTY, Clock, SignedRequest, digest_of, sign
from umbel.http._table import BY_NAME, Endpoint
from umbel.http._transfer import BlobBody, Incoming, Progress, ignore, total_of, watched
from umbel.http.wire import VERSION, Hello

_LIFE: Final = 30.0  # seconds that a signature holds, or half of what the server lets it hold
_BUSY: Final = 8  # times that a server may say that it is busy, before that is the answer
_SIGNED: Final = 3  # times that a request is signed
_OFFSETS: Final = 3  # times that an upload may find the blob to have grown meanwhile
_WHOLE: Final = 200
_REFUSED: Final = 400
_NUMBER: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?", re.ASCII)

T = TypeVar("T")


class Asked(NamedTuple):
    """A request before it is signed; ``body`` makes its body anew each time that it is sent."""

    endpoint: Endpoint
    params: Mapping[str, int | str]
    digest: str = EMPTY
    body: Callable[[], Any] = lambda: None
    headers: Mapping[str, str] = {}


class Client:
    """Talks to one server. ``member`` is who signs, with ``identity``; both may be set after joining.

    ``fingerprint`` pins the server's key; without one the system's trust store decides. ``poll`` is how long, in
    seconds, the server may hold an answer, ``stall`` how long a connection may make no progress.

    ``bytes_sent``, ``bytes_resent`` and ``bytes_received`` count the bytes of blobs.
    """

    def __init__(
        self,
        url: str,
        identity: Identity | None = None,
        member: int = 0,
        *,
        fingerprint: str = "",
        stall: float = 10.0,
        poll: float = 25.0,
    ) -> None:
        self.identity = identity
        self.member = member
        self.server: Hello | None = None
        self.bytes_sent = 0
        self.bytes_resent = 0
        self.bytes_received = 0
        self._poll = poll
        self._line = Line(url, fingerprint=fingerprint, stall=stall)
        self.url = self._line.url
        self._clock = Clock()
        self._ahead = 0.0  # by how much the server's clock is ahead of ours
        self._audience = ""
        self._reached: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._line.close()

    @property
    def clock_offset(self) -> float:
        """By how many seconds the server's clock is ahead of ours, as far as it is known."""
        return self._ahead

    async def hello(self) -> Hello:
        """Ask the server who it is; learn its audience and its clock.

        Raises:
            VersionMismatch: if no version of the protocol is common to both.
            ServerUnreachable: if there is no answer.

        """
        asked = self._clock.now()
        hello: Hello = await self.call("hello")
        self._ahead = hello.time - (asked + self._clock.now()) / 2
        self._audience = hello.audience
        if VERSION not in hello.versions:
            side = "this client" if max(hello.versions, default=0) > VERSION else "the server"
            message = f"expected a server that speaks version {VERSION}, got one for {hello.versions}: update {side}"
            raise VersionMismatch(message, at=self.url)
        self.server = hello
        return hello

    async def call(self, name: str, body: Any = None, **params: int) -> Any:
        """Ask endpoint ``name`` of the table and return its answer, a value of the type that stands there.

        ``params`` are what stands in the path and the query. A server that is busy is asked again when it says.

        Raises:
            ServerUnreachable: if there is no answer; trying again later may help.
            TlsError: if the server cannot be trusted.
            UmbelError: of the class that the server answered with.

        """
        endpoint = BY_NAME[name]
        data = b""
        if endpoint.request is not None:
            data = _json.encode(endpoint.request() if body is None else body)

        async def read(response: aiohttp.ClientResponse) -> Any:
            text = await response.read()
            return text if endpoint.response is None else _said(text, endpoint.response, name)

        return await self._ask(Asked(endpoint, params, digest_of(data), lambda: data or None), read)

    async def stat_blob(self, digest: str) -> tuple[int, bool]:
        """Return how many bytes of a blob the server has, and whether that is all of it."""

        async def read(response: aiohttp.ClientResponse) -> tuple[int, bool]:
            part = response.headers.get("Upload-Offset")
            if part is None:
                return response.content_length or 0, True
            return int(_number(part, "Upload-Offset")), False

        try:
            return await self._ask(Asked(BY_NAME["stat_blob"], {"digest": digest}), read)
        except NotFound:
            return 0, False

    async def put_blob(self, digest: str, data: Any, *, progress: Progress = ignore) -> None:
        """Send a blob, from where the server says on; return once the server has it whole, on its disk.

        ``data`` is anything with a buffer, best a mapped file; it is not copied. ``progress`` is told how many bytes
        went out, again and again. After ``ServerUnreachable`` call it again: it goes on where the server says.

        Raises as ``call`` does.
        """
        view = memoryview(data).cast("B")
        for attempt in range(1, _OFFSETS + 1):
            have, whole = await self.stat_blob(digest)
            if whole:
                return
            self.bytes_resent += max(0, self._reached.pop(digest, 0) - have)
            try:
                await self._put(digest, view, have, progress)
            except WrongOffset:  # another request for the same blob was quicker
                if attempt == _OFFSETS:
                    raise
            else:
                return

    async def _put(self, digest: str, view: memoryview, have: int, progress: Progress) -> None:
        params: dict[str, int | str] = {"digest": digest, "size": len(view), "offset": have}

        def moved(count: int) -> None:
            self.bytes_sent += count
            progress(count)

        body = BlobBody(view[have:], moved)

        async def read(response: aiohttp.ClientResponse) -> None:
            await response.read()

        try:
            async with watched(body, self._line.stall):
                await self._ask(Asked(BY_NAME["put_blob"], params, digest, lambda: body), read)
        except ServerUnreachable:
            self._reached[digest] = have + body.passed_on
            raise

    async def get_blob(self, digest: str, path: str | os.PathLike[str], *, progress: Progress = ignore) -> int:
        """Fetch a blob into the file at ``path``, after the bytes that are there; return its size.

        When it returns the file is whole and its digest is right; it is not flushed to the disk. After
        ``ServerUnreachable`` call it again: it goes on where the file ends.

        Raises:
            DigestMismatch: if the bytes are others; the file is then empty.
            UmbelError: as ``call`` does.
            OSError: if the file cannot be written.

        """
        incoming = Incoming(path, digest, progress)
        try:
            await asyncio.to_thread(incoming.resume)
            resumed = incoming.offset > 0
            await self._get(digest, incoming)
            if resumed and not incoming.is_right:
                # What was there was damaged, or of another blob.
                incoming.restart()
                await self._get(digest, incoming)
            incoming.check()
            return incoming.offset
        finally:
            incoming.close()

    async def _get(self, digest: str, incoming: Incoming) -> None:
        had = incoming.offset
        headers = {"Range": f"bytes={had}-"} if had else {}

        async def read(response: aiohttp.ClientResponse) -> None:
            if response.status == _WHOLE and incoming.offset:
                incoming.restart()
            size = total_of(response, incoming.offset)
            await incoming.take(response)
            if incoming.offset != size:
                message = f"expected {size} bytes, got {incoming.offset}: the connection was cut"
                raise ServerUnreachable(message, at=f"blob {digest}")

        try:
            await self._ask(Asked(BY_NAME["get_blob"], {"digest": digest}, headers=headers), read)
        except BadRange:
            # The file has as many bytes as the blob, or more: its digest tells which.
            return
        finally:
            self.bytes_received += max(0, incoming.offset - had)

    async def _ask(self, asked: Asked, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        """Sign and send a request and read its answer; again if the signature was out of date or the server busy."""
        signed, busy = 0, 0
        while True:
            try:
                return await self._once(asked, read)
            except (WrongAudience, SignatureExpired, Replayed):
                signed += 1
                if signed == _SIGNED:
                    raise
            except TooManyRequests as error:
                busy += 1
                if busy == _BUSY:
                    raise
                await asyncio.sleep(error.retry_after)

    async def _once(self, asked: Asked, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        endpoint, target = asked.endpoint, _target(asked.endpoint, asked.params)
        headers = {"Umbel-Version": str(VERSION), **asked.headers}
        if endpoint.who:
            headers["Authorization"] = await self._signature(SignedRequest(endpoint.method, target, asked.digest))
        if endpoint.request is not None:
            headers["Content-Type"] = _faults.JSON
        wait = None if endpoint.name == "put_blob" else self._poll if endpoint.waits else 0.0
        async with self._line.request(endpoint.method, target, headers, asked.body(), wait=wait) as response:
            if response.status >= _REFUSED:
                error = await self._refusal(response)
                response.close()  # a body that is still being sent is wanted no more
                raise error
            return await read(response)

    async def _refusal(self, response: aiohttp.ClientResponse) -> UmbelError:
        text = await response.content.read(64 * 1024)
        self._learn(response.headers)
        return _faults.error_of(response.status, response.headers, text)

    def _learn(self, headers: Mapping[str, str]) -> None:
        """Take the audience and the time from an answer that has them."""
        if "Umbel-Audience" in headers:
            ahead = _number(headers.get("Umbel-Time", ""), "Umbel-Time") - self._clock.now()
            self._audience, self._ahead = headers["Umbel-Audience"], ahead

    async def _signature(self, request: SignedRequest) -> str:
        if self.identity is None:
            raise UsageError("expected an identity to sign with, got none: join the server first", at=self.url)
        if not self._audience:
            await self.hello()
        life = min(_LIFE, self.server.skew / 2 if self.server is not None else _LIFE)
        expires = math.ceil(self._clock.now() + self._ahead + life)
        return sign(self.identity, request, audience=self._audience, member=self.member, expires=expires)


def _said(text: bytes, kind: type[T], name: str) -> T:
    """Return what an answer says, a value of the type that the table gives."""
    try:
        return _json.decode(text, kind)
    except HttpError as error:
        raise BadAnswer(error.message, at=f"answer of {name}") from error


def _number(text: str, at: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise BadAnswer(f"expected a number, got {text!r:.80}", at=at)
    return float(text)


def _target(endpoint: Endpoint, params: Mapping[str, int | str]) -> str:
    path = endpoint.path.format_map(params)
    query = "&".join(f"{name}={params[name]}" for name in endpoint.query if name in params)
    return f"{path}?{query}" if query else path
