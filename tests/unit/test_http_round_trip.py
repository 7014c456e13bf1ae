"""A real server and a real client on a real socket."""

import pytest

from http_stand import POLL, digest_of, run
from umbel.errors import Fenced
from umbel.http.wire import Answer, Polled


def test_hello_says_who_the_server_is():
    async def main(stand):
        async with stand.client() as client:
            hello = await client.hello()
            assert (hello.server, hello.versions) == ("stand", [1])
            assert abs(client.clock_offset) < 5

    run(main)


def test_a_signed_call_reaches_its_handler():
    async def main(stand):
        async with stand.client() as client:
            assert await client.call("poll", POLL) == Polled(tasks=[], cancelled=[])
            (call,) = stand.calls
            assert (call.member, call.kind, call.body, call.endpoint.name) == (7, "node", POLL, "poll")

    run(main)


def test_errors_cross_by_name():
    async def main(stand):
        async def refuse(call):
            raise Fenced("expected fence 2, got 1", at="message 5")

        stand.handlers["reply"] = refuse
        async with stand.client() as client:
            with pytest.raises(Fenced) as caught:
                await client.call("reply", Answer(run=1, message=5, fence=1))
            assert (caught.value.message, caught.value.at) == ("expected fence 2, got 1", "message 5")

    run(main)


def test_a_blob_goes_up_and_comes_down(tmp_path):
    data = bytes(range(256)) * 10_000

    async def main(stand):
        async with stand.client() as client:
            moved = []
            await client.put_blob(digest_of(data), data, progress=moved.append)
            assert sum(moved) == len(data) == client.bytes_sent
            assert stand.blobs == {digest_of(data): data}
            assert await client.get_blob(digest_of(data), tmp_path / "blob") == len(data)
            assert (tmp_path / "blob").read_bytes() == data
            await client.put_blob(digest_of(data), data)
            assert client.bytes_sent == len(data)

    run(main)
