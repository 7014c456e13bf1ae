"""Requests that were seen, changed, or signed for something else: none is accepted twice, none for what it was not."""

import time

import pytest

from http_stand import POLL, digest_of, run, signed, talk
from umbel.http import _json
from umbel.http.wire import Answer, Rotate

BODY = _json.encode(Answer(run=1, message=2, fence=1))
OTHER = _json.encode(Answer(run=1, message=3, fence=1))


def outcome(answer: bytes) -> tuple[int, str]:
    """The status of an answer and the code of its error."""
    head, _, _ = answer.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return int(head.split(b" ")[1]), lines.get("Umbel-Error", "")


def test_the_same_request_is_accepted_once():
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY, close=True)
        assert outcome(await talk(stand, request)) == (200, "")
        for _ in range(3):
            assert outcome(await talk(stand, request)) == (401, "auth.replayed")
        assert len(stand.calls) == 1

    run(main)


def test_a_request_is_not_accepted_twice_at_the_same_time():
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY)
        last = signed(stand, "POST", "/v1/replies", BODY, close=True)
        answer = await talk(stand, request * 20 + last)
        assert answer.count(b"HTTP/1.1 200") == 2
        assert answer.count(b"auth.replayed") == 2 * 19
        assert len(stand.calls) == 2

    run(main)


WRONG = {
    "another method": ({"signed_method": "GET"}, "auth.signature"),
    "another path": ({"signed_target": "/v1/poll"}, "auth.signature"),
    "a query": ({"signed_target": "/v1/replies?after=1"}, "auth.signature"),
    "another body": ({"digest": digest_of(OTHER)}, "auth.signature"),
    "another audience": ({"audience": "A" * 22}, "auth.audience"),
    "another key": ({"key": 8}, "auth.signature"),
    "a time that has passed": ({"expires": int(time.time()) - 5}, "auth.expired"),
    "a time too far ahead": ({"expires": int(time.time()) + 3600}, "auth.expired"),
}


@pytest.mark.parametrize(("wrong", "code"), WRONG.values(), ids=WRONG.keys())
def test_a_signature_over_something_else_is_refused(wrong, code):
    async def main(stand):
        assert outcome(await talk(stand, signed(stand, "POST", "/v1/replies", BODY, close=True, **wrong))) == (
            401,
            code,
        )
        assert stand.calls == []

    run(main)


@pytest.mark.parametrize("sender", [8, 9])
def test_a_kind_that_may_not_is_refused(sender):
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY, member=sender, close=True)
        assert outcome(await talk(stand, request)) == (403, "auth.forbidden")
        assert stand.calls == []

    run(main)


def test_an_unknown_member_is_refused_as_one_that_was_revoked():
    async def main(stand):
        revoked = signed(stand, "POST", "/v1/replies", BODY, close=True)
        del stand.members[7]
        answers = [
            await talk(stand, revoked),
            await talk(stand, signed(stand, "POST", "/v1/replies", BODY, close=True, key=8)),
        ]
        assert [outcome(answer) for answer in answers] == [(401, "auth.member")] * 2

    run(main)


def test_the_body_of_another_request_does_not_fit():
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY, close=True)
        assert outcome(await talk(stand, request.replace(BODY, OTHER))) == (401, "auth.signature")

    run(main)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic YTpi",
        "Bearer x",
        "Umbel",
        "Umbel member=7",
        "umbel member=7,audience=" + "A" * 22,
        f"Umbel member=7,audience={'A' * 22},expires=1,nonce={'A' * 22},signature={'A' * 85}",
        f"Umbel member=-7,audience={'A' * 22},expires=1,nonce={'A' * 22},signature={'A' * 86}",
        f"Umbel member=\u0667,audience={'A' * 22},expires=1,nonce={'A' * 22},signature={'A' * 86}",
        f"Umbel member={'9' * 30},audience={'A' * 22},expires=1,nonce={'A' * 22},signature={'A' * 86}",
        f"Umbel member=7,audience={'A' * 22},expires=1,nonce={'A' * 22},signature={'A' * 86},x=1",
    ],
)
def test_a_header_in_another_form_is_refused(header):
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY, headers={"Authorization": header}, close=True)
        status, code = outcome(await talk(stand, request))
        assert (status, code) in ((401, "auth.signature"), (400, "http"))

    run(main)


def test_two_signatures_are_not_one():
    async def main(stand):
        request = signed(stand, "POST", "/v1/replies", BODY, close=True)
        line = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization"))
        status, _ = outcome(await talk(stand, request.replace(line, line + b"\r\n" + b"Authorization: Umbel member=9")))
        assert status in (200, 400, 401)
        assert all(call.member == 7 for call in stand.calls)

    run(main)


def test_nonces_are_forgotten_when_their_signatures_are_void():
    async def main(stand):
        async with stand.client() as client:
            for _ in range(20):
                await client.call("poll", POLL)
        nonces = stand.service._door._nonces
        assert len(nonces) == 20
        nonces._skew = -1  # no signature lives any longer
        later = stand.service._door.clock.now() + 120
        stand.service._door.clock.now = lambda: later
        nonces._sweep()
        assert len(nonces) == 0

    run(main)


def test_a_stolen_signature_does_not_rotate_a_key():
    async def main(stand):
        body = _json.encode(Rotate(key=bytes(32), proof=bytes(64)))
        request = signed(stand, "POST", "/v1/key", body, close=True, signed_target="/v1/replies")
        assert outcome(await talk(stand, request)) == (401, "auth.signature")
        assert stand.calls == []

    run(main)
