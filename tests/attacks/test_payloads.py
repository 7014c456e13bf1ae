"""Payloads that are not what an Array says, and NumPy arrays that no record may carry."""

import io
import zipfile

import numpy as np
import pytest

from forge import legible, refuse
from umbel.errors import (
    BadDtype,
    BadHeader,
    BadShape,
    HeaderTooLarge,
    Mismatch,
    RecordError,
    RecordTypeError,
    TrailingBytes,
    Truncated,
    UnknownStype,
)
from umbel.records import Array, ParametersRecord, array_from_numpy


def npy(descr="'<f4'", shape="(2, 3)", payload=bytes(24), version=b"\1\0", fortran="False", tail=", }"):
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}{tail}".encode("latin-1")
    text += b" " * (-(11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + payload


VALID = npy()


def read(data, dtype="float32", shape=(2, 3), stype="numpy.ndarray"):
    return Array(dtype, list(shape), stype, data).numpy()


def refused(error, data, dtype="float32", shape=(2, 3), stype="numpy.ndarray"):
    return refuse(error, lambda: read(data, dtype, shape, stype), len(data) + 8 * len(shape))


def test_the_payload_that_all_others_vary_is_valid():
    assert read(VALID).tolist() == np.zeros((2, 3)).tolist()


@pytest.mark.parametrize("length", range(len(VALID)))
def test_a01_npy_cut_at_every_byte(length):
    refused(Truncated, VALID[:length])


@pytest.mark.parametrize("length", range(24))
def test_a01_raw_cut_at_every_byte(length):
    refused(Truncated, bytes(length), stype="raw")


def test_a02_npy_header_length_lies():
    for length, error in ((0, BadHeader), (1, BadHeader), (50, BadHeader), (119, BadHeader), (100, TrailingBytes)):
        refused(error, VALID[:8] + length.to_bytes(2, "little") + VALID[10:])
    refused(HeaderTooLarge, VALID[:8] + b"\xff\xff" + VALID[10:])
    for version in (b"\2\0", b"\3\0"):
        refused(HeaderTooLarge, b"\x93NUMPY" + version + b"\xff" * 4 + VALID[10:])
        refused(HeaderTooLarge, b"\x93NUMPY" + version + b"\xff" * 4)
        refused(Truncated, b"\x93NUMPY" + version + b"\xff\3\0\0" + VALID[10:])


def test_a03_npy_huge_header():
    refused(HeaderTooLarge, npy(descr="'" + "<f4" * 5000 + "'"))
    refused(HeaderTooLarge, npy(descr="'" + "<f4" * 500 + "'", version=b"\2\0"))


def test_a04_npy_nesting():
    refused(BadHeader, npy(shape="(" * 400))
    refused(BadDtype, npy(descr="[" * 400 + "]" * 400))


@pytest.mark.parametrize("member", ["'descr': '<f4'", "'shape': (2, 3)", "'fortran_order': False", "'x': 1"])
def test_a05_npy_key_twice_or_unknown(member):
    refused(BadHeader, npy(tail=f", {member}, }}"))


def test_a06_npy_keys_permuted():
    text = b"{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False, }".ljust(117) + b"\n"
    refused(BadHeader, VALID[:10] + text + bytes(24))


def test_a08_npy_trailing_bytes_and_polyglots():
    refused(TrailingBytes, VALID + b"\0")
    refused(TrailingBytes, VALID + b"PK\5\6" + bytes(18))
    refused(TrailingBytes, VALID + VALID)
    refused(BadHeader, b" " + VALID)
    refused(BadHeader, b"\x93NUMPX" + VALID[6:])
    refused(TrailingBytes, bytes(25), stype="raw")
    for version in (b"\0\0", b"\1\1", b"\4\0", b"\xff\xff"):
        refused(BadHeader, VALID[:6] + version + VALID[8:])


@pytest.mark.parametrize(
    ("text", "shape", "error"),
    [
        ("(-1,)", [-1], BadHeader),
        ("(-2, -3)", [-2, -3], BadHeader),
        ("(True,)", [1], BadHeader),
        ("(2.0, 3)", [2, 3], BadHeader),
        ("[2, 3]", [2, 3], BadHeader),
        ("(02, 3)", [2, 3], BadHeader),
        ("(0x2, 3)", [2, 3], BadHeader),
        ("(2L, 3L)", [2, 3], BadHeader),
        ("(6)", [6], BadShape),
        ("(2, 3,)", [2, 3], BadShape),
        ("(,)", [], BadHeader),
        (f"({2**63},)", [2**63], BadShape),
        (f"({2**64},)", [2**64], BadHeader),
        (f"({2**32}, {2**32})", [2**32, 2**32], BadShape),
        (f"(0, {2**62}, {2**62})", [0, 2**62, 2**62], BadShape),
        (f"({', '.join(['1'] * 33)})", [1] * 33, BadShape),
        (f"({', '.join(['1'] * 65)})", [1] * 65, BadShape),
        (f"({', '.join(['1'] * 65)})", [2, 3], Mismatch),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a09_npy_shape(text, shape, error):
    refused(error, npy(shape=text, payload=bytes(4)), shape=shape)


@pytest.mark.parametrize(
    "shape",
    [
        [-1],
        [-2, -3],
        [-1, -1],
        [2**63],
        [2**64],
        [10**5000],
        [-(10**5000)],
        [2**32, 2**32],
        [6, 2**62, 4],
        [0, 2**63, 2**63],
        [0, 2**62, 2**62],
        [1] * 33,
        [1] * 65,
        [1] * 100_000,
    ],
    ids=lambda shape: f"{len(shape)}-{shape[0].bit_length()}-{shape[0] < 0}",
)
def test_a09_raw_shape(shape):
    for data in (b"", bytes(4), bytes(24)):
        refused(BadShape, data, shape=shape, stype="raw")
        assert repr(Array("float32", shape, "raw", data)).isprintable()


@pytest.mark.parametrize("size", [True, np.True_, 1.0, "1", None, [1], b"1", "\x1b[31m" * 1000], ids=ascii)
def test_a09_sizes_that_are_no_integers(size):
    refuse(RecordTypeError, lambda: Array("float32", [2, size], "raw", b""), 1000)


@pytest.mark.parametrize("shape", ["23", b"23", {2: 3}, None, 6])
def test_a09_shapes_that_are_no_lists(shape):
    refuse(RecordTypeError, lambda: Array("float32", shape, "raw", b""), 1000)


@pytest.mark.parametrize(
    "descr",
    [
        "'|O'",
        "'O'",
        "'|V4'",
        "'<U1'",
        "'|S4'",
        "'<M8[s]'",
        "'<m8[ns]'",
        "[('a', '<f4')]",
        "[('a', '<f4', (2,))]",
        "('<f4', (2,))",
        "'f4'",
        "'float32'",
        "'=f4'",
        "'<f3'",
        "'<F4'",
        "'<f4,<f4'",
        "'<c4'",
        "'|c1'",
        "''",
        "'\x1b[31m'",
        "'<q'",
    ],
    ids=ascii,
)
def test_a10_npy_dtype(descr):
    error = BadHeader if descr.startswith("(") else BadDtype
    refused(error, npy(descr=descr))


@pytest.mark.parametrize(
    "dtype", ["f4", "<f4", "Float32", "FLOAT32", "single", "float", "object", "void", "O", "str", "U", "datetime64", ""]
)
def test_a10_names_of_dtypes_are_a_closed_list(dtype):
    refused(BadDtype, bytes(24), dtype=dtype, stype="raw")
    refused(Mismatch, VALID, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "array", "error"),
    [
        ("object", np.array([1, "a"], object), BadDtype),
        ("structured", np.zeros(2, [("a", "f4"), ("b", "i4")]), BadDtype),
        ("record", np.rec.array([(1, 2.0)]), BadDtype),
        ("void", np.zeros(2, "V3"), BadDtype),
        ("text", np.array(["a"]), BadDtype),
        ("bytes", np.array([b"a"]), BadDtype),
        ("variable text", np.array(["a"], np.dtypes.StringDType()), BadDtype),
        ("time", np.array(["2020-01-01"], "M8[D]"), BadDtype),
        ("span", np.array([1], "m8[s]"), BadDtype),
        ("masked", np.ma.masked_array([1.0, 2.0], [True, False]), RecordTypeError),
        ("masked constant", np.ma.masked, RecordTypeError),
        ("list", [1.0, 2.0], RecordTypeError),
        ("number", 1.0, RecordTypeError),
        ("none", None, RecordTypeError),
        ("text object", "abc", RecordTypeError),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
def test_a10_arrays_that_no_record_carries(name, array, error, stype):
    refuse(error, lambda: array_from_numpy(array, stype), 1000)
    given = {"good": np.ones(2), "bad": array}
    refuse(error, lambda: ParametersRecord.from_numpy(given, stype=stype, keep_input=False), 1000)
    assert list(given) == ["good", "bad"]


def test_a11_metadata_lie_about_the_payload():
    def saved(array):
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    refused(Mismatch, saved(np.zeros((2, 2), np.int8)), shape=[1000])
    refused(Mismatch, saved(np.zeros((2, 3), np.float64)))
    refused(Mismatch, saved(np.zeros((3, 2), np.float32)))
    refused(Mismatch, saved(np.zeros(6, np.float32)))
    refused(Mismatch, saved(np.zeros((2, 3), np.int32)))
    refused(Mismatch, saved(np.zeros((2, 3), np.float32)), dtype=">f4")
    refused(Mismatch, saved(np.zeros((1, 2, 3), np.float32)))
    refused(Truncated, saved(np.zeros((2, 3), np.float32)), dtype="float64", stype="raw", shape=[1000])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a11_npz_in_place_of_npy(save):
    out = io.BytesIO()
    save(out, np.zeros((2, 3), np.float32))
    refused(Mismatch, out.getvalue())


def test_a11_a_pickle_in_place_of_npy():
    refused(BadHeader, b"\x80\x04cos\nsystem\n.")
    refused(BadDtype, npy(descr="'|O'", payload=b"\x80\x04cos\nsystem\n."))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"x")
    refused(Mismatch, out.getvalue())


@pytest.mark.parametrize("items", [10**11, 2**50])
def test_a12_npy_that_claims_more_than_there_is(items):
    refused(Truncated, npy(shape=f"({items},)", payload=b""), shape=[items])
    refused(Truncated, npy(shape=f"({items},)", payload=b"", descr="'|u1'"), "uint8", [items])
    refused(Truncated, bytes(128), shape=[items], stype="raw")


@pytest.mark.parametrize("stype", ["", "pickle", "numpy", "RAW", "raw ", "\x1b[31m\u202e", "os.system", "x" * 10**6])
def test_a16_stypes_are_a_closed_list(stype):
    refused(UnknownStype, VALID, stype=stype)


def test_a16_what_is_said_of_an_array_is_shown_escaped():
    nasty = "\x1b]0;owned\x07\u202e\u200b\n\r" * 100
    array = Array(nasty, [2, 3], nasty, b"\x1b[31m")
    record = ParametersRecord({nasty: array})
    assert repr(array).isprintable()
    assert repr(record).isprintable()
    for act in (array.numpy, record.to_numpy):
        with pytest.raises(UnknownStype) as caught:
            act()
        legible(caught.value)
    for stype in ("raw", "numpy.ndarray"):
        with pytest.raises(RecordError) as caught:
            Array(nasty, [2, 3], stype, VALID).numpy()
        legible(caught.value)


def test_what_is_no_buffer_is_no_payload():
    for data in (None, "text", 7, [1], np.zeros((4, 4))[:, 1], memoryview(bytes(8))[::2]):
        refuse(RecordTypeError, lambda data=data: Array("float32", [1], "raw", data), 1000)
