"""Malformed safetensors files from elsewhere: each ends in a named error, before much memory is spent."""

import json
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import (
    BadDtype,
    BadHeader,
    BadLength,
    BadName,
    BadOffsets,
    BadShape,
    DuplicateName,
    HeaderTooLarge,
    LimitExceeded,
    RecordError,
    TooDeep,
    TrailingBytes,
    Truncated,
)
from umbel.interop.safetensors import dumps, loads
from umbel.records import ParametersRecord

MIB = 2**20


def file_of(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def text_of(dtype='"F32"', shape="[1]", offsets="[0,4]", name='"a"'):
    return f'{{{name}:{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'.encode()


VALID = b"".join(dumps(ParametersRecord.from_numpy({"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones(2)})))


@pytest.mark.parametrize("length", range(len(VALID)))
def test_a1_a_file_cut_at_any_byte(length):
    with pytest.raises(Truncated):
        loads(VALID[:length])


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ((2**64 - 1).to_bytes(8, "little"), HeaderTooLarge),
        ((16 * MIB + 1).to_bytes(8, "little") + b"{}", HeaderTooLarge),
        ((3).to_bytes(8, "little") + b"{}", Truncated),
        ((0).to_bytes(8, "little") + b"{}", BadLength),
        ((1).to_bytes(8, "little") + b"{}", BadLength),
        ((int.from_bytes(VALID[:8], "little") - 64).to_bytes(8, "little") + VALID[8:], BadHeader),
    ],
    ids=["huge", "over the cap", "over the file", "zero", "one", "into the data"],
)
def test_a2_a_header_length_that_lies(file, error):
    with pytest.raises(error):
        loads(file)


def many(count):
    entries = ",".join(f'"{place}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for place in range(count))
    return file_of(f"{{{entries}}}".encode())


def test_a3_too_many_tensors():
    with pytest.raises(LimitExceeded, match="65536"):
        loads(many(65_537))


def test_a3_a_name_too_long():
    with pytest.raises(LimitExceeded, match="1024"):
        loads(file_of({"a" * 1025: tensor()}, bytes(4)))


@pytest.mark.parametrize("nest", [b"[", b'{"a":'])
def test_a4_nesting(nest):
    with pytest.raises(TooDeep):
        loads(file_of(b'{"a":' + nest * 100_000))
    with pytest.raises(TooDeep):
        loads(file_of(b'{"a":{"dtype":"F32","shape":' + nest * 100_000 + b"}}"))


@pytest.mark.parametrize(
    "header",
    [
        text_of()[:-1] + b"," + text_of()[1:],
        text_of()[:-1] + b"," + text_of(name='"\\u0061"')[1:],
        b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{},"__metadata__":{}}',
        b'{"__metadata__":{"a":"b","a":"b"}}',
    ],
    ids=["name", "escaped name", "key", "metadata", "metadata key"],
)
def test_a5_duplicates(header):
    with pytest.raises(DuplicateName):
        loads(file_of(header, bytes(4)))


@pytest.mark.parametrize(
    "offsets",
    ["[0,8]", "[1,5]", "[4,0]", "[-4,0]", "[0,4.0]", "[0,4e0]", "[0,true]", "[0]", "[0,4,4]", "[04,8]", '"0,4"', "4"],
)
def test_a7_offsets_that_are_no_span_of_the_tensor(offsets):
    with pytest.raises(BadOffsets):
        loads(file_of(text_of(offsets=offsets), bytes(8)))


def test_a7_offsets_beyond_any_file():
    with pytest.raises(BadOffsets):
        loads(file_of({"a": tensor(offsets=(2**53, 2**53 + 4))}, bytes(4)))


@pytest.mark.parametrize("second", [(0, 4), (2, 6), (5, 9), (8, 12)], ids=["same", "overlap", "gap", "hole"])
def test_a7_tensors_that_do_not_follow_one_another(second):
    with pytest.raises(BadOffsets):
        loads(file_of({"a": tensor(), "b": tensor(offsets=second)}, bytes(12)))


@pytest.mark.parametrize("tail", [b"\0", b"PK\3\4", b"%PDF-1.7"])
def test_a8_trailing_bytes(tail):
    with pytest.raises(TrailingBytes):
        loads(VALID + tail)


@pytest.mark.parametrize(
    "header",
    [b" {}", b"\xef\xbb\xbf{}", b"{} x", b"{}{}", b"{}\n", b"{,}", b'{"a":1}', b"[]", b"{}\0", text_of() + b"\n"],
)
def test_a8_a_header_with_something_around_it(header):
    with pytest.raises(BadHeader):
        loads(file_of(header, bytes(4)))


@pytest.mark.parametrize(
    "shape",
    [
        *("[-1]", "[9223372036854775808]", "[4294967296,4294967296]", "[0,9223372036854775807,9223372036854775807]"),
        *("[true]", "[1.0]", "[01]", "[1,]", "[,1]", "1", "null", '"1"'),
        *(f"[{','.join('1' * rank)}]" for rank in (33, 99)),
    ],
)
def test_a9_shapes(shape):
    with pytest.raises(BadShape):
        loads(file_of(text_of(shape=shape), bytes(4)))


@pytest.mark.parametrize(
    "dtype",
    ["O", "V4", "float32", "<f4", ">f4", "f32", "F4", "C128", "STR", "", "F32 ", "F\\u003332", None, 3, True],
)
def test_a10_dtypes(dtype):
    text = json.dumps(dtype) if dtype != "F\\u003332" else f'"{dtype}"'
    with pytest.raises(BadDtype):
        loads(file_of(text_of(dtype=text), bytes(4)))


def test_a11_a_size_that_shape_and_dtype_do_not_give():
    with pytest.raises(BadOffsets, match="a"):
        loads(file_of({"a": tensor(shape=(1000,))}, bytes(4)))


def test_a12_a_declared_size_costs_nothing():
    tracemalloc.start()
    with pytest.raises(Truncated):
        loads(file_of({"a": tensor("U8", (10**12,), (0, 10**12))}, bytes(16)))
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    ['"a\\u0000b"', '"a\\nb"', '"\\u001b[31m"', '"\\u0065\\u0301"', '"\\u0085"'],
    ids=["nul", "newline", "escape", "nfd", "c1"],
)
def test_a16_names_that_are_refused(name):
    with pytest.raises(BadName):
        loads(file_of(text_of(name=name), bytes(4)))


@pytest.mark.parametrize("name", ['"\\ud800"', '"\xff"', '"\\x41"', '"a', '"a\nb"'], ids=ascii)
def test_a16_names_that_are_no_text(name):
    header = text_of(name=name).replace("ÿ".encode(), b"\xff")
    with pytest.raises(BadHeader):
        loads(file_of(header, bytes(4)))


@pytest.mark.parametrize("name", ["", ".", "../../etc/passwd", "/abs", "C:\\x", "con", "'; DROP TABLE"])
def test_a16_names_are_data(name):
    assert list(loads(file_of({name: tensor()}, bytes(4)))) == [name]


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],}}',
        b'{"a":{}}',
        b'{"__metadata__":{"a":1}}',
        b'{"__metadata__":["a"]}',
        b'{"__metadata__":{"a":"\\ud800"}}',
        b"{'a':{}}",
        text_of().decode().encode("utf-16"),
    ],
)
def test_a18_headers_that_say_something_else(header):
    with pytest.raises(BadHeader):
        loads(file_of(header, bytes(4)))


@pytest.mark.parametrize(
    "file",
    [
        many(20_000)[:-1] + b"]",
        many(65_537),
        file_of(many(20_000)[8:-1] + b',"0":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        file_of(many(20_000)[8:-1] + b',"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'),
        file_of(b'{"' + b"a" * MIB),
        file_of(b'{"a":' + b"{" * MIB),
        file_of(b'{"__metadata__":{' + b'"a":"b",' * 100_000 + b"}}"),
        file_of(text_of(shape=f"[{'1,' * 2 * MIB}1]"), bytes(4)),
    ],
    ids=["bad end", "too many", "duplicate", "bad offsets", "long name", "deep", "metadata", "rank"],
)
def test_a_refusal_needs_at_most_twice_the_length_and_a_mebibyte(file):
    view = memoryview(file)
    tracemalloc.start()
    with pytest.raises(RecordError):
        loads(view)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * len(file) + MIB


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255), st.sampled_from(["flip", "insert", "remove"]))
def test_one_changed_byte_ends_in_a_record_or_a_named_error(place, byte, how):
    tail = {"flip": VALID[place + 1 :], "insert": VALID[place:], "remove": VALID[place + 1 :]}[how]
    changed = VALID[:place] + (b"" if how == "remove" else bytes([byte])) + tail
    try:
        record = loads(changed)
    except RecordError:
        return
    assert all(array.numpy().nbytes == len(array.data) for array in record.values())


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_record_or_a_named_error(data):
    for file in (data, file_of(data), file_of(b'{"a":' + data)):
        with suppress(RecordError):
            loads(file)
