"""JSON that parsers differ about, numbers that are none, texts that are no text: a named refusal, never a guess."""

import pytest

from http_stand import run, signed, talk
from umbel.errors import HttpError
from umbel.http import _json
from umbel.http.wire import Answer, EventLine, Join, Poll

GOOD = b'{"secret":"AA==","key":"AA==","kind":"node","name":"n"}'
BAD = {
    "nothing": b"",
    "space": b" ",
    "cut": GOOD[:-1],
    "trailing garbage": GOOD + b"x",
    "two values": GOOD + GOOD,
    "a name twice": GOOD[:-1] + b',"name":"m"}',
    "a name twice, escaped": GOOD[:-1] + b',"n\\u0061me":"m"}',
    "an unknown name": GOOD[:-1] + b',"x":1}',
    "a list": b"[]",
    "null": b"null",
    "a wrong kind": GOOD.replace(b'"n"', b"1"),
    "no base64": GOOD.replace(b'"AA=="', b'"A!"'),
    "single quotes": GOOD.replace(b'"', b"'"),
    "a comment": b"/* */" + GOOD,
    "a trailing comma": GOOD[:-1] + b",}",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-be"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "overlong UTF-8": GOOD.replace(b'"n"', b'"\xc0\xaf"'),
    "cut UTF-8": GOOD.replace(b'"n"', b'"\xe2\x82"'),
    "a surrogate in UTF-8": GOOD.replace(b'"n"', b'"\xed\xa0\x80"'),
    "a lone surrogate, escaped": GOOD.replace(b'"n"', b'"\\ud800"'),
    "a bare control character": GOOD.replace(b'"n"', b'"\x01"'),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
}
NUMBERS = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "1e999": b"1e999",
    "5,000 digits": b"9" * 5000,
    "2^63": b"9223372036854775808",
    "-2^63 - 1": b"-9223372036854775809",
    "a leading zero": b"01",
    "a plus": b"+1",
    "hexadecimal": b"0x1",
    "a fraction": b"1.5",
    "a whole fraction": b"1.0",
    "an exponent": b"1e0",
    "true": b"true",
    "text": b'"1"',
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_is_refused(data):
    with pytest.raises(HttpError) as caught:
        _json.decode(data, Join)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_that_are_refused(number):
    with pytest.raises(HttpError):
        _json.decode(b'{"run":' + number + b',"message":1,"fence":1}', Answer)


def test_numbers_within_free_fields_are_judged_too():
    body = b'{"run":1,"message":1,"fence":1,"seconds":{"train":%s}}'
    assert _json.decode(body % b"1.5", Answer).seconds == {"train": 1.5}
    for number in (b"NaN", b"1e999", b"9" * 400):
        with pytest.raises(HttpError):
            _json.decode(body % number, Answer)


def test_nesting_in_free_fields_is_bounded():
    deep = b"[" * 40 + b"]" * 40
    with pytest.raises(HttpError, match="deep"):
        _json.decode(b'{"number":1,"kind":"x","fields":{"x":' + deep + b"}}", EventLine)
    brackets = b'"' + b"[{" * 100 + b'"'
    poll = b'{"instance":%s,"holding":[],"room":1,"app":"","types":[],"release":""}'
    assert _json.decode(poll % brackets, Poll).instance == "[{" * 100


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_the_server_refuses_it_by_name(data):
    async def main(stand):
        if len(data) > 65_536:
            return
        answer = await talk(stand, signed(stand, "POST", "/v1/join", data, close=True))
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code":"http"' in answer
        assert stand.calls == []

    run(main)


def test_what_it_refuses_costs_little():
    """The depth of a body is judged before it is parsed."""
    for data in (b"[" * 4_000_000, b'{"a":' * 800_000, b'"' + b"\\" * 4_000_000):
        with pytest.raises(HttpError):
            _json.decode(data, Answer)
