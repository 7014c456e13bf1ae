"""A server: whom it answers, whom it forgets, how it ends; and blobs, byte by byte as the specification has them."""

import asyncio
import errno
import time

import pytest

from http_stand import POLL, Stand, digest_of, read_all, run, signed, talk, until
from umbel.errors import Conflict, ServerStopping, ServerUnreachable, StorageFull, UnknownMember, UsageError
from umbel.http import ENDPOINTS, Settings, Source, _json, serve
from umbel.http.wire import Join

BODY = _json.encode(POLL)
DATA = bytes(range(256)) * 4
BLOB = f"/v1/blobs/{digest_of(DATA)}"
BYTES = {"Content-Type": "application/octet-stream"}


def head(answer):
    """The status and the headers of an answer."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:])


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


async def put(stand, data, offset, size, **more):
    target = f"{BLOB}?size={size}&offset={offset}"
    request = signed(stand, "PUT", target, data, headers=BYTES | more, digest=digest_of(DATA), close=True)
    return await talk(stand, request)


async def ask(stand, method, headers=None):
    return await talk(stand, signed(stand, method, BLOB, headers=headers or {}, close=True))


def test_an_upload_in_parts_as_the_specification_walks_through_it():
    async def main(stand):
        assert head(await ask(stand, "HEAD"))[0] == 404
        status, headers = head(await put(stand, DATA[:600], 0, 1024))
        assert (status, headers["Upload-Offset"]) == (202, "600")
        status, headers = head(await ask(stand, "HEAD"))
        assert (status, headers["Upload-Offset"]) == (204, "600")
        status, headers = head(await put(stand, DATA[600:], 600, 1024))
        assert (status, headers["Upload-Offset"]) == (201, "1024")
        status, headers = head(await ask(stand, "HEAD"))
        assert (status, headers["Content-Length"], headers["Accept-Ranges"]) == (200, "1024", "bytes")
        status, headers = head(await put(stand, DATA, 0, 1024))
        assert (status, headers["Upload-Offset"]) == (200, "1024")
        assert stand.closed == 2

    run(main)


@pytest.mark.parametrize("offset", [0, 599, 601, 1024])
def test_another_offset_is_answered_with_the_right_one(offset):
    async def main(stand):
        await put(stand, DATA[:600], 0, 1024)
        status, headers = head(await put(stand, DATA[offset:], offset, 1024))
        assert (status, headers["Upload-Offset"], headers["Umbel-Error"]) == (409, "600", "conflict.offset")
        assert bytes(stand.parts[digest_of(DATA)]) == DATA[:600]

    run(main)


def test_more_bytes_than_the_blob_has_are_refused():
    async def main(stand):
        status, headers = head(await put(stand, DATA + b"x", 0, 1024))
        assert (status, headers["Umbel-Error"]) == (400, "http")
        assert stand.closed == 1
        assert stand.blobs == {}

    run(main)


def test_other_bytes_are_refused_at_the_end():
    async def main(stand):
        status, headers = head(await put(stand, DATA[::-1], 0, 1024))
        assert (status, headers["Umbel-Error"]) == (422, "record.digest-mismatch")
        assert stand.blobs == {}

    run(main)


def test_an_upload_of_no_bytes_ends_one_that_is_whole():
    async def main(stand):
        stand.parts[digest_of(DATA)] = bytearray(DATA)
        assert head(await put(stand, b"", 1024, 1024))[0] == 201
        assert stand.blobs == {digest_of(DATA): DATA}

    run(main)


def test_the_bytes_of_an_upload_that_is_cut_stay():
    async def main(stand):
        _, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        request = signed(stand, "PUT", f"{BLOB}?size=1024", DATA, headers=BYTES, digest=digest_of(DATA))
        writer.write(request[:-24])
        await until(lambda: stand.moved == 1000)
        writer.transport.abort()
        await until(lambda: stand.closed == 1)
        status, headers = head(await ask(stand, "HEAD"))
        assert (status, headers["Upload-Offset"]) == (204, "1000")

    run(main)


def test_whoever_waits_to_be_told_to_go_on_is_told():
    async def main(stand):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        expecting = BYTES | {"Expect": "100-continue"}
        request = signed(stand, "PUT", f"{BLOB}?size=1024", DATA, headers=expecting, digest=digest_of(DATA), close=True)
        writer.write(request[: -len(DATA)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(DATA)
        assert head(await read_all(reader))[0] == 201
        writer.close()

    run(main)


def test_whoever_waits_and_is_refused_is_told_at_once():
    async def main(stand):
        refused = await put(stand, b"", 5, 1024, Expect="100-continue")
        assert head(refused)[0] == 409

    run(main)


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-", 0, 1023),
        ("bytes=0-0", 0, 0),
        ("bytes=600-", 600, 1023),
        ("bytes=1023-", 1023, 1023),
        ("bytes=10-19", 10, 19),
        ("bytes=10-9999", 10, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-9999", 0, 1023),
    ],
)
def test_a_range_of_a_blob(wanted, first, last):
    async def main(stand):
        stand.blobs[digest_of(DATA)] = DATA
        answer = await ask(stand, "GET", {"Range": wanted})
        status, headers = head(answer)
        assert (status, headers["Content-Range"]) == (206, f"bytes {first}-{last}/1024")
        assert body(answer) == DATA[first : last + 1]
        assert headers["ETag"] == f'"{digest_of(DATA)}"'
        assert (stand.closed, stand.moved) == (1, last + 1 - first)

    run(main)


def test_a_whole_blob_and_an_empty_one():
    async def main(stand):
        stand.blobs = {digest_of(DATA): DATA, digest_of(b""): b""}
        answer = await ask(stand, "GET")
        assert (head(answer)[0], body(answer)) == (200, DATA)
        answer = await talk(stand, signed(stand, "GET", f"/v1/blobs/{digest_of(b'')}", close=True))
        assert (head(answer)[0], body(answer)) == (200, b"")
        async with stand.client() as client:
            await client.put_blob(digest_of(b""), b"")

    run(main)


def test_a_colon_may_be_written_as_a_percent():
    async def main(stand):
        stand.blobs[digest_of(DATA)] = DATA
        assert head(await talk(stand, signed(stand, "GET", BLOB.replace(":", "%3A"), close=True)))[0] == 200

    run(main)


def test_a_member_that_was_revoked_is_refused_within_five_seconds():
    async def main(stand):
        async with stand.client() as client:
            await client.call("poll", POLL)
            del stand.members[7]
            begun = time.monotonic()

            async def go_on():
                while True:
                    await client.call("poll", POLL)
                    await asyncio.sleep(0.1)

            with pytest.raises(UnknownMember):
                await go_on()
            assert time.monotonic() - begun < 5

    run(main)


def test_a_member_that_was_revoked_and_forgotten_is_refused_at_once_and_waits_no_more():
    async def main(stand):
        async def wait(_):
            await asyncio.sleep(3600)

        stand.handlers["poll"] = wait
        async with stand.client() as client, stand.client(8) as other:
            waiting = asyncio.create_task(client.call("poll", POLL))
            events = asyncio.create_task(other.call("run_events", run=1))
            stand.handlers["run_events"] = wait
            await until(lambda: len(stand.calls) == 2)
            del stand.members[7]
            stand.service.forget(7)
            with pytest.raises(ServerStopping):
                await waiting
            with pytest.raises(UnknownMember):
                await client.call("poll", POLL)
            assert not events.done()
            events.cancel()

    run(main)


def test_a_key_that_was_changed_is_known_at_once():
    async def main(stand):
        async with stand.client() as client, stand.client(8) as other:
            await client.call("poll", POLL)
            stand.members[7] = stand.members[7]._replace(key=other.identity.key)
            stand.service.forget(7)
            client.identity = other.identity
            await client.call("poll", POLL)

    run(main)


@pytest.mark.parametrize(
    ("said", "side"), [("2", "the server"), ("0", "the client"), ("", "the client"), ("x", "the client")]
)
def test_another_version_says_which_side_to_update(said, side):
    async def main(stand):
        answer = await talk(stand, signed(stand, "POST", "/v1/poll", BODY, headers={"Umbel-Version": said}, close=True))
        status, headers = head(answer)
        assert (status, headers["Umbel-Error"], headers["Upgrade"]) == (426, "http.version", "umbel/1")
        assert f"update {side}" in body(answer).decode()

    run(main)


def test_another_method_is_told_which_there_are():
    async def main(stand):
        answer = await talk(stand, b"DELETE " + BLOB.encode() + b" HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
        status, headers = head(answer)
        assert (status, headers["Allow"], headers["Umbel-Error"]) == (405, "GET, HEAD, PUT", "http.method")

    run(main)


def test_an_answer_to_head_names_its_error_though_it_has_no_body():
    async def main(stand):
        answer = await ask(stand, "HEAD")
        assert (head(answer)[1]["Umbel-Error"], body(answer)) == ("not-found", b"")

    run(main)


def test_figures_are_there_if_somebody_gives_them():
    async def main(stand):
        asked = b"GET /metrics HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
        assert head(await talk(stand, asked))[0] == 404

        async def metrics(_):
            return b"umbel_x 1\n"

        stand.service._site._handlers["metrics"] = metrics
        answer = await talk(stand, asked)
        assert (head(answer)[0], body(answer)) == (200, b"umbel_x 1\n")

    run(main)


def test_what_waits_is_told_when_the_server_ends():
    async def main(stand):
        async def wait(_):
            await asyncio.sleep(3600)

        stand.handlers["poll"] = wait
        async with stand.client() as client:
            waiting = asyncio.create_task(client.call("poll", POLL))
            await until(lambda: stand.calls)
            begun = time.monotonic()
            await stand.service.close()
            with pytest.raises(ServerStopping):
                await waiting
            assert time.monotonic() - begun < 2
            with pytest.raises(ServerUnreachable):
                await client.call("poll", POLL)
        await stand.start(Settings(port=0))

    run(main)


def test_an_upload_ends_in_order_when_the_server_ends(monkeypatch):
    monkeypatch.setattr("umbel.http._service._GRACE", 0.2)

    async def main(stand):
        order = []

        async def put_blob(call):
            sink = await stand._put(call)
            real = sink.append

            async def append(pieces):
                order.append("begun")
                await asyncio.sleep(1)
                await real(pieces)
                order.append("ended")

            async def close():
                order.append("closed")

            sink.append, sink.close = append, close
            return sink

        stand.handlers["put_blob"] = put_blob
        async with stand.client() as client:
            sending = asyncio.create_task(client.put_blob(digest_of(DATA), DATA))
            await until(lambda: order)
            await stand.service.close()
            with pytest.raises(ServerUnreachable):
                await sending
        await until(lambda: "closed" in order)
        assert order == ["begun", "ended", "closed"]
        await stand.start(Settings(port=0))

    run(main)


def test_a_full_disk_has_a_name():
    async def main(stand):
        async def fail(_):
            raise OSError(errno.ENOSPC, "No space left on device", "/a/secret/path")

        stand.handlers["poll"] = fail
        async with stand.client() as client:
            with pytest.raises(StorageFull) as caught:
                await client.call("poll", POLL)
            assert "secret" not in str(caught.value)
        assert [fault.errno for fault in stand.faults] == [errno.ENOSPC]
        stand.faults.clear()

    run(main)


def test_whoever_joins_may_say_its_version():
    async def main(stand):
        body = _json.encode(Join(secret=b"s", key=bytes(32), kind="node", name="n"))
        head_of = b"POST /v1/join HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Type: application/json\r\n"
        head_of += b"Content-Length: %d\r\n" % len(body)
        assert head(await talk(stand, head_of + b"\r\n" + body))[0] == 200
        assert head(await talk(stand, head_of + b"Umbel-Version: 9\r\n\r\n" + body))[0] == 426

    run(main)


def test_every_endpoint_has_a_handler_and_no_other_has():
    stand = Stand()
    names = [endpoint.name for endpoint in ENDPOINTS if endpoint.name not in ("hello", "openapi", "metrics")]

    async def start(handlers):
        await serve(dict.fromkeys(handlers, stand._handle), stand._lookup, Settings(port=0))

    for wrong in (names[1:], [*names, "other"], [*names, "hello"], []):
        with pytest.raises(UsageError, match="a handler for every endpoint"):
            asyncio.run(start(wrong))


def test_an_error_after_an_answer_has_begun_cuts_it():
    async def main(stand):
        def close():
            raise Conflict("too late to say")

        async def get(_):
            return Source(DATA, close)

        stand.handlers["get_blob"] = get
        answer = await ask(stand, "GET")
        assert answer.count(b"HTTP/1.1") <= 1

    run(main)
