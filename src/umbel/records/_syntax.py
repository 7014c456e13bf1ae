"""The syntax of META, checked and counted before an object is made of it.

A JSON parser makes objects first and leaves it to the caller to find that they are too many, too deep, or none that
were asked for. One regular expression a section does that without memory of its own.
"""

import re

from umbel.errors import BadHeader, LimitExceeded, RecordError, TooDeep
from umbel.records._layout import MAX_ARRAYS, MAX_DEPTH, MAX_RECORDS, MAX_VALUES, VERSION

_AT = '__metadata__["umbel"]'
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
# A name has 1,024 bytes at most; longer text need not be decoded to find that it is none.
_NAME = rb'"[^"\\\x00-\x1f]{0,4096}+(?:\\.[^"\\\x00-\x1f]{0,4096}+){0,1024}+"'
_SIZES = rb"\[(?:\d{1,20}(?:,\d{1,20}){0,31}+)?+\]"
# The longest float64 has 24 characters.
_SCALAR = rb'(?:-?\d[-+.\de]{0,23}+|%s|true|false|\{"(?:float|bytes)":%s\})'


def _several(item: bytes) -> bytes:
    return rb"\[(?:%s(?:,%s)*+)?+\]" % (item, item)


def _sections(name: bytes) -> tuple[tuple[bytes, re.Pattern[bytes] | None], ...]:
    """Return what each section begins with, and its pattern where a name is a ``name`` and no metric is longer."""
    array = rb"(?:%s|\[%s,%s,%s,%s\])" % (name, name, name, name, _SIZES)
    entries = [array]
    for text in (name, _STRING):
        scalar = _SCALAR % (text, text)
        entries.append(rb"\[%s,(?:%s|%s)\]" % (name, scalar, _several(scalar)))
    patterns = [re.compile(_several(rb"\[%s,%s\]" % (name, _several(entry)))) for entry in entries]
    return (*zip(_SIGNS, patterns, strict=True), (b"}", None))


_VERSION = re.compile(rb'\{"version":(\d{1,20})(?=[,}])')
_SIGNS = (b',"parameters":', b',"metrics":', b',"configs":')
_SECTIONS = _sections(_NAME)
# An unterminated string goes to the end, so that no place is looked at twice.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?+|[][{},]', re.DOTALL)
_QUOTE, _COMMA, _OPEN = b'",['
_STEPS = {_QUOTE: 0, _COMMA: 0, _OPEN: 1, b"{"[0]: 1, b"]"[0]: -1, b"}"[0]: -1}
#: How deep the list of a record and that of an opaque array, or of a name and its value, are in a section.
_RECORD, _ENTRY = 2, 4
#: How far a refusal looks for its reason.
_WINDOW = 2**16
#: So many entries of a header may have been missed when they were counted.
_UNSEEN = 32
#: So few commas that what stands between them needs no counting.
_FEW = 4096


def check_syntax(text: bytes, entries: int) -> None:
    """Check that ``text`` has the form of META, and names no more than the limits allow.

    Raises:
        BadHeader: if it has another form or version.
        TooDeep: if the reason is too deep a nesting.
        LimitExceeded: if there are too many records, arrays or values.

    """
    version = _VERSION.match(text)
    if version is None:
        raise malformed(text, 0, 0, "expected META, which begins with its version", _AT)
    if int(version[1]) != VERSION:
        raise BadHeader(f"expected version {VERSION}, got {int(version[1])}; a newer Umbel may read it", at=_AT)
    few = text.count(b",") <= _FEW + entries
    at = version.end()
    for sign, pattern in _SECTIONS:
        if not text.startswith(sign, at):
            raise malformed(text, at, 1, f"expected {sign.decode()} as the specification has it", _AT)
        start, at = at, at + len(sign)
        if pattern is not None:
            match = pattern.match(text, at)
            if match is None:
                raise _misformed(text, start, sign)
            at = match.end()
            if not few:
                _check_counts(text, match.start(), at, entries if sign == _SIGNS[0] else None)
    if at != len(text):
        raise malformed(text, at, 0, "expected the end of META", _AT)


def _misformed(text: bytes, place: int, sign: bytes) -> RecordError:
    # Made on first need: it finds the reason for a refusal, no more.
    pattern = dict(_sections(_STRING))[sign]
    if pattern is not None and pattern.match(text, place + len(sign)):
        return LimitExceeded(
            "expected names of at most 1024 bytes, and numbers as metrics; got text of more than 4096",
            at=f"{_AT} byte {place}",
        )
    return malformed(text, place, 1, f"expected {sign.decode()} as the specification has it", _AT)


def _check_counts(text: bytes, start: int, stop: int, entries: int | None) -> None:
    """Count what the brackets, strings and commas of a section stand for, no further than the limits.

    ``entries`` is the number of arrays that the header names, or None for a section of values.
    """
    depth = 0
    records, items = 0, 0
    arrays = entries is not None
    strings, commas = ((3,), ()) if arrays else ((), (4, 5))
    limit = MAX_ARRAYS if arrays else MAX_VALUES
    for token in _TOKEN.finditer(text, start, stop):
        sign = text[token.start()]
        if sign == _QUOTE:
            items += depth in strings
        elif sign == _COMMA:
            items += depth in commas
        else:
            depth += _STEPS[sign]
            records += sign == _OPEN and depth == _RECORD
            # An opaque array is a list where a name could stand.
            items += arrays and sign == _OPEN and depth == _ENTRY
        if items > limit or records > MAX_RECORDS:
            break
    check_count("records", records, MAX_RECORDS)
    check_count("arrays" if arrays else "values", items, limit)
    if entries is not None and items > entries + _UNSEEN:
        raise BadHeader(f"META names {items} arrays, but the header has entries for {entries} or little more", at=_AT)


def check_count(what: str, found: int, limit: int) -> None:
    """Raise LimitExceeded if there are more than ``limit``."""
    if found > limit:
        raise LimitExceeded(f"expected at most {limit} {what} in one container, got {found}")


def malformed(text: bytes | memoryview, place: int, depth: int, message: str, what: str) -> RecordError:
    """Return the error for JSON that is not canonical from byte ``place`` of ``what`` on, ``depth`` levels deep."""
    for token in _TOKEN.finditer(text, place, place + _WINDOW):
        depth += _STEPS[text[token.start()]]
        if depth > MAX_DEPTH:
            return TooDeep(f"expected JSON of at most {MAX_DEPTH} levels", at=f"{what} byte {token.start()}")
    found = bytes(text[place : place + 60])
    return BadHeader(f"{message}, got {found!r}", at=f"{what} byte {place}")
