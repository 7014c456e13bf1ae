"""Requests that are no requests, or more than one, or more than fits: refused or closed, never a 5xx."""

import asyncio
import gzip
import re
import ssl

import pytest

from http_stand import POLL, digest_of, read_all, run, signed, talk, until
from umbel.http import Certificate, Settings, _json

ZIPPED = gzip.compress(b"{}" * 10)
POLL_BODY = _json.encode(POLL)
HOST = b"Host: stand\r\nConnection: close\r\n"
BLOB = digest_of(b"x")


def statuses(answer: bytes) -> list[int]:
    """The status of each response in what a connection gave back."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


REFUSED = {
    "two lengths": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    "chunks": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a bad chunk size": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a huge chunk size": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
    "an obscure transfer coding": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n{}",
    "a negative length": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n{}",
    "a length with a sign": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Length: +2\r\n\r\n{}",
    "a huge length": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}",
    "no version": b"GET /v1/server\r\n\r\n",
    "version 9": b"GET /v1/server HTTP/9.9\r\n" + HOST + b"\r\n",
    "no method": b"/v1/server HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character": b"GET /v1/ser\x00ver HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without name": b"GET /v1/server HTTP/1.1\r\n: x\r\n\r\n",
    "a space before the colon": b"GET /v1/server HTTP/1.1\r\nHost : stand\r\n\r\n",
    "a folded header": b"GET /v1/server HTTP/1.1\r\nHost: stand\r\nX: a\r\n b\r\nContent-Length : 5\r\n\r\n",
    "bare line feeds and a bad header": b"GET /v1/server HTTP/1.1\nX\n\n",
    "1 MB in one header": b"GET /v1/server HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 2**20 + b"\r\n\r\n",
    "10,000 headers": b"GET /v1/server HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(10_000)) + b"\r\n",
    "a path of 1 MB": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "garbage": bytes(range(256)) * 20,
    "a tunnel": b"CONNECT other:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a trace": b"TRACE /v1/server HTTP/1.1\r\n" + HOST + b"\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a whole address": b"GET http://other/v1/server HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with dots": b"GET /v1/../v1/server HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with percents": b"GET /v1/%73erver HTTP/1.1\r\n" + HOST + b"\r\n",
    "a query that is none": b"GET /v1/server?x=1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a body where there is none": b"GET /v1/server HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "gzip": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED)
    + ZIPPED,
    "a form": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}",
    "several parts": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n\r\n--x--",
    "JSON in UTF-16": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json; charset=utf-16\r\nContent-Length: 2\r\n\r\n{}",
    "no type": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "no length": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n\r\n",
    "a body beyond the limit": b"POST /v1/join HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nContent-Length: 65537\r\n\r\n"
    + b" " * 65_537,
    "no signature": b"GET /v1/blobs/" + BLOB.encode() + b" HTTP/1.1\r\n" + HOST + b"Umbel-Version: 1\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_or_closed(request_bytes):
    async def main(stand):
        answer = await talk(stand, request_bytes)
        assert all(400 <= status < 500 for status in statuses(answer)), answer[:300]
        assert answer.count(b"HTTP/1.1 200") == 0
        assert b"Traceback" not in answer
        assert b"aiohttp" not in answer
        async with stand.client() as client:
            await client.call("poll", POLL)

    run(main, Settings(port=0, stall=1.0))


def test_a_smuggled_request_is_not_answered():
    inner = b"GET /v1/openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    outer = b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    both = outer + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(inner)) + inner

    async def main(stand):
        answer = await talk(stand, both)
        assert statuses(answer) in ([400], [])

    run(main)


def test_a_web_socket_is_not_opened():
    asked = b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"

    async def main(stand):
        answer = await talk(stand, b"GET /v1/server HTTP/1.1\r\n" + HOST + asked + b"\x82\xff" + b"\xff" * 8)
        assert statuses(answer) in ([200], [400])
        assert b"Sec-WebSocket-Accept" not in answer

    run(main)


def test_whoever_has_said_all_has_an_answer():
    async def main(stand):
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        writer.write(signed(stand, "POST", "/v1/poll", POLL_BODY))
        writer.write_eof()
        answer = await read_all(reader)
        writer.close()
        assert statuses(answer) == [200]
        await until(lambda: stand.service.connections == 0)

    run(main, Settings(port=0, stall=60.0))


def test_whoever_goes_without_a_word_is_forgotten_at_once():
    async def main(stand):
        for said in (b"", b"GET /v1", signed(stand, "POST", "/v1/poll", POLL_BODY)[:-1]):
            _, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
            writer.write(said)
            await until(lambda: stand.service.connections == 1)
            writer.close()
            await until(lambda: stand.service.connections == 0)
        assert stand.calls == []

    run(main, Settings(port=0, stall=60.0))


def test_a_poll_ends_with_its_client():
    async def main(stand):
        ended = asyncio.Event()

        async def wait(_):
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        stand.handlers["poll"] = wait
        _, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        writer.write(signed(stand, "POST", "/v1/poll", POLL_BODY))
        await until(lambda: stand.calls)
        writer.close()
        await asyncio.wait_for(ended.wait(), 10)

    run(main, Settings(port=0, stall=60.0))


def test_pipelined_requests_are_answered_in_order():
    request = b"GET /v1/server HTTP/1.1\r\nHost: stand\r\n\r\n"
    last = b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n"

    async def main(stand):
        assert statuses(await talk(stand, request * 50 + last)) == [200] * 50 + [404]

    run(main)


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=0-0,1-1",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)),
        "bytes=5-2",
        "bytes=100-",
        "bytes=-0",
        "bytes=a-b",
        "lines=0-1",
        "bytes=99999999999999999999-",
        "bytes=0-99999999999999999999999",
    ],
)
def test_ranges_that_are_not_there(wanted):
    data = b"0123456789" * 10

    async def main(stand):
        stand.blobs[digest_of(data)] = data
        target = f"/v1/blobs/{digest_of(data)}"
        answer = await talk(stand, signed(stand, "GET", target, headers={"Range": wanted}, close=True))
        assert statuses(answer) == [416]
        assert stand.closed == 1

    run(main)


def test_plain_http_on_the_tls_port_is_closed(tmp_path):
    async def main(stand):
        answer = await talk(stand, b"GET /v1/server HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"HTTP" not in answer

    run(main, Settings(port=0, stall=2.0, certificate=Certificate.keep(tmp_path, ["127.0.0.1"])))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(tmp_path, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
    context.set_ciphers("ALL:@SECLEVEL=0")

    async def main(stand):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", stand.service.port, ssl=context)

    run(main, Settings(port=0, certificate=Certificate.keep(tmp_path, ["127.0.0.1"])))
