"""Quotas: what is over one is refused with a time to wait, and what is given back is there again."""

import asyncio

import pytest

from http_stand import POLL, digest_of, run, signed, talk, until
from umbel.errors import TooManyRequests
from umbel.http import Limits, Settings
from umbel.http._quota import Budget, Places, Rates


def test_a_bucket_fills_again():
    now = [0.0]
    rates = Rates(10.0, 2.0, lambda: now[0])
    for _ in range(20):
        rates.take("a", "member a")
    with pytest.raises(TooManyRequests) as caught:
        rates.take("a", "member a")
    assert 0.1 <= caught.value.retry_after < 0.5
    rates.take("b", "member b")
    now[0] = 0.5
    for _ in range(5):
        rates.take("a", "member a")
    with pytest.raises(TooManyRequests, match="10 requests a second"):
        rates.take("a", "member a")


def test_buckets_that_are_full_are_forgotten():
    now = [0.0]
    rates = Rates(10.0, 2.0, lambda: now[0])
    for key in range(10_000):
        rates.take(key, "")
    now[0] = 3.0
    rates.take("new", "")
    assert len(rates) == 1


def test_the_times_to_wait_differ():
    rates = Rates(1.0, 1.0, lambda: 0.0)
    rates.take("a", "")
    waits = set()
    for _ in range(20):
        with pytest.raises(TooManyRequests) as caught:
            rates.take("a", "")
        waits.add(caught.value.retry_after)
    assert len(waits) > 10


def test_places_are_given_back():
    places = Places(2, "uploads")
    with places.one("a", ""), places.one("a", ""):
        with pytest.raises(TooManyRequests, match="at most 2 uploads"):
            places.enter("a", "")
        with places.one("b", ""):
            assert len(places) == 3
    assert len(places) == 0
    with pytest.raises(ValueError, match="x"), places.one("a", ""):
        raise ValueError("x")
    assert len(places) == 0


def test_a_budget_is_given_back():
    budget = Budget(10)
    with budget.hold(6), budget.hold(4), pytest.raises(TooManyRequests):
        budget.hold(1).__enter__()
    with budget.hold(10):
        pass


def test_one_member_does_not_use_up_what_another_has():
    async def main(stand):
        requests = [signed(stand, "POST", "/v1/replies", b"{}") for _ in range(20)]
        busy = await talk(stand, b"".join(requests) + signed(stand, "POST", "/v1/replies", b"{}", close=True))
        assert busy.count(b" 429 ") > 0
        assert b"Retry-After: " in busy
        async with stand.client(8) as client:
            assert await client.stat_blob(digest_of(b"")) == (0, False)

    run(main, Settings(port=0, limits=Limits(member_rate=5.0, burst=1.0)))


def test_those_who_are_not_known_have_one_bucket_for_an_address():
    async def main(stand):
        request = b"GET /v1/server HTTP/1.1\r\nHost: s\r\n"
        answer = await talk(stand, (request + b"\r\n") * 15 + request + b"Connection: close\r\n\r\n")
        assert answer.count(b" 200 ") >= 10
        assert answer.count(b" 429 ") >= 1
        async with stand.client() as client:
            client._audience = stand.service.audience
            await client.call("poll", POLL)

    run(main, Settings(port=0, limits=Limits(address_rate=5.0, burst=2.0)))


def test_bad_signatures_are_counted_too():
    async def main(stand):
        wrong = [signed(stand, "POST", "/v1/replies", b"{}", key=8) for _ in range(15)]
        last = signed(stand, "POST", "/v1/replies", b"{}", key=8, close=True)
        answer = await talk(stand, b"".join(wrong) + last)
        assert answer.count(b" 401 ") >= 10
        assert answer.count(b" 429 ") >= 1

    run(main, Settings(port=0, limits=Limits(address_rate=5.0, burst=2.0)))


def test_an_address_has_so_many_connections():
    async def main(stand):
        opened = [await asyncio.open_connection("127.0.0.1", stand.service.port) for _ in range(20)]
        await until(lambda: stand.service.connections == 10)
        assert sum(await asyncio.gather(*(_is_closed(reader) for reader, _ in opened))) == 10
        for _, writer in opened:
            writer.transport.abort()
        await until(lambda: stand.service.connections == 0)
        async with stand.client() as client:
            await client.call("poll", POLL)

    run(main, Settings(port=0, limits=Limits(connections=10)))


async def _is_closed(reader):
    try:
        async with asyncio.timeout(0.3):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_member_has_so_many_requests_and_uploads_at_once():
    async def main(stand):
        gate = asyncio.Event()

        async def wait(call):
            await gate.wait()
            return await (stand._poll(call) if call.endpoint.name == "poll" else stand._put(call))

        stand.handlers |= {"poll": wait, "put_blob": wait}
        async with stand.client() as client:
            await client.hello()
            polls = [asyncio.create_task(client.call("poll", POLL)) for _ in range(4)]
            await until(lambda: len(stand.calls) == 4)
            refused = await talk(stand, signed(stand, "POST", "/v1/poll", b"{}", close=True))
            assert b" 429 " in refused
            gate.set()
            await asyncio.gather(*polls)
            gate.clear()
            uploads = [asyncio.create_task(client.put_blob(digest_of(bytes([n])), bytes([n]))) for n in range(2)]
            await until(lambda: [call.endpoint.name for call in stand.calls].count("put_blob") == 2)
            target = f"/v1/blobs/{digest_of(b'x')}?size=1"
            more = signed(stand, "PUT", target, b"x", headers=BYTES, digest=digest_of(b"x"), close=True)
            assert b"at most 2 uploads" in await talk(stand, more)
            gate.set()
            await asyncio.gather(*uploads)

    run(main, Settings(port=0, limits=Limits(pending=4, uploads=2)))


BYTES = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize(("full", "size", "other"), [("_small", 30_000, 70_000), ("_large", 70_000, 30_000)])
def test_bodies_that_are_being_read_have_a_budget_together(full, size, other):
    """Small bodies and large ones each have theirs: whoever fills one keeps nobody from the other."""

    def request(stand, size):
        return signed(stand, "POST", "/v1/replies", b"x" * size, close=True)

    async def main(stand):
        budget, whole = getattr(stand.service._site, full), 3 * size + 10_000
        slow = [(await asyncio.open_connection("127.0.0.1", stand.service.port))[1] for _ in range(3)]
        try:
            for writer in slow:
                writer.write(request(stand, size)[:-1])
            await until(lambda: budget._left == whole - 3 * size)
            assert b" 429 " in await talk(stand, request(stand, size))
            assert b" 429 " not in await talk(stand, request(stand, other))
        finally:
            for writer in slow:
                writer.transport.abort()
        await until(lambda: budget._left == whole)

    run(main, Settings(port=0, limits=Limits(buffered=3 * size + 10_000)))
