"""One request after the other: found in the table, checked, handed to its handler, answered."""

import asyncio
import errno
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from typing import Any, Final

from aiohttp import web

from umbel.errors import (
    AuthError,
    BodyTooLarge,
    HttpError,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
    ServerStopping,
    SignatureExpired,
    StorageFull,
    TooManyRequests,
    UmbelError,
    VersionMismatch,
    WrongAudience,
    WrongMediaType,
)
from umbel.http import _blobs, _faults, _json
from umbel.http._calls import Call, Handler, Handlers, Hooks, Member
from umbel.http._door import Door
from umbel.http._guard import Connection, Phase, connection_of
from umbel.http._openapi import document
from umbel.http._quota import Budget, Places, Rates
from umbel.http._routing import Route, allowed, route
from umbel.http._settings import Settings
from umbel.http._signature import SignedRequest, digest_of
from umbel.http._table import Endpoint
from umbel.http.wire import VERSION, Hello

_PAUSE: Final = 0.25  # seconds before one who asks too often is told so

_SMALL: Final = 64 * 1024  # bytes of a body; all but the largest replies have fewer


class Site:
    """What a server answers, whatever connection a request comes by."""

    def __init__(self, handlers: Handlers, door: Door, settings: Settings, hooks: Hooks) -> None:
        limits = settings.limits
        steady = asyncio.get_running_loop().time
        self._door = door
        self._settings = settings
        self._hooks = hooks
        self._handlers: dict[str, Handler] = {"hello": self._hello, **handlers}
        self._by_member = Rates(limits.member_rate, limits.burst, steady)
        self._by_address = Rates(limits.address_rate, limits.burst, steady)
        self._pending = Places(limits.pending, "requests of a member")
        self._uploads = Places(limits.uploads, "uploads of a member")
        # Large bodies, which nobody has proved to be from a member before all is read, leave small ones their room.
        self._small, self._large = Budget(limits.buffered), Budget(limits.buffered)
        self._waiting: dict[asyncio.Task[Any], int] = {}
        self._stopping = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        connection = connection_of(request)
        connection.turn(Phase.HANDLER)
        try:
            response = await self._response(request, connection)
            connection.turn(Phase.ANSWER)
            await response.prepare(request)
            await response.write_eof()
        finally:
            connection.turn(Phase.IDLE)
        return response

    async def _response(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        try:
            return await self._answer(request, connection)
        except ConnectionError:
            raise
        except UmbelError as error:
            _require_unanswered(request, connection)
            return await self._refusal(request, connection, error)
        except Exception as error:  # noqa: BLE001  # whatever a handler meets, its client learns nothing of the inside
            self._hooks.fault(error)
            _require_unanswered(request, connection)
            return _faults.answer(_full(error))

    async def _refusal(self, request: web.BaseRequest, connection: Connection, error: UmbelError) -> web.StreamResponse:
        if isinstance(error, AuthError):
            try:
                self._by_address.take(connection.address, connection.address)
            except TooManyRequests as busy:
                error = busy
        if isinstance(error, TooManyRequests):
            await asyncio.sleep(min(error.retry_after, _PAUSE))
        return _faults.answer(error, self._more(request, error))

    def _more(self, request: web.BaseRequest, error: UmbelError) -> Mapping[str, str]:
        if isinstance(error, WrongAudience | SignatureExpired):
            return {"Umbel-Audience": self._door.audience, "Umbel-Time": f"{self._door.clock.now():.3f}"}
        if isinstance(error, MethodNotAllowed):
            return {"Allow": allowed(request.raw_path)}
        if isinstance(error, VersionMismatch):
            return {"Upgrade": f"umbel/{VERSION}"}
        return {}

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        found = route(request.method, request.raw_path)
        if found.endpoint.name not in self._handlers and found.endpoint.name != "openapi":
            raise NotFound("expected a path that this server answers", at=found.endpoint.path)
        if not found.endpoint.who:
            if found.endpoint.request is not None and "Umbel-Version" in request.headers:
                _check_version(request.headers)
            self._by_address.take(connection.address, connection.address)
            return await self._open_call(found, request, connection)
        _check_version(request.headers)
        given, member = await self._door.recognise(found.endpoint, request.headers)
        with ExitStack() as held:
            body = await self._body(found.endpoint, request, connection, held)
            digest = found.params["digest"] if found.endpoint.name == "put_blob" else digest_of(body)
            self._door.accept(given, member, SignedRequest(request.method, request.raw_path, digest))
            self._by_member.take(member.member, f"member {member.member}")
            held.enter_context(self._pending.one(member.member, f"member {member.member}"))
            return await self._signed_call(found, request, body, member)

    async def _open_call(self, found: Route, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        if found.endpoint.name == "openapi":
            return web.Response(body=document(), content_type=_faults.JSON, headers=_faults.HEADERS)
        with ExitStack() as held:
            body = await self._body(found.endpoint, request, connection, held)
            call = _call(found, body, None, connection.address)
            said = await self._handlers[found.endpoint.name](call)
        if isinstance(said, bytes):
            return web.Response(body=said, content_type="text/plain", charset="utf-8", headers=_faults.HEADERS)
        return _faults.plain(said)

    async def _signed_call(
        self, found: Route, request: web.BaseRequest, body: bytes, member: Member
    ) -> web.StreamResponse:
        connection = connection_of(request)
        call = _call(found, body, member, connection.address)
        handler = self._handlers[found.endpoint.name]
        match found.endpoint.name:
            case "stat_blob":
                return _blobs.state(await handler(call))
            case "get_blob":
                return await _blobs.send(request, call, await handler(call), self._hooks)
            case "put_blob":
                with self._uploads.one(member.member, f"member {member.member}"):
                    return await _blobs.receive(request, call, await handler(call), self._hooks)
        if not found.endpoint.waits:
            return _faults.plain(await handler(call))
        return _faults.plain(await self._held(handler(call), connection, member.member))

    async def _held(self, answer: Coroutine[Any, Any, Any], connection: Connection, member: int) -> Any:
        """Wait for a handler that may be told to wait no more: the server ends, or the member is revoked or gone."""
        if self._stopping:
            answer.close()
            raise ServerStopping("the server is about to end: ask again in a moment")
        task = asyncio.get_running_loop().create_task(answer)
        self._waiting[task] = member
        connection.held = task
        try:
            return await task
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise ServerStopping("the server waits no more for this: ask again") from None
        finally:
            task.cancel()
            connection.held = None
            del self._waiting[task]

    def release(self, member: int | None = None) -> None:
        """End what waits: of one member, or of all because the server is about to end."""
        self._stopping = self._stopping or member is None
        for task, owner in self._waiting.items():
            if member is None or owner == member:
                task.cancel()

    async def _body(
        self, endpoint: Endpoint, request: web.BaseRequest, connection: Connection, held: ExitStack
    ) -> bytes:
        """Read a body of JSON whole; the body of a blob is left where it is."""
        size = _length(endpoint, request.headers)
        if endpoint.name == "put_blob" or not size:
            return b""
        budget = self._small if size <= _SMALL else self._large
        held.enter_context(budget.hold(size))
        await _blobs.proceed(request)
        connection.turn(Phase.BODY)
        pieces = []
        while piece := await _blobs.read(request):
            pieces.append(piece)
        connection.turn(Phase.HANDLER)
        return b"".join(pieces)

    async def _hello(self, _: Call) -> Hello:
        return Hello(
            server=self._settings.name,
            audience=self._door.audience,
            versions=[VERSION],
            release=self._settings.release,
            time=self._door.clock.now(),
            skew=self._settings.skew,
        )


def _is_cancelled() -> bool:
    """Say whether this very task is to end, rather than one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _full(error: Exception) -> StorageFull | None:
    """Return what a full disk is called: the one fault of a server that a client may wait to see mended."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return StorageFull("the server has no room left on its disk: its operator has to make some", at="server")


def _require_unanswered(request: web.BaseRequest, connection: Connection) -> None:
    """Cut a connection whose answer has begun: nothing but a cut tells the client that it is not whole."""
    if request.writer.output_size > 0:
        connection.abort()
        raise ConnectionError("the answer has begun")


def _call(found: Route, body: bytes, member: Member | None, address: str) -> Call:
    kind = found.endpoint.request
    value = None if kind is None else _json.decode(body, kind)
    return Call(found.endpoint, found.params, value, member, address)


def _check_version(headers: Mapping[str, str]) -> None:
    given = headers.get("Umbel-Version", "")
    if given != str(VERSION):
        side = "the client" if not given.isdecimal() or int(given) < VERSION else "the server"
        message = (
            f"expected version {VERSION} of the protocol, which this server speaks, got {given!r:.20}: update {side}"
        )
        raise VersionMismatch(message, at="Umbel-Version")


def _length(endpoint: Endpoint, headers: Mapping[str, str]) -> int:
    """Return the length of a body, after checking its form by its headers."""
    if "Transfer-Encoding" in headers:
        raise LengthRequired("expected a body with a Content-Length, got Transfer-Encoding", at="Transfer-Encoding")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise WrongMediaType("expected a body as it is, got one encoded", at="Content-Encoding")
    size = int(headers.get("Content-Length", "0"))
    takes_blob = endpoint.name == "put_blob"
    if endpoint.request is None and not takes_blob:
        if size:
            raise HttpError(f"expected no body, got {size} bytes", at="Content-Length")
        return 0
    if not takes_blob and size > endpoint.limit:
        raise BodyTooLarge(f"expected a body of at most {endpoint.limit} bytes, got {size}", at="Content-Length")
    if "Content-Length" not in headers:
        raise LengthRequired("expected a body with a Content-Length, got none", at="Content-Length")
    _check_type("application/octet-stream" if takes_blob else _faults.JSON, headers.get("Content-Type", ""))
    return size


def _check_type(expected: str, given: str) -> None:
    kind, _, parameter = given.lower().partition(";")
    if kind.strip() != expected or parameter.strip() not in ("", "charset=utf-8"):
        raise WrongMediaType(f"expected {expected}, got {given!r:.80}", at="Content-Type")
