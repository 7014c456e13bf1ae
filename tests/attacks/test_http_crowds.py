"""Connections that begin a TLS handshake and do not end it: one address has so many, and no other is kept out."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, suppress

import pytest
import uvloop

from http_stand import POLL, run, until
from umbel.http import Certificate, Limits, Settings

CROWD, HONEST = "127.0.0.2", "127.0.0.1"
STALL = 30.0  # seconds: longer than a test takes, so that nothing here is closed for its slowness

pytestmark = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture
def certificate(tmp_path):
    return Certificate.keep(tmp_path, [HONEST])


def settings(certificate, stall=STALL, **limits):
    return Settings(port=0, stall=stall, certificate=certificate, limits=Limits(**limits))


def greeting():
    """The first bytes of a client, after which a server has the work of a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    said = ssl.MemoryBIO()
    begun = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=HONEST)
    with suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return said.read()


class Crowd:
    """Raw sockets from one address, each of which says the first words of a handshake and no more."""

    def __init__(self, stand, held):
        self._stand = stand
        self._held = held

    async def come(self, data=b"", address=CROWD):
        sock = self._held.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((address, 0))
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            await loop.sock_connect(sock, ("127.0.0.1", self._stand.service.port))
            await loop.sock_sendall(sock, data)
        return sock


async def ended(sock, seconds=15.0):
    """Whether a connection is closed by the server within some time."""
    try:
        async with asyncio.timeout(seconds):
            return not await asyncio.get_running_loop().sock_recv(sock, 1)
    except TimeoutError:
        return False
    except OSError:
        return True


async def poll(stand, certificate, times=10):
    async with stand.client(fingerprint=certificate.fingerprint) as client:
        for _ in range(times):
            await client.call("poll", POLL)


def test_an_address_has_so_many_connections_that_have_not_said_who_they_are(certificate, loop):
    async def main(stand):
        with ExitStack() as held:
            crowd = Crowd(stand, held)
            first = [await crowd.come(greeting()[:50]) for _ in range(20)]
            more = [await crowd.come(greeting()[:50]) for _ in range(500)]
            assert all([await ended(each) for each in more])
            await poll(stand, certificate)
            # Whoever goes makes room for another, whose handshake begins.
            first.pop().close()
            await until_taken(crowd)

    run(main, settings(certificate, connections=20), loop=loop)


async def until_taken(crowd):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(15):
        while True:
            sock = await crowd.come(greeting())
            with suppress(OSError):
                if await loop.sock_recv(sock, 1) == b"\x16":
                    return


def test_an_address_has_so_many_handshakes_at_once_and_the_others_wait(certificate, loop):
    async def main(stand):
        with ExitStack() as held:
            crowd = Crowd(stand, held)
            first = [await crowd.come(greeting()[:50]) for _ in range(4)]
            waiting = await crowd.come(greeting())
            other = await crowd.come(greeting(), HONEST)
            answer = asyncio.create_task(asyncio.get_running_loop().sock_recv(waiting, 1))
            assert await asyncio.get_running_loop().sock_recv(other, 1) == b"\x16"
            await poll(stand, certificate)
            assert not answer.done()
            first[2].close()
            assert await answer == b"\x16"

    run(main, settings(certificate, handshakes=4), loop=loop)


def test_whoever_waits_for_a_turn_has_no_more_time_for_it(certificate, loop):
    async def main(stand):
        with ExitStack() as held:
            crowd = Crowd(stand, held)
            many = [await crowd.come(greeting()) for _ in range(200)]
            for each in many:
                while not await ended(each):
                    pass
            assert stand.service.connections == 0
            assert not stand.service._watch._by_address
            await poll(stand, certificate)

    run(main, settings(certificate, 0.5, handshakes=2), loop=loop)


def test_five_hundred_of_them_keep_no_honest_client_out(certificate, loop):
    async def main(stand):
        with ExitStack() as held:
            crowd = Crowd(stand, held)
            for number in range(500):
                await crowd.come(greeting()[: number % 200])
            await poll(stand, certificate, 50)
            assert len(stand.calls) == 50
        await until(lambda: not stand.service._watch._by_address)

    run(main, settings(certificate), loop=loop)
