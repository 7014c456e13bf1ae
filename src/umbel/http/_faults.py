"""Errors as answers, and answers as errors."""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from aiohttp import web

from umbel import errors
from umbel.errors import HttpError, ServerFailed, TooManyRequests, UmbelError
from umbel.http import _json
from umbel.http.wire import Fault

JSON: Final = "application/json"
HEADERS: Final = {"Server": "umbel", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _all(kind: type[UmbelError]) -> Iterator[type[UmbelError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all(child)


_BY_CODE: Final[Mapping[str, type[UmbelError]]] = {kind.code: kind for kind in _all(errors.UmbelError)}


def answer(error: UmbelError | None, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error as an answer; ``None`` is a fault of the server, of which nothing more is said."""
    shown = error or ServerFailed("the server met a fault; its log says which, the request may be sent again")
    wait = shown.retry_after if isinstance(shown, TooManyRequests) else None
    fault = Fault(code=shown.code, message=f"{shown.message:.2000}", at=f"{shown.at:.500}", retry_after=wait)
    more = {"Umbel-Error": shown.code, **HEADERS, **(headers or {})}
    if wait is not None:
        more["Retry-After"] = str(math.ceil(wait))
    return web.Response(status=shown.http_status, body=_json.encode(fault), content_type=JSON, headers=more)


def of_parser(message: str | None) -> str:
    """Return what the parser had to say, in one printable line."""
    line = " ".join((message or "").split())
    said = "".join(each for each in line if each.isprintable())
    return f"expected an HTTP/1.1 request, got something else: {said:.200}"


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> UmbelError:
    """Return the error that an answer tells of."""
    try:
        fault = _json.decode(body, Fault, at="answer")
    except HttpError:
        fault = Fault(code=headers.get("Umbel-Error", ""), message=f"the server answered {status}")
    kind = _BY_CODE.get(fault.code) or (ServerFailed if status >= 500 else HttpError)  # noqa: PLR2004
    error = kind(fault.message, at=fault.at)
    if isinstance(error, TooManyRequests):
        error.retry_after = _wait(fault.retry_after, headers)
    return error


def _wait(said: float | None, headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return said if said is not None else float(text) if text.isdecimal() else TooManyRequests.retry_after


def plain(value: msgspec.Struct) -> web.Response:
    """Return a body as an answer."""
    return web.Response(body=_json.encode(value), content_type=JSON, headers=HEADERS)
