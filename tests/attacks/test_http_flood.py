"""Too much of everything: it is refused, memory stays flat, and members are served all the while."""

import asyncio
import ctypes
import gc
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from http_stand import KEYS, POLL, digest_of, read_all, run, signed, until
from umbel.http import Client, Limits, Settings

MIB = 2**20


def anonymous() -> int:
    """Bytes of memory of this process that no file stands behind, after what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


async def send(stand, data):
    """Send bytes, and take whatever comes back."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        reading = asyncio.create_task(read_all(reader))
        try:
            writer.write(data)
            with suppress(OSError):
                await writer.drain()
            await reading
        finally:
            reading.cancel()
            writer.transport.abort()


def test_a_flood_of_polls_is_refused_and_others_are_served():
    async def main(stand):
        flood = b"".join(signed(stand, "POST", "/v1/poll", b"{}") for _ in range(300))
        flood += signed(stand, "POST", "/v1/poll", b"{}", close=True)
        flooding = asyncio.gather(*(send(stand, flood[: len(flood) // 8]) for _ in range(8)))
        async with stand.client(8) as client:
            for _ in range(20):
                await client.stat_blob(digest_of(b""))
        flooding.cancel()
        with suppress(asyncio.CancelledError):
            await flooding
        assert len(stand.calls) < 100

    run(main, Settings(port=0, limits=Limits(member_rate=20.0, burst=2.0)))


@pytest.mark.slow
def test_what_is_pipelined_is_not_piled_up():
    """A client that sends requests and never reads an answer is not read from for long."""

    async def main(stand):
        before = anonymous()
        request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: s\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port, limit=1024)
        writer.transport.pause_reading()
        writer.write(request * 100_000)
        for _ in range(20):
            await asyncio.sleep(0.1)
            assert anonymous() - before < 40 * MIB
        writer.transport.abort()
        await read_all(reader)

    run(main, Settings(port=0, stall=1.0, limits=Limits(address_rate=1e6)))


def test_huge_bodies_of_nobody_are_not_read():
    async def main(stand):
        before = anonymous()
        head = (
            b"POST /v1/replies HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n"
        )
        await asyncio.gather(*(send(stand, head + b"x" * 200_000) for _ in range(50)))
        assert stand.calls == []
        assert anonymous() - before < 30 * MIB

    run(main, Settings(port=0))


def test_garbage_of_every_kind_leaves_nothing_behind():
    draw = random.Random(7)
    pieces = [
        b"GET /v1/server HTTP/1.1\r\n",
        b"POST /v1/join HTTP/1.1\r\n",
        b"Host: s\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"{}",
        b"ff\r\n",
        b"\x00\xff\x16\x03",
        b"Range: bytes=0-1,2-3\r\n",
        b"Authorization: Umbel member=7\r\n",
    ]

    async def main(stand):
        seen = []
        for _ in range(5):
            data = [b"".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(60)]
            await asyncio.gather(*(send(stand, each + b"Connection: close\r\n\r\n") for each in data))
            seen.append(anonymous())
        assert seen[-1] - seen[0] < 5 * MIB
        assert stand.service.connections == 0
        async with stand.client() as client:
            await client.call("poll", POLL)

    run(main, Settings(port=0, stall=0.3, limits=Limits(address_rate=1e6)), seconds=60)


SERVER = """
import asyncio, mmap, sys
sys.path[:0] = [{attacks!r}]
from http_stand import Stand
from umbel.errors import NotFound
from umbel.http import Certificate, Limits, Settings, Source, BlobState

class Nowhere:
    offset = 0
    async def append(self, pieces): pass
    async def finish(self): pass
    async def close(self): pass

async def main():
    stand = Stand()
    gate = asyncio.Event()
    with open({blob!r}, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    async def get(call): return Source(mapped, lambda: None)
    async def put(call): return Nowhere()
    async def stat(call): raise NotFound("not here")
    async def poll(call): await gate.wait()
    stand.handlers |= {{"get_blob": get, "put_blob": put, "stat_blob": stat, "poll": poll}}
    tls = Certificate.keep({folder!r}, ["127.0.0.1"])
    await stand.start(Settings(port=0, certificate=tls, limits=Limits(pending=5000, uploads=50, member_rate=1e6)))
    print(stand.service.port, tls.fingerprint, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path):
    """A server in a process of its own, with TLS; what its memory is can then be told from ours."""
    blob = tmp_path / "blob"
    with blob.open("wb") as file:
        for _ in range(4):
            file.write(os.urandom(32 * MIB))
    script = SERVER.format(attacks=str(Path(__file__).parent), blob=str(blob), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port, fingerprint = process.stdout.readline().split()
    yield process.pid, f"https://127.0.0.1:{port}", fingerprint, blob
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def memory_of(pid: int) -> int:
    """Anonymous memory of a process, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


@pytest.mark.slow
def test_a_thousand_idle_polls_take_64_kib_each(server):
    pid, url, fingerprint, _ = server
    count = 1000

    async def main():
        async with Client(url, KEYS[7], 7, fingerprint=fingerprint) as client:
            await client.hello()
            before = memory_of(pid)
            polls = [asyncio.create_task(client.call("poll", POLL)) for _ in range(count)]
            await until(lambda: _sockets_of(pid) > count, 120)
            bound = before + count * 64 * 1024
            await until(lambda: memory_of(pid) < bound, 30)
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)
            assert memory_of(pid) < bound

    asyncio.run(main())


def _sockets_of(pid: int) -> int:
    return sum(str(path.readlink()).startswith("socket:") for path in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.slow
def test_models_pass_through_in_little_memory(server, tmp_path):
    pid, url, fingerprint, blob = server
    data = blob.read_bytes()

    async def main():
        async with Client(url, KEYS[7], 7, fingerprint=fingerprint) as client:
            await client.hello()
            before, peak, ended = memory_of(pid), [0], []

            async def look():
                while not ended:
                    peak[0] = max(peak[0], memory_of(pid) - before)
                    await asyncio.sleep(0.02)

            looking = asyncio.create_task(look())
            await asyncio.gather(*(client.put_blob(digest_of(data), data) for _ in range(6)))
            await asyncio.gather(*(client.get_blob(digest_of(data), tmp_path / f"got{n}") for n in range(6)))
            ended.append(True)
            await looking
            assert peak[0] < 40 * MIB, f"{peak[0] / MIB:.1f} MiB"

    asyncio.run(main())
