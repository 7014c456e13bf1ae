#!/usr/bin/env python3
"""`loads` of any bytes ends in a value that `dumps` writes as the same bytes, or in a RecordError.

The first byte of an input says how much of a container is made around the rest: nothing, length and padding, or these
and the quoting of META, whose end is the first NUL. Mutations of naked containers seldom get past the length.

Every input begins with nothing read, and is then read again: what is remembered must change nothing.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["umbel"]):
    from umbel.errors import RecordError
    from umbel.records import _solid, _writer, dumps, loads

WORDS = Path(__file__).with_name("container.dict")


def container(data: bytes) -> bytes:
    """Return the container that an input stands for."""
    kind, rest = data[0] % 3, data[1:]
    if kind == 0:
        return rest
    header, _, payload = rest.partition(b"\0\0")
    if kind == 1:
        return with_length(header, payload)
    meta, _, entries = header.partition(b"\0")
    quoted = meta.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return with_length(b'{"__metadata__":{"umbel":"%b"}%b}' % (quoted, entries), payload)


def with_length(header: bytes, payload: bytes) -> bytes:
    """Return header and payload with the length and the padding that belong to them."""
    padded = header + b" " * (-(8 + len(header)) % 64)
    return len(padded).to_bytes(8, "little") + padded + payload


def one_input(data: bytes) -> None:
    """Hold one input against the promise."""
    if not data:
        return
    given = container(data)
    _solid._recent._layouts = ()
    try:
        records = loads(given)
    except RecordError as error:
        assert str(error).isprintable(), f"not for a terminal: {error!r}"
        return
    assert b"".join(_writer._composed(records)) == given, "read and written again, it is another container"
    for again in (records, loads(given)):
        assert b"".join(dumps(again)) == given, "read before, it is written as another container"
        assert b"".join(_writer._composed(again)) == given, "read before, it has other values"


if __name__ == "__main__":
    atheris.Setup([*sys.argv, f"-dict={WORDS}", "-max_len=4096"], one_input)
    atheris.Fuzz()
