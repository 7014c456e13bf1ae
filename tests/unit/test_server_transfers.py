"""Blobs on their way into a server: what is flushed, and what need not be sent again."""

import asyncio
import os
import socket
import ssl

import pytest
import uvloop

from http_stand import digest_of, run, signed, talk, until
from umbel.http import Call, Certificate, Member, Settings
from umbel.http._table import BY_NAME
from umbel.server._transfers import Transfers
from umbel.store import DirectoryBlobs, Uploads

DATA = bytes(range(256)) * 131_072  # 32 MiB
DIGEST = digest_of(DATA)
HALF = len(DATA) // 2
TARGET = f"/v1/blobs/{DIGEST}?size={len(DATA)}"
SMALL = b"some bytes"
BUFFER = 2 * 2**20  # what the server reads ahead, and a batch on its way to the disk
NODE, USER = Member(7, b"", "node"), Member(8, b"", "user")


@pytest.fixture
def blobs(tmp_path):
    return DirectoryBlobs(tmp_path / "blobs")


@pytest.fixture
def transfers(blobs, tmp_path):
    return Transfers(blobs, Uploads(tmp_path / "uploads", blobs))


@pytest.fixture
def flushed(monkeypatch):
    """The files that were flushed, by their numbers."""
    numbers, fsync = set(), os.fsync

    def note(descriptor):
        numbers.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return numbers


def call(name, sender, data=SMALL):
    return Call(BY_NAME[name], {"digest": digest_of(data), "size": len(data), "offset": 0}, None, sender, "")


async def upload(transfers, sender, data=SMALL):
    """Send a blob; return whether a byte of it was asked for."""
    sink = await transfers.put(call("put_blob", sender, data))
    if sink is None:
        return False
    try:
        await sink.append([data])
        await sink.finish()
    finally:
        await sink.close()
    return True


def number(blobs):
    (path,) = blobs.folder.glob("??/*")
    return path.stat().st_ino


@pytest.mark.parametrize("name", ["put_blob", "stat_blob"])
def test_a_user_hears_of_a_blob_once_it_is_on_the_disk_whoever_sent_it(transfers, blobs, flushed, name):
    async def main():
        assert await upload(transfers, NODE)
        answer = {"put_blob": transfers.put, "stat_blob": transfers.stat}[name]
        await answer(call(name, NODE))
        assert number(blobs) not in flushed
        await answer(call(name, USER))
        assert number(blobs) in flushed

    asyncio.run(main())


def test_a_user_whose_upload_ends_after_that_of_a_node_finds_it_on_the_disk(transfers, blobs, flushed):
    async def main():
        sink = await transfers.put(call("put_blob", USER))
        assert await upload(transfers, NODE)
        flushed.clear()
        await sink.append([SMALL])
        await sink.finish()
        await sink.close()
        assert number(blobs) in flushed

    asyncio.run(main())


def slowly(transfers):
    """Put blobs onto a disk that takes its time: a connection that is cut leaves much on its way."""

    async def put(call):
        sink = await transfers.put(call)
        append = sink.append

        async def slow(pieces):
            await asyncio.sleep(0.05)
            await append(pieces)

        sink.append = slow
        return sink

    return put


async def cut(stand):
    """Send half of a blob on a connection, as a process does that is killed then: the system still delivers it all."""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(DATA))}
    request = signed(stand, "PUT", TARGET, headers=headers, digest=DIGEST) + DATA[:HALF]

    def send():
        with socket.create_connection(("127.0.0.1", stand.service.port)) as sock:
            if stand.settings.certificate is None:
                sock.sendall(request)
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(sock) as secret:
                secret.sendall(request)

    await asyncio.to_thread(send)


@pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_a_cut_connection_has_left_on_its_way_is_not_sent_again(transfers, tmp_path, tls, loop):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"]) if tls else None

    async def main(stand):
        stand.handlers |= {"stat_blob": transfers.stat, "put_blob": slowly(transfers)}
        await cut(stand)
        async with stand.client(fingerprint=certificate.fingerprint if certificate else "") as client:
            await client.put_blob(DIGEST, DATA)
            assert client.bytes_sent <= len(DATA) - HALF + BUFFER
        assert stand.moved <= len(DATA) + BUFFER

    run(main, Settings(port=0, certificate=certificate), loop=loop)


def test_whoever_does_not_ask_is_told_where_the_cut_connection_has_ended(transfers):
    async def main(stand):
        stand.handlers |= {"stat_blob": transfers.stat, "put_blob": slowly(transfers)}
        await cut(stand)
        headers = {"Content-Type": "application/octet-stream"}
        answer = await talk(stand, signed(stand, "PUT", TARGET, headers=headers, digest=DIGEST, close=True))
        assert answer.startswith(b"HTTP/1.1 409")
        (line,) = [line for line in answer.split(b"\r\n") if line.startswith(b"Upload-Offset: ")]
        assert HALF - BUFFER <= int(line.partition(b" ")[2]) <= HALF

    run(main)


def test_a_connection_that_says_nothing_is_not_waited_for(transfers):
    async def main(stand):
        stand.handlers |= {"stat_blob": transfers.stat, "put_blob": transfers.put}
        _, writer = await asyncio.open_connection("127.0.0.1", stand.service.port)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(DATA))}
        writer.write(signed(stand, "PUT", TARGET, headers=headers, digest=DIGEST) + DATA[:1000])
        await until(lambda: stand.moved == 1000)
        async with stand.client() as client:
            await client.put_blob(DIGEST, DATA)
        assert not writer.transport.is_closing()
        writer.transport.abort()
        await until(lambda: not stand.service.connections)

    run(main)
