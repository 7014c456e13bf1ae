"""A server with handlers that do as little as possible, on a real socket, for the tests of the http part."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from blake3 import blake3

from umbel.errors import DigestMismatch, NotFound
from umbel.http import (
    ENDPOINTS,
    BlobState,
    Call,
    Client,
    Hooks,
    Identity,
    Member,
    Service,
    Settings,
    Source,
    serve,
)
from umbel.http._signature import SignedRequest, sign
from umbel.http.wire import Done, Joined, Poll, Polled, Replied

POLL = Poll(instance="i", holding=[], room=1, app="app", types=["train"], release="0")
KEYS = {number: Identity(bytes([number]) * 32) for number in (7, 8, 9)}
KINDS = {7: "node", 8: "user", 9: "operator"}


def digest_of(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


class Upload:
    """A sink in memory; what came stays in ``parts`` of the stand."""

    def __init__(self, stand: "Stand", digest: str) -> None:
        self._stand = stand
        self._digest = digest
        self._data = stand.parts.setdefault(digest, bytearray())

    @property
    def offset(self) -> int:
        return len(self._data)

    async def append(self, pieces: Any) -> None:
        for piece in pieces:
            self._data += piece

    async def finish(self) -> None:
        data = bytes(self._stand.parts.pop(self._digest))
        if digest_of(data) != self._digest:
            raise DigestMismatch("expected other bytes", at=self._digest)
        self._stand.blobs[self._digest] = data

    async def close(self) -> None:
        self._stand.closed += 1


class Stand:
    """A running server: ``handlers`` may be changed while it runs, ``calls`` has what came."""

    def __init__(self) -> None:
        self.members = {number: Member(number, KEYS[number].key, KINDS[number]) for number in KEYS}
        self.calls: list[Call] = []
        self.faults: list[BaseException] = []
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytearray] = {}
        self.closed = 0
        self.moved = 0
        self.handlers: dict[str, Callable[[Call], Awaitable[Any]]] = {
            "join": self._join,
            "poll": self._poll,
            "reply": self._reply,
            "stat_blob": self._stat,
            "get_blob": self._get,
            "put_blob": self._put,
        }
        self.service: Service
        self.settings: Settings

    async def start(self, settings: Settings) -> None:
        names = [endpoint.name for endpoint in ENDPOINTS if endpoint.name not in ("hello", "openapi", "metrics")]
        self.settings = settings
        hooks = Hooks(progress=self._count, fault=self.faults.append)
        self.service = await serve(dict.fromkeys(names, self._handle), self._lookup, settings, hooks)

    @property
    def url(self) -> str:
        scheme = "http" if self.settings.certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self.service.port}"

    def client(self, member: int = 7, **settings: Any) -> Client:
        return Client(self.url, KEYS[member], member, **settings)

    async def _lookup(self, number: int) -> Member | None:
        return self.members.get(number)

    def _count(self, _member: int, count: int) -> None:
        self.moved += count

    async def _handle(self, call: Call) -> Any:
        self.calls.append(call)
        handler = self.handlers.get(call.endpoint.name)
        if handler is not None:
            return await handler(call)
        if call.endpoint.response is Done:
            return Done()
        raise NotFound("expected something that is here", at=call.endpoint.path)

    async def _join(self, call: Call) -> Joined:
        return Joined(member=7, name=call.body.name)

    async def _poll(self, _: Call) -> Polled:
        return Polled(tasks=[], cancelled=[])

    async def _reply(self, _: Call) -> Replied:
        return Replied(counted=True)

    async def _stat(self, call: Call) -> BlobState:
        digest = call.params["digest"]
        if digest in self.blobs:
            return BlobState(len(self.blobs[digest]))
        if digest in self.parts:
            return BlobState(None, len(self.parts[digest]))
        raise NotFound("expected a blob that is here", at=digest)

    async def _get(self, call: Call) -> Source:
        if call.params["digest"] not in self.blobs:
            raise NotFound("expected a blob that is here", at=call.params["digest"])
        return Source(self.blobs[call.params["digest"]], self._close)

    def _close(self) -> None:
        self.closed += 1

    async def _put(self, call: Call) -> Upload | None:
        return None if call.params["digest"] in self.blobs else Upload(self, call.params["digest"])


def run(
    main: Callable[[Stand], Awaitable[None]],
    settings: Settings | None = None,
    seconds: float = 30.0,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Stand:
    """Run ``main`` beside a server; fail if it takes longer than ``seconds``, or if a handler failed."""

    async def whole() -> Stand:
        stand = Stand()
        await stand.start(settings or Settings(name="stand", port=0))
        try:
            async with asyncio.timeout(seconds):
                await main(stand)
        finally:
            await stand.service.close()
            for fault in stand.faults:
                raise fault
        return stand

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(whole())


def signed(
    stand: Stand,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    member: int = 7,
    headers: Mapping[str, str] = {},
    close: bool = False,
    **wrong: Any,
) -> bytes:
    """A signed request as bytes. ``wrong`` replaces a part of what is signed or of what is said of it."""
    digest = wrong.get("digest") or digest_of(body)
    request = SignedRequest(wrong.get("signed_method", method), wrong.get("signed_target", target), digest)
    said = sign(
        KEYS[wrong.get("key", member)],
        request,
        audience=wrong.get("audience", stand.service.audience),
        member=member,
        expires=wrong.get("expires", int(time.time()) + 30),
        nonce=wrong.get("nonce", ""),
    )
    lines = {"Host": "stand", "Umbel-Version": "1", "Authorization": said, **headers}
    if body or method in ("POST", "PUT"):
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body))} | lines
    if close:
        lines["Connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


async def talk(stand: Stand, data: bytes, *, seconds: float = 10.0) -> bytes:
    """Send bytes over a connection of one's own and return all that comes back until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
    try:
        with suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        async with asyncio.timeout(seconds):
            return await read_all(reader)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes or resets the connection."""
    came = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            came += piece
    return came


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition; fail if it does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # a condition of the code under test, which tells nobody
            await asyncio.sleep(0.01)
