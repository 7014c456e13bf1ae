"""Connections that may not dawdle: aiohttp never closes one whose request is not complete, nor one that is not read.

One task looks at all connections that are due for progress; idle long polls are not among them.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import IntEnum
from typing import Any

from aiohttp import web

from umbel.errors import HttpError, UmbelError
from umbel.http import _buffers
from umbel.http._faults import answer, of_parser
from umbel.http._pace import Pace, bytes_taken


class Phase(IntEnum):
    """What a connection is waiting for."""

    IDLE = 0  # the first byte of a request
    HEADER = 1  # the rest of a header
    HANDLER = 2  # the server itself
    BODY = 3  # bytes of a body
    ANSWER = 4  # the client, to take what was sent


_CROWD = 64  # new connections after which it is worth it to tidy up
_AT_ONCE = struct.pack("ii", 1, 0)  # a reset when it is closed, and no byte more
_AWAITED = (Phase.HEADER, Phase.BODY, Phase.ANSWER)


class Connection(web.RequestHandler):
    """A connection that is timed by its phase."""

    __slots__ = (
        "address",
        "answered",
        "counted",
        "ended",
        "held",
        "made",
        "pace",
        "phase",
        "received",
        "since",
        "watch",
    )

    def __init__(self, manager: Any, watch: "Watch", **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.watch = watch
        self.address = ""
        self.counted = False
        self.made = False
        self.phase = Phase.HEADER
        self.since = 0.0
        self.received = 0
        self.answered = 0
        self.ended = False
        self.held: asyncio.Task[Any] | None = None
        self.pace: Pace | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True
        super().connection_made(transport)
        self.watch.admit(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.watch.dismiss(self)
        if self.held is not None:
            self.held.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.IDLE and data:
            self.turn(Phase.HEADER)
        self.received += len(data)
        super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp says None and means "close"
        """Let a client that has said all that it will have its answer; one that waits for work is gone."""
        is_open = self._request_count > self.answered and self.phase is not Phase.BODY
        if not is_open or self.held is not None or self.is_tls:
            return None
        self.ended = True
        self.close()
        return True

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.ssl_context is not None

    def turn(self, phase: Phase) -> None:
        """Go over to another phase, which begins now."""
        self.phase = phase
        self.answered += phase is Phase.IDLE
        self.watch.follow(self)

    def abort(self) -> None:
        """Close at once, without sending what is left: not even the kernel keeps it for a client that does not read."""
        if self.transport is not None:
            reset(self.transport.get_extra_info("socket"))
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002  # as aiohttp calls it
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP request, or what went wrong beyond the handlers, without a word about the inside."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        fault: UmbelError | None = HttpError(of_parser(message)) if status < 500 else None  # noqa: PLR2004
        response = answer(fault)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say nothing: whoever sends garbage must not fill a log."""


def reset(sock: Any) -> None:
    """Have a socket reset its connection when it is closed."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection that a request came by."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError(f"expected a connection that is watched, got {type(connection).__name__}")
    return connection


class Watch:
    """All connections, and the one task that closes those that make no progress for ``stall`` seconds."""

    def __init__(self, stall: float, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall = stall
        self._most = most
        self._by_address: dict[str, int] = {}
        self._followed: set[Connection] = set()
        self._admitted: set[Connection] = set()
        self._task: asyncio.Task[None] | None = None
        self._new = 0
        self.closed = 0

    def __len__(self) -> int:
        return len(self._admitted)

    def enter(self, address: str) -> bool:
        """Count a connection that comes in, before it can speak; False if its address has too many."""
        count = self._by_address.get(address, 0)
        if count >= self._most:
            return False
        self._by_address[address] = count + 1
        return True

    def admit(self, connection: Connection) -> None:
        """Let a connection speak that was counted."""
        self._admitted.add(connection)
        self._new += 1
        connection.turn(Phase.HEADER)

    def dismiss(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._followed.discard(connection)
        if connection not in self._admitted:
            return
        self._admitted.remove(connection)
        self.leave(connection)

    def leave(self, connection: Connection) -> None:
        """Count a connection no more."""
        if not connection.counted:
            return
        connection.counted = False
        count = self._by_address.pop(connection.address) - 1
        if count:
            self._by_address[connection.address] = count

    def follow(self, connection: Connection) -> None:
        """Take note that a connection went over to another phase."""
        now = self._loop.time()
        connection.since = now
        match connection.phase:
            case Phase.IDLE | Phase.HEADER | Phase.ANSWER:
                connection.pace = None
            case Phase.HANDLER if connection.pace is not None:
                connection.pace.rest(now)
            case Phase.BODY if connection.pace is not None:
                connection.pace.wait(now)
        if connection.phase in _AWAITED:
            self._followed.add(connection)
        else:
            self._followed.discard(connection)

    def start(self) -> None:
        """Begin to look."""
        self._task = self._loop.create_task(self._look(), name="umbel-http-watch")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        pause = min(1.0, self._stall / 10)
        while True:
            await asyncio.sleep(pause)
            now = self._loop.time()
            for connection in [each for each in self._followed if not self._is_fine(each, now)]:
                self.closed += 1
                connection.abort()
            if self._new >= _CROWD and not self._followed:
                self._new = 0
                _buffers.trim()

    def _is_fine(self, connection: Connection, now: float) -> bool:
        if connection.phase is Phase.HEADER:
            return now - connection.since <= self._stall
        if connection.pace is None:  # most bodies and answers are over before anyone looks
            connection.pace = Pace(3 * self._stall, connection.since, self._moved(connection))
        return connection.pace.holds(now, self._moved(connection))

    def _moved(self, connection: Connection) -> int:
        if connection.phase is Phase.ANSWER:
            return bytes_taken(connection.transport)
        return connection.received
