"""A TCP proxy that spoils what passes through it: late, cut, dripping, doubled, out of order, or not at all.

It runs in a thread of its own between a client and a server, knows nothing of HTTP, and draws everything from a seed.
Faults are set at any time and hold for what passes from then on. Every connection is counted, with its bytes.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Self

BUFFER = 64 * 1024


@dataclass(frozen=True)
class Faults:
    """What is done to each buffer; directions are seen from the client, ``up`` towards the server.

    ``latency`` and ``jitter`` in seconds a buffer; ``cut_up`` and ``cut_down`` break the connection, with a reset,
    after so many bytes; ``drip`` lets one byte pass every so many seconds; ``hold`` keeps everything back without
    closing anything, as a cable that was pulled does; ``refuse`` resets new connections; ``late_every`` holds every
    n-th connection back for ``late_by`` seconds, so that what was sent first arrives last.
    """

    latency: float = 0.0
    jitter: float = 0.0
    cut_up: int | None = None
    cut_down: int | None = None
    drip: float = 0.0
    hold: bool = False
    refuse: bool = False
    late_every: int = 0
    late_by: float = 0.0


@dataclass
class Passed:
    """One connection: how many bytes went each way, and, if recording, what the client sent."""

    up: int = 0
    down: int = 0
    cut: bool = False
    sent: bytearray = field(default_factory=bytearray)


class Proxy:
    """Listens on a port of its own and forwards to ``target``; a context manager."""

    def __init__(self, target: tuple[str, int], *, seed: int = 0, record: bool = False) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._record = record
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._cuts_left = 0
        self.faults = Faults()
        self.passed: list[Passed] = []
        self.port = 0

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise TimeoutError("the proxy did not start within 10 s")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def set(self, *, cuts: int = 1, **changes: object) -> None:
        """Change the faults; of those that cut, the next ``cuts`` connections that reach them are broken."""

        def change() -> None:
            self.faults = replace(self.faults, **changes)  # type: ignore[arg-type]
            self._cuts_left = cuts
            if self.faults.hold:
                self._open.clear()
            else:
                self._open.set()

        self._ask(change)

    def clear(self) -> None:
        """Let everything pass as it is."""
        self._ask(self._reset)

    def _reset(self) -> None:
        self.faults, self._cuts_left = Faults(), 0
        self._open.set()

    def _ask(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(act)
        if not done.wait(10):
            raise TimeoutError("the proxy did not answer within 10 s")

    def replay(self, number: int) -> bytes:
        """Send what connection ``number`` sent once more, on a connection of its own, and return the answer."""
        with socket.create_connection(self._target, timeout=10) as sock:
            sock.sendall(bytes(self.passed[number].sent))
            sock.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while piece := sock.recv(BUFFER):
                answer += piece
            return bytes(answer)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = Passed()
        self.passed.append(passed)
        faults = self.faults
        if faults.late_every and len(self.passed) % faults.late_every == 0:
            await asyncio.sleep(faults.late_by)
        try:
            if faults.refuse:
                raise ConnectionResetError
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        both = (
            self._pump(reader, back, self._counts_up(passed)),
            self._pump(there, writer, self._counts_down(passed)),
        )
        try:
            await asyncio.gather(*both)
        except (OSError, asyncio.CancelledError):  # cancelled when the proxy ends: its connections end with it
            passed.cut = True
            _reset(writer)
            _reset(back)
        finally:
            for end in (writer, back):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    def _counts_up(self, passed: Passed) -> Callable[[bytes], bool]:
        def count(data: bytes) -> bool:
            passed.up += len(data)
            if self._record:
                passed.sent += data
            return self._is_cut(self.faults.cut_up, passed.up)

        return count

    def _counts_down(self, passed: Passed) -> Callable[[bytes], bool]:
        def count(data: bytes) -> bool:
            passed.down += len(data)
            return self._is_cut(self.faults.cut_down, passed.down)

        return count

    def _is_cut(self, limit: int | None, passed: int) -> bool:
        if limit is None or passed < limit or self._cuts_left == 0:
            return False
        self._cuts_left -= 1
        return True

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[bytes], bool]
    ) -> None:
        while data := await reader.read(BUFFER):
            await self._open.wait()
            faults = self.faults
            if faults.latency or faults.jitter:
                await asyncio.sleep(faults.latency + self._random.random() * faults.jitter)
            if count(data):
                raise ConnectionResetError
            await self._write(writer, data, faults.drip)
        with suppress(OSError):
            writer.write_eof() if writer.can_write_eof() else writer.close()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, drip: float) -> None:
        pieces: list[bytes] = [data[i : i + 1] for i in range(len(data))] if drip else [data]
        for piece in pieces:
            writer.write(piece)
            wait: Awaitable[None] = writer.drain()
            await wait
            if drip:
                await asyncio.sleep(drip)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection as a firewall would: both ends see a reset, not an end."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
