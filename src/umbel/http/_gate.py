"""Where connections come in: counted by their address before anything is done for them, a TLS handshake included.

An event loop that accepts by itself shows a connection only when its handshake is over. Whoever begins handshakes and
does not end them would not be counted, and would have the memory of each.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from umbel.http._guard import Connection, Watch, reset

_BACKLOG: Final = 1024
_CROWD: Final = 64  # connections that are taken in before others may go on
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GOODBYE: Final = 1.0  # seconds for the end of a TLS connection
_PAUSE: Final = 1.0  # seconds until one more is tried when the system has no room for it


class Turns:
    """So many of each address at once; the others wait, in their order."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def one(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        turn, users = self._lines.get(address, (asyncio.Semaphore(self._most), 0))
        self._lines[address] = turn, users + 1
        try:
            async with turn:
                yield
        finally:
            turn, users = self._lines.pop(address)
            if users > 1:
                self._lines[address] = turn, users - 1


class Gate:
    """Takes connections in; ``make`` makes what speaks on one. ``port`` is where it listens."""

    def __init__(
        self,
        make: Callable[[], Connection],
        watch: Watch,
        context: ssl.SSLContext | None,
        *,
        stall: float,
        handshakes: int,
    ) -> None:
        self._make = make
        self._watch = watch
        self._context = context
        self._stall = stall
        self._turns = Turns(handshakes)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Listen; raises ``OSError`` if that cannot be."""
        loop = asyncio.get_running_loop()
        binding = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        try:
            self._sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in binding.sockets]
        finally:
            binding.close()
        self.port = self._sockets[0].getsockname()[1]
        for listening in self._sockets:
            listening.settimeout(0)
            listening.listen(_BACKLOG)
            self._begin(self._accept(listening))

    async def close(self) -> None:
        """Take nobody in any more, nor those who are about to come in."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for listening in self._sockets:
            listening.close()

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(step, name="umbel-http-gate")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(_CROWD):
                try:
                    came, peer = await loop.sock_accept(listening)
                except OSError as error:  # of one that is gone again, or there is no room
                    await asyncio.sleep(_PAUSE if error.errno in _FULL else 0)
                else:
                    self._enter(came, str(peer[0]))
            await asyncio.sleep(0)

    def _enter(self, came: socket.socket, address: str) -> None:
        if self._watch.enter(address):
            self._begin(self._welcome(came, address))
        else:
            reset(came)
            came.close()

    async def _welcome(self, came: socket.socket, address: str) -> None:
        """Have a connection speak, after its handshake; the wait for its turn is a part of the time it has for that."""
        connection, own = self._make(), True
        connection.address, connection.counted = address, True
        try:
            async with asyncio.timeout(self._stall), self._turns.one(address):
                own = False
                await self._connect(connection, came)
        except OSError:  # what ended the handshake, the end of its time too
            pass
        finally:
            if own:
                came.close()
            if not connection.made:
                self._watch.leave(connection)

    async def _connect(self, connection: Connection, came: socket.socket) -> None:
        loop, tls = asyncio.get_running_loop(), self._context is not None
        await loop.connect_accepted_socket(
            lambda: connection,
            came,
            ssl=self._context,
            ssl_handshake_timeout=self._stall if tls else None,
            ssl_shutdown_timeout=_GOODBYE if tls else None,
        )
