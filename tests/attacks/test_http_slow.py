"""Clients that dawdle, in four forms: each is closed in time, and honest ones notice nothing."""

import asyncio
import ssl
import time
from contextlib import suppress

import pytest

from http_stand import POLL, digest_of, read_all, run, signed, until
from umbel.http import Certificate, Settings, Source

STALL = 0.5  # seconds; a body or an answer has three times as long
SLOW = Settings(port=0, stall=STALL)


async def closed_after(stand, send, *, limit: int = 65_536, tls: bool = False) -> float:
    """Connect, let ``send(writer)`` misbehave, and return after how many seconds the server has closed."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port, ssl=context, limit=limit)
    begun = time.monotonic()
    sending = asyncio.create_task(send(writer))
    try:
        async with asyncio.timeout(20 * STALL):
            await read_all(reader)
        return time.monotonic() - begun
    finally:
        sending.cancel()
        writer.transport.abort()
        with suppress(ConnectionError, asyncio.CancelledError):
            await sending


async def silence(writer):
    await asyncio.sleep(3600)


async def half_a_header(writer):
    writer.write(b"POST /v1/poll HTTP/1.1\r\nHost: stand\r\nX-Slow: ")
    await asyncio.sleep(3600)


async def a_header_that_drips(writer):
    writer.write(b"POST /v1/poll HTTP/1.1\r\nHost: stand\r\n")
    while True:
        await asyncio.sleep(STALL / 5)
        writer.write(b"X-Slow: 1\r\n")


async def a_handshake_that_drips(writer):
    writer.write(b"\x16\x03\x01\x02\x00")
    while True:
        await asyncio.sleep(STALL / 5)
        writer.write(b"\x01")


def a_body_that_drips(stand):
    body = b"x" * 10_000

    async def send(writer):
        request = signed(stand, "POST", "/v1/replies", body)
        writer.write(request[: -len(body)])
        for byte in body:
            writer.write(bytes([byte]))
            await asyncio.sleep(STALL / 5)

    return send


def a_blob_that_drips(stand):
    async def send(writer):
        target = f"/v1/blobs/{digest_of(b'x' * 10**6)}?size=1000000&offset=0"
        headers = {"Content-Length": "1000000", "Content-Type": "application/octet-stream"}
        writer.write(signed(stand, "PUT", target, headers=headers, digest=digest_of(b"x" * 10**6)))
        while True:
            writer.write(b"x")
            await asyncio.sleep(STALL / 5)

    return send


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("form", [silence, half_a_header, a_header_that_drips])
def test_a_header_has_its_deadline(form, tls, tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"]) if tls else None

    async def main(stand):
        assert STALL / 2 < await closed_after(stand, form, tls=tls) < 6 * STALL

    run(main, Settings(port=0, stall=STALL, certificate=certificate))


def test_a_handshake_has_its_deadline(tmp_path):
    async def main(stand):
        for form in (silence, a_handshake_that_drips):
            assert await closed_after(stand, form) < 6 * STALL

    run(main, Settings(port=0, stall=STALL, certificate=Certificate.keep(tmp_path, ["127.0.0.1"])))


@pytest.mark.parametrize("form", [a_body_that_drips, a_blob_that_drips])
def test_a_body_has_its_least_rate(form):
    async def main(stand):
        assert 2 * STALL < await closed_after(stand, form(stand)) < 9 * STALL
        assert stand.service.connections == 0

    stand = run(main, SLOW)
    assert all(len(part) < 100 for part in stand.parts.values())


def test_a_second_request_has_its_deadline_too():
    async def send(writer):
        writer.write(b"GET /v1/server HTTP/1.1\r\nHost: stand\r\n\r\nGET /v1/ser")
        await asyncio.sleep(STALL / 2)
        writer.write(b"v")
        await asyncio.sleep(3600)

    async def main(stand):
        assert await closed_after(stand, send) < 6 * STALL

    run(main, SLOW)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_reader_that_does_not_read_is_closed(tls, tmp_path):
    data = bytes(64 * 2**20)
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"]) if tls else None

    async def main(stand):
        stand.blobs[digest_of(data)] = data
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port, ssl=context, limit=1024)
        writer.write(signed(stand, "GET", f"/v1/blobs/{digest_of(data)}"))
        await reader.readexactly(1)
        writer.transport.pause_reading()
        await until(lambda: stand.service.connections == 0)
        assert stand.closed == 1
        writer.transport.abort()

    run(main, Settings(port=0, stall=STALL, certificate=certificate))


def test_whoever_is_slow_but_moves_is_not_closed(tmp_path):
    data = bytes(range(256)) * 80

    async def main(stand):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        target = f"/v1/blobs/{digest_of(data)}?size={len(data)}"
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
        writer.write(signed(stand, "PUT", target, headers=headers, digest=digest_of(data)))
        for begin in range(0, len(data), 512):
            writer.write(data[begin : begin + 512])
            await asyncio.sleep(0.1)
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        assert stand.blobs[digest_of(data)] == data

    run(main, SLOW)


def test_a_handler_may_take_its_time():
    async def main(stand):
        async def wait(call):
            await asyncio.sleep(5 * STALL)
            return await stand._poll(call)

        stand.handlers["poll"] = wait
        async with stand.client() as client:
            await client.call("poll", POLL)

    run(main, SLOW)


def test_a_disk_may_take_its_time(tmp_path):
    """The time in which the server itself does not read is not the client's."""
    data = bytes(range(256)) * 20_000

    async def main(stand):
        async def put(call):
            sink = await stand._put(call)
            append = sink.append

            async def slow(pieces):
                await asyncio.sleep(4 * STALL if sink.offset == 0 else 0)
                await append(pieces)

            sink.append = slow
            return sink

        stand.handlers["put_blob"] = put
        async with stand.client() as client:
            await client.put_blob(digest_of(data), data)

    assert run(main, SLOW).blobs == {digest_of(data): data}


def test_five_hundred_of_them_do_not_keep_honest_clients_out():
    async def main(stand):
        idle = [await asyncio.open_connection("127.0.0.1", stand.service.port) for _ in range(500)]
        for number, (_, writer) in enumerate(idle):
            if number % 2:
                writer.write(b"POST /v1/poll HTTP/1.1\r\nHost: s")
        async with stand.client() as client:
            for _ in range(50):
                await client.call("poll", POLL)
        await until(lambda: stand.service.connections <= 1)
        for _, writer in idle:
            writer.transport.abort()

    assert len(run(main, SLOW).calls) == 50


def test_a_source_is_closed_when_the_client_is_gone():
    data = bytes(32 * 2**20)
    closed = []

    async def main(stand):
        async def get(call):
            return Source(data, lambda: closed.append(call.member))

        stand.handlers["get_blob"] = get
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port, limit=1024)
        writer.write(signed(stand, "GET", f"/v1/blobs/{digest_of(data)}"))
        await reader.readexactly(1)
        writer.transport.abort()
        await until(lambda: closed)

    run(main, SLOW)
