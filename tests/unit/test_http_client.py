"""The client: what it learns, when it tries again, where it goes on."""

import asyncio
import os
import resource
import time

import pytest

from http_stand import KEYS, POLL, Stand, digest_of, run, until
from proxy import Proxy
from umbel.errors import (
    DigestMismatch,
    NotFound,
    ServerFailed,
    ServerUnreachable,
    SignatureExpired,
    TooManyRequests,
    UsageError,
    VersionMismatch,
    WrongAudience,
)
from umbel.http import BlobState, Client, Limits, Settings, backoff, keep_trying, wire
from umbel.http._signature import Clock

DATA = os.urandom(20_000_000)
DIGEST = digest_of(DATA)


def test_a_server_that_was_started_again_is_signed_for_again():
    async def main(stand):
        async with stand.client() as client:
            await client.call("poll", POLL)
            await stand.service.close()
            before = stand.service.audience
            await stand.start(Settings(port=stand.service.port))
            assert stand.service.audience != before
            await client.call("poll", POLL)
            assert len(stand.calls) == 2

    run(main)


def test_an_audience_that_stays_wrong_is_an_error():
    async def main(stand):
        async with stand.client() as client:
            await client.call("poll", POLL)
            client._learn = lambda _: None
            client._audience = "A" * 22
            with pytest.raises(WrongAudience):
                await client.call("poll", POLL)

    run(main)


@pytest.mark.parametrize("skew", [600, -600, 86_400, -86_400])
def test_a_clock_that_is_wrong_does_no_harm(skew):
    async def main(stand):
        async with stand.client() as client:
            client._clock = Clock(wall=lambda: time.time() + skew)
            await client.call("poll", POLL)
            assert abs(client.clock_offset + skew) < 5

    run(main)


def test_a_clock_that_jumps_is_read_again():
    async def main(stand):
        async with stand.client() as client:
            await client.call("poll", POLL)
            client._clock = Clock(wall=lambda: time.time() + 600)
            await client.call("poll", POLL)
            assert abs(client.clock_offset + 600) < 5

    run(main)


def test_an_error_of_the_clock_names_the_difference():
    async def main(stand):
        async with stand.client() as client:
            await client.hello()
            client._learn = lambda _: None
            client._clock = Clock(wall=lambda: time.time() - 600)
            with pytest.raises(SignatureExpired, match=r"expired (569|570) s ago"):
                await client.call("poll", POLL)

    run(main)


def test_a_server_of_other_versions_is_named():
    async def main(stand):
        async def hello(_):
            return wire.Hello(server="s", audience="A" * 22, versions=[7, 8], release="", time=0.0)

        stand.service._site._handlers["hello"] = hello
        async with stand.client() as client:
            with pytest.raises(VersionMismatch, match=r"\[7, 8\]: update this client"):
                await client.hello()

    run(main)


def test_a_busy_server_is_asked_again_when_it_says():
    async def main(stand):
        async with stand.client() as client:
            for _ in range(8):
                await client.call("poll", POLL)

    stand = run(main, Settings(port=0, limits=Limits(member_rate=10.0, burst=0.2)))
    assert len(stand.calls) == 8


def test_a_server_that_stays_busy_is_an_error():
    async def main(stand):
        async with stand.client() as client:
            await client.hello()
            with pytest.raises(TooManyRequests) as caught:
                await client.call("poll", POLL)
            assert caught.value.retry_after > 0

    async def refuse(_):
        error = TooManyRequests("expected fewer")
        error.retry_after = 0.01
        raise error

    async def whole(stand):
        stand.handlers["poll"] = refuse
        await main(stand)

    assert len(run(whole).calls) == 8


def test_nobody_there_is_named():
    async def main(stand):
        await stand.service.close()
        async with stand.client() as client:
            with pytest.raises(ServerUnreachable, match="check the address"):
                await client.hello()

    run(main)


def test_a_name_that_is_not_there_is_named():
    async def main():
        async with Client("https://no-such-host.invalid") as client:
            with pytest.raises(ServerUnreachable):
                await client.hello()

    asyncio.run(main())


def test_a_server_that_says_nothing_is_given_up():
    async def main(_):
        taken = []
        silent = await asyncio.start_server(lambda *ends: taken.append(ends), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", stall=0.1) as client:
            with pytest.raises(ServerUnreachable):
                await client.hello()
        silent.close()
        for _, writer in taken:
            writer.close()

    run(main)


def test_an_upload_that_nobody_takes_is_given_up():
    async def main(_):
        held = []

        async def hold(reader, writer):
            held.append(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HEAD"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nUmbel-Error: not-found\r\nContent-Length: 0\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(3600)

        silent = await asyncio.start_server(hold, "127.0.0.1", 0, limit=65_536)
        stand = Stand()
        async with Client(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", KEYS[7], 7, stall=0.2) as client:
            client._audience = "A" * 22
            with pytest.raises(ServerUnreachable):
                await client.put_blob(DIGEST, DATA)
            assert client.bytes_sent < len(DATA)
        silent.close()
        for writer in held:
            writer.transport.abort()
        assert stand.calls == []

    run(main)


def test_a_slow_upload_is_not_given_up():
    """It takes much longer than a connection may make no progress, and makes some all the while."""

    async def main(stand):
        async def put(call):
            sink = await stand._put(call)
            append = sink.append

            async def slow(pieces):
                await asyncio.sleep(0.05)
                await append(pieces)

            sink.append = slow
            return sink

        stand.handlers["put_blob"] = put
        begun = time.monotonic()
        async with stand.client(stall=0.3) as client:
            await client.put_blob(DIGEST, DATA)
        assert time.monotonic() - begun > 3 * 0.3
        assert stand.blobs[DIGEST] == DATA

    run(main)


def test_a_cut_upload_goes_on_where_it_was():
    async def main(stand):
        with Proxy(("127.0.0.1", stand.service.port)) as proxy:
            proxy.set(cut_up=8_000_000, cuts=1)
            async with Client(f"http://127.0.0.1:{proxy.port}", KEYS[7], 7) as client:
                with pytest.raises(ServerUnreachable):
                    await client.put_blob(DIGEST, DATA)
                await until(lambda: stand.closed == 1)
                have = len(stand.parts[DIGEST])
                assert 0 < have < len(DATA)
                await client.put_blob(DIGEST, DATA)
                assert client.bytes_sent == len(DATA) + client.bytes_resent
                assert client.bytes_resent < 8_000_000
        assert stand.blobs[DIGEST] == DATA

    run(main)


def test_a_cut_download_goes_on_where_it_was(tmp_path):
    path = tmp_path / "blob"

    async def main(stand):
        stand.blobs[DIGEST] = DATA
        with Proxy(("127.0.0.1", stand.service.port)) as proxy:
            proxy.set(cut_down=8_000_000, cuts=1)
            async with Client(f"http://127.0.0.1:{proxy.port}", KEYS[7], 7) as client:
                with pytest.raises(ServerUnreachable):
                    await client.get_blob(DIGEST, path)
                have = path.stat().st_size
                assert 0 < have < len(DATA)
                assert await client.get_blob(DIGEST, path) == len(DATA)
                assert client.bytes_received == len(DATA)
        assert path.read_bytes() == DATA

    run(main)


@pytest.mark.parametrize("there", [b"", DATA[:1000], DATA, DATA + b"x", b"\0" * 1000, b"\0" * len(DATA)])
def test_what_is_there_is_kept_if_it_is_right(tmp_path, there):
    path = tmp_path / "blob"
    path.write_bytes(there)

    async def main(stand):
        stand.blobs[DIGEST] = DATA
        async with stand.client() as client:
            assert await client.get_blob(DIGEST, path) == len(DATA)
        assert path.read_bytes() == DATA

    run(main)


def test_other_bytes_are_refused_and_forgotten(tmp_path):
    path = tmp_path / "blob"

    async def main(stand):
        stand.blobs[DIGEST] = DATA[:-1] + b"?"
        async with stand.client() as client:
            with pytest.raises(DigestMismatch):
                await client.get_blob(DIGEST, path)
        assert path.read_bytes() == b""

    run(main)


def test_a_disk_that_is_full_is_not_the_lines_fault(tmp_path):
    async def main(stand):
        stand.blobs[DIGEST] = DATA
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with stand.client() as client:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
            try:
                with pytest.raises(OSError, match="File too large"):
                    await client.get_blob(DIGEST, tmp_path / "blob")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (tmp_path / "blob").read_bytes() == DATA[:1_000_000]

    run(main)


def test_a_blob_that_is_not_there_is_named(tmp_path):
    async def main(stand):
        async with stand.client() as client:
            with pytest.raises(NotFound):
                await client.get_blob(DIGEST, tmp_path / "blob")
            assert await client.stat_blob(DIGEST) == (0, False)
            stand.blobs[DIGEST] = DATA
            assert await client.stat_blob(DIGEST) == (len(DATA), True)

    run(main)


def test_an_upload_that_was_overtaken_asks_again():
    async def main(stand):
        said = iter([BlobState(None, 5), BlobState(None, 1000)])

        async def stat(_):
            return next(said)

        stand.handlers["stat_blob"] = stat
        stand.parts[DIGEST] = bytearray(DATA[:1000])
        async with stand.client() as client:
            await client.put_blob(DIGEST, DATA)
        assert stand.blobs[DIGEST] == DATA

    run(main)


def test_without_an_identity_nothing_is_signed():
    async def main(stand):
        async with Client(stand.url) as client:
            with pytest.raises(UsageError, match="join the server first"):
                await client.call("poll", POLL)

    run(main)


def test_a_fault_of_the_server_says_nothing_of_the_inside():
    async def main(stand):
        async def fail(_):
            raise RuntimeError("a secret path")

        stand.handlers["poll"] = fail
        async with stand.client() as client:
            with pytest.raises(ServerFailed) as caught:
                await client.call("poll", POLL)
            assert "secret" not in str(caught.value)
        assert [str(fault) for fault in stand.faults] == ["a secret path"]
        stand.faults.clear()

    run(main)


def test_waits_begin_short_and_stay_under_two_seconds():
    for _ in range(100):
        waits = backoff()
        drawn = [next(waits) for _ in range(20)]
        assert 0 < drawn[0] <= 0.25
        assert all(0 < wait < 2.0 for wait in drawn)
    assert len({next(backoff()) for _ in range(20)}) > 1


def test_keep_trying_ends_when_the_server_is_back():
    async def main(stand):
        tried = []
        async with stand.client() as client:
            port = stand.service.port
            await stand.service.close()

            async def once():
                if len(tried) == 2:
                    await stand.start(Settings(port=port))
                return await client.hello()

            hello = await keep_trying(once, waiting=tried.append)
            assert hello.audience == stand.service.audience
        assert [type(error) for error in tried] == [ServerUnreachable] * 2

    run(main)
