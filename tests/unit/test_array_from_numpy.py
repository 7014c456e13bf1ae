"""array_from_numpy: what it makes of an array, and what it refuses."""

from io import BytesIO

import ml_dtypes
import numpy as np
import pytest

from umbel.errors import BadDtype, RecordTypeError, UnknownStype
from umbel.records import array_from_numpy

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_says_what_it_was_given():
    array = array_from_numpy(VALUES)
    assert (array.dtype, array.shape, array.stype) == ("float32", [2, 3], "numpy.ndarray")
    assert np.array_equal(np.load(BytesIO(array.data), allow_pickle=False), VALUES)


def test_raw_is_the_plain_bytes():
    array = array_from_numpy(VALUES, stype="raw")
    assert (array.dtype, array.shape, array.stype, bytes(array.data)) == (
        "float32",
        [2, 3],
        "raw",
        VALUES.tobytes(),
    )


@pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
def test_is_a_snapshot(stype):
    values = VALUES.copy()
    array = array_from_numpy(values, stype)
    values[:] = 0
    assert np.array_equal(array.numpy(), VALUES)


def test_takes_numpy_scalars():
    array = array_from_numpy(np.float64(0.5))
    assert (array.shape, array.numpy()) == ([], 0.5)


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "x", (1, 2), memoryview(b"abcd")])
def test_refuses_what_is_no_array(value):
    with pytest.raises(RecordTypeError, match=r"np\.asarray"):
        array_from_numpy(value)


def test_refuses_to_drop_a_mask():
    with pytest.raises(RecordTypeError, match="filled"):
        array_from_numpy(np.ma.masked_array([1.0, 2.0], [True, False]))


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}], dtype=object),
        np.array(["abc"]),
        np.array([b"abc"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([1], dtype="timedelta64[s]"),
        np.zeros(1, [("a", "<f4")]),
        np.zeros(1, "V4"),
    ],
)
@pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
def test_refuses_what_is_no_number(array, stype):
    with pytest.raises(BadDtype, match="astype"):
        array_from_numpy(array, stype)


def test_npy_refuses_what_it_cannot_name_and_says_what_to_use():
    with pytest.raises(BadDtype, match=r"bfloat16.*stype='raw'"):
        array_from_numpy(np.zeros(2, ml_dtypes.bfloat16))


def test_refuses_an_unknown_stype():
    with pytest.raises(UnknownStype, match=r"'raw'"):
        array_from_numpy(VALUES, "zip")


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="here a long double is a double")
def test_long_doubles_travel_as_npy_alone():
    values = np.array([1, 2], np.longdouble)
    assert np.array_equal(array_from_numpy(values).numpy(), values)
    with pytest.raises(BadDtype, match="machine"):
        array_from_numpy(values, "raw")
