"""Containers made by hand, byte for byte as somebody else would write them, and the terms on which they are refused."""

import sys
import tracemalloc
from collections.abc import Callable

import pytest

from umbel.errors import UmbelError
from umbel.records import _stypes

ONE_ARRAY = '{"version":1,"parameters":[["model",["w"]]],"metrics":[],"configs":[]}'
W = '"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'


def meta(parameters: str = "[]", metrics: str = "[]", configs: str = "[]") -> str:
    return f'{{"version":1,"parameters":{parameters},"metrics":{metrics},"configs":{configs}}}'


def quoted(text: str) -> str:
    """Return META as it stands in the header."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def header(said: str, *entries: str) -> bytes:
    """Return a header that names ``said`` as META and then the entries."""
    members = "".join("," + entry for entry in entries)
    return f'{{"__metadata__":{{"umbel":{quoted(said)}}}{members}}}'.encode("utf-8", "surrogatepass")


def framed(text: bytes, payload: bytes = b"") -> bytes:
    """Return a container with the header ``text``, its length and padding as they should be."""
    padded = text + b" " * (-(8 + len(text)) % 64)
    return len(padded).to_bytes(8, "little") + padded + payload


def container(said: str, *entries: str, payload: bytes = b"") -> bytes:
    return framed(header(said, *entries), payload)


def model(entry: str, payload: bytes = bytes(24)) -> bytes:
    """Return a container of one array "w" with an entry of one's own."""
    return container(ONE_ARRAY, entry, payload=payload)


def entry(name: str, dtype: str = "U8", shape: str = "0", start: int = 0, stop: int = 0) -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{stop}]}}'


def refuse(error: type[UmbelError], act: Callable[[], object], length: int) -> UmbelError:
    """Check that ``act`` ends in exactly this error, without effect, in the memory that ``length`` bytes may cost."""
    modules, codecs = set(sys.modules), dict(_stypes._CODECS)
    tracemalloc.start()
    try:
        with pytest.raises(UmbelError) as caught:
            act()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.type is error, f"expected {error.__name__}, got {caught.value!r}"
    assert peak <= 2 * length + 2**20, f"{length} bytes cost {peak}"
    assert set(sys.modules) <= modules
    assert codecs == _stypes._CODECS
    legible(caught.value)
    return caught.value


def legible(error: UmbelError) -> None:
    """Check that an error can be shown on a terminal, whatever the data held."""
    for text in (str(error), repr(error)):
        assert text.isprintable(), ascii(text)
        assert len(text) < 2000, f"{len(text)} characters"
