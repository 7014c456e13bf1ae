"""What a command asks of a server is interrupted."""

import asyncio
import contextlib
import signal
import socket

import pytest

from umbel.cli._remote import Remote
from umbel.cli._servers import About, new_identity, remember


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def remote(tmp_path, monkeypatch, listener):
    monkeypatch.setenv("UMBEL_CONFIG_DIR", str(tmp_path))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    new_identity(url)
    return Remote(remember(About(url, member=1)))


def test_a_second_interrupt_while_the_first_ends_the_call_is_an_interrupt_too(remote, listener):
    async def interrupted_twice():
        loop = asyncio.get_running_loop()
        asking = asyncio.ensure_future(remote._client.hello())
        peer, _ = await loop.sock_accept(listener)
        with peer:
            await loop.sock_recv(peer, 1_000)
            loop.call_soon(signal.raise_signal, signal.SIGINT)
            try:
                await asking
            finally:
                loop.call_soon(signal.raise_signal, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), contextlib.closing(remote):
        remote._keep_asking(None, interrupted_twice)
