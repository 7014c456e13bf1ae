"""JSON as the wire has it: one reading of any bytes, or a named error."""

import json
import re
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from umbel.errors import HttpError

DEPTH: Final = 32

_BRACKET: Final = re.compile(rb"[\[{\]}]")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_INT64: Final = 2**63
_DIGITS: Final = 20

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Return a body as JSON."""
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T], *, at: str = "body") -> T:
    """Read a body of type ``kind``.

    What parsers differ about is refused: a name twice, NaN, numbers of more than 64 bits, other encodings than UTF-8,
    bytes after the end, and nesting deeper than 32.

    Raises ``HttpError`` that says what was expected, and where in the body.
    """
    try:
        value = msgspec.json.decode(data, type=kind)  # first, since it gives up soonest
        _check_depth(data, at)
        if not _is_ours(data, value):
            _STRICT.decode(data.decode())
    except UnicodeDecodeError as error:
        raise HttpError(f"expected JSON in UTF-8, got {error.reason} at byte {error.start}", at=at) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise HttpError(f"expected JSON of {kind.__name__}, got something else: {error!s:.300}", at=at) from None
    return value


def _is_ours(data: bytes, value: object) -> bool:
    """Say whether a body is the very text that we would write: then there is one reading of it.

    That is so of all that our own clients send, and is quicker to see than that no name comes twice.
    """
    try:
        return msgspec.json.encode(value) == data
    except (ValueError, OverflowError, RecursionError):
        return False


def _check_depth(data: bytes, at: str) -> None:
    if data.count(b"[") + data.count(b"{") <= DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > DEPTH:
            raise HttpError(f"expected JSON nested at most {DEPTH} deep, got more", at=at)


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) != len(pairs):
        _refuse_twice([name for name, _ in pairs])


def _refuse_twice(names: list[str]) -> NoReturn:
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"the name {twice!r:.80} twice in one object")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS or not -_INT64 <= int(digits) < _INT64:
        raise ValueError(f"the integer {digits:.40}, of more than 64 bits")
    return 0


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=_integer)
