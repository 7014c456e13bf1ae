"""The same server in another event loop, the one that is used when it is installed."""

import asyncio
import os

import pytest
import uvloop

from http_stand import KEYS, POLL, digest_of, read_all, run, signed, until
from proxy import Proxy
from umbel.errors import ServerUnreachable
from umbel.http import Certificate, Client, Settings

STALL = 0.5
DATA = os.urandom(12_000_000)
LOOP = uvloop.new_event_loop


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def settings(request, tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"]) if request.param else None
    return Settings(port=0, stall=STALL, certificate=certificate)


def fingerprint_of(settings):
    return settings.certificate.fingerprint if settings.certificate is not None else ""


def test_requests_and_blobs_pass(settings, tmp_path):
    async def main(stand):
        async with stand.client(fingerprint=fingerprint_of(settings)) as client:
            await client.call("poll", POLL)
            await client.put_blob(digest_of(DATA), DATA)
            await client.get_blob(digest_of(DATA), tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == DATA == stand.blobs[digest_of(DATA)]

    run(main, settings, loop=LOOP)


def test_an_upload_that_is_cut_goes_on(settings):
    async def main(stand):
        with Proxy(("127.0.0.1", stand.service.port)) as proxy:
            proxy.set(cut_up=6_000_000, cuts=1)
            url = stand.url.replace(str(stand.service.port), str(proxy.port))
            async with Client(url, KEYS[7], 7, fingerprint=fingerprint_of(settings)) as client:
                with pytest.raises(ServerUnreachable):
                    await client.put_blob(digest_of(DATA), DATA)
                await until(lambda: stand.closed == 1)
                assert stand.parts[digest_of(DATA)]
                await client.put_blob(digest_of(DATA), DATA)
        assert stand.blobs[digest_of(DATA)] == DATA

    run(main, settings, loop=LOOP)


@pytest.mark.parametrize("said", [b"", b"POST /v1/poll HTTP/1.1\r\nX: "])
def test_a_header_has_its_deadline(said):
    async def main(stand):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        writer.write(said)
        async with asyncio.timeout(20 * STALL):
            await read_all(reader)
        writer.close()

    run(main, Settings(port=0, stall=STALL), loop=LOOP)


def test_a_body_has_its_least_rate():
    async def main(stand):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        writer.write(signed(stand, "POST", "/v1/replies", b"x" * 10_000)[:-9_000])
        async with asyncio.timeout(20 * STALL):
            await read_all(reader)
        writer.close()

    run(main, Settings(port=0, stall=STALL), loop=LOOP)


def test_a_reader_that_does_not_read_is_closed(settings):
    data = bytes(64 * 2**20)

    async def main(stand):
        stand.blobs[digest_of(data)] = data
        async with stand.client(fingerprint=fingerprint_of(settings)) as client:
            await client.hello()
            gate = asyncio.Event()
            original = client._ask

            async def hold(asked, read):
                async def held(response):
                    await gate.wait()
                    return await read(response)

                return await original(asked, held)

            client._ask = hold
            fetching = asyncio.create_task(client.get_blob(digest_of(data), "/dev/null"))
            await until(lambda: stand.closed == 1)
            gate.set()
            with pytest.raises(ServerUnreachable):
                await fetching

    run(main, settings, loop=LOOP)
