"""Whatever comes in, a value or a named refusal comes out."""

import asyncio

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from http_stand import Stand, talk
from umbel.errors import BadRange, BadSignature, HttpError, MethodNotAllowed, NotFound, UmbelError, UsageError
from umbel.http import Identity, Limits, Settings, SignedRequest, Token, _json, read_signature, read_token, sign, verify
from umbel.http._blobs import span
from umbel.http._routing import route
from umbel.http.wire import Answer, EventLine, Events, Poll

TEXT = st.text(max_size=40).filter(lambda text: text.isascii() or text.encode(errors="ignore").decode() == text)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXT, parts, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=3))
def test_what_was_written_is_read_again(fields):
    events = Events(events=[EventLine(number=n, kind="k", fields=each) for n, each in enumerate(fields)], ended=True)
    assert _json.decode(_json.encode(events), Events) == events


def tried(kinds, call, *given, **named):
    """What a call returns, or the refusal that it raises."""
    try:
        return call(*given, **named)
    except kinds as error:
        return error


@given(st.binary(max_size=300))
def test_any_bytes_are_a_body_or_a_refusal(data):
    for kind in (Answer, Poll, Events):
        value = tried(HttpError, _json.decode, data, kind)
        if isinstance(value, HttpError):
            assert len(str(value)) < 700
        else:
            assert msgspec.json.decode(data, type=kind) == value


@given(JSON)
def test_any_json_is_a_body_or_a_refusal(value):
    assert isinstance(tried(HttpError, _json.decode, msgspec.json.encode(value), Answer), HttpError | Answer)


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=32, max_size=32) | st.just(b""))
def test_a_token_is_read_as_it_was_written(secret, fingerprint):
    token = Token(secret, fingerprint.hex())
    assert read_token(str(token)) == token


@given(st.text(max_size=120))
def test_any_text_is_a_token_or_a_refusal(text):
    token = tried(UsageError, read_token, text)
    assert isinstance(token, UsageError) or str(token) == text


@given(st.text(max_size=200))
def test_any_header_is_a_signature_or_a_refusal(text):
    assert len(str(tried(BadSignature, read_signature, text))) < 400


REQUESTS = st.builds(
    SignedRequest,
    st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50),
    st.binary(min_size=32, max_size=32).map(lambda data: f"blake3:{data.hex()}"),
)


@given(REQUESTS, REQUESTS, st.integers(0, 10**17), st.integers(1, 10**11))
def test_a_signature_is_good_for_what_was_signed_alone(request, other, member, expires):
    me = Identity(bytes(32))
    said = read_signature(sign(me, request, audience="A" * 22, member=member, expires=expires))
    assert (said.member, said.expires) == (member, expires)
    verify(said, request, key=me.key)
    assert (tried(BadSignature, verify, said, other, key=me.key) is None) == (request == other)


@given(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "x"]), st.text(max_size=100))
def test_any_target_is_an_endpoint_or_a_refusal(method, target):
    for path in (target, f"/v1/{target}", f"/v1/runs/{target}", f"/v1/blobs/{target}"):
        found = tried((NotFound, MethodNotAllowed, HttpError), route, method, path)
        if isinstance(found, UmbelError):
            assert found.http_status in (400, 404, 405)
        else:
            assert all(value >= 0 for value in found.params.values() if isinstance(value, int))


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**40))
def test_a_range_lies_within_the_blob(first, last, size):
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        found = tried(BadRange, span, header, size, at="blob")
        if not isinstance(found, BadRange):
            begin, end = found
            assert 0 <= begin < end <= size


LINES = st.lists(
    st.sampled_from(
        [
            b"GET /v1/server HTTP/1.1",
            b"POST /v1/join HTTP/1.1",
            b"Host: s",
            b"Content-Length: 2",
            b"Content-Length: 7",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Connection: Upgrade",
            b"Upgrade: h2c",
            b"Expect: 100-continue",
            b"Content-Type: application/json",
            b"",
            b"{}",
            b"2",
            b"0",
            b"\xff\x00",
        ]
    )
    | st.binary(max_size=20),
    max_size=12,
)


@given(st.lists(LINES, min_size=1, max_size=8))
@settings(max_examples=60)
def test_no_request_is_answered_by_a_fault(requests):
    async def main():
        stand = Stand()
        await stand.start(Settings(port=0, stall=0.05, limits=Limits(address_rate=1e6)))
        try:
            end = b"\r\nConnection: close\r\n\r\n"
            answers = await asyncio.gather(*(talk(stand, b"\r\n".join(lines) + end) for lines in requests))
        finally:
            await stand.service.close()
        assert stand.faults == []
        assert not any(b"HTTP/1.1 5" in answer or b"HTTP/1.0 5" in answer for answer in answers)

    asyncio.run(main())
