"""Array: what it holds, what it refuses, and how it comes back."""

import copy
import dataclasses
import pickle
import sys
from io import BytesIO

import numpy as np
import pytest

from umbel.errors import BadDtype, BadHeader, BadShape, Mismatch, RecordError, RecordTypeError, TrailingBytes, Truncated
from umbel.errors import UnknownStype as Unknown
from umbel.records import Array, array_from_numpy


def npy(array):
    out = BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


class TestFields:
    def test_are_in_the_order_of_the_original(self):
        array = Array("float32", [2, 3], "numpy.ndarray", npy(VALUES))
        assert (array.dtype, array.shape, array.stype, array.data) == ("float32", [2, 3], "numpy.ndarray", npy(VALUES))
        assert [field.name for field in dataclasses.fields(Array)] == ["dtype", "shape", "stype", "data"]

    @pytest.mark.parametrize("field", ["dtype", "shape", "stype", "data"])
    def test_cannot_be_changed(self, field):
        array = array_from_numpy(VALUES)
        with pytest.raises(AttributeError):
            setattr(array, field, getattr(array, field))

    def test_nothing_can_be_added(self):
        with pytest.raises((AttributeError, TypeError)):
            array_from_numpy(VALUES).note = "x"

    @pytest.mark.parametrize(
        ("fields", "at"),
        [
            ((np.float32, [2], "raw", b""), "Array.dtype"),
            ((np.dtype("float32"), [2], "raw", b""), "Array.dtype"),
            (("float32", [2], None, b""), "Array.stype"),
            (("float32", [2], b"raw", b""), "Array.stype"),
            (("float32", 2, "raw", b""), "Array.shape"),
            (("float32", None, "raw", b""), "Array.shape"),
            (("float32", "23", "raw", b""), "Array.shape"),
            (("float32", b"23", "raw", b""), "Array.shape"),
            (("float32", {2: 3}, "raw", b""), "Array.shape"),
            (("float32", [2, 3.0], "raw", b""), "Array.shape[1]"),
            (("float32", [True], "raw", b""), "Array.shape[0]"),
            (("float32", [2], "raw", "text"), "Array.data"),
            (("float32", [2], "raw", None), "Array.data"),
            (("float32", [2], "raw", [0, 1]), "Array.data"),
            (("float32", [2], "raw", np.arange(6)[::2]), "Array.data"),
        ],
    )
    def test_of_the_wrong_type_are_refused_with_their_place(self, fields, at):
        with pytest.raises(TypeError) as caught:
            Array(*fields)
        assert isinstance(caught.value, RecordTypeError)
        assert caught.value.at == at
        assert "expected" in str(caught.value)
        assert "got" in str(caught.value)

    def test_sizes_may_be_any_integers(self):
        array = Array("float32", (np.int64(2), 3), "raw", VALUES.tobytes())
        assert array.shape == [2, 3]
        assert [type(size) for size in array.shape] == [int, int]

    def test_the_callers_list_of_sizes_is_not_kept(self):
        sizes = [2, 3]
        array = Array("float32", sizes, "raw", VALUES.tobytes())
        sizes.append(4)
        assert array.shape == [2, 3]

    @pytest.mark.parametrize("stype", ["raw", "numpy.ndarray", "mine", ""])
    @pytest.mark.parametrize("data", [b"", b"anything"])
    def test_contents_are_not_looked_at(self, stype, data):
        array = Array("no such dtype", [-1], stype, data)
        assert (array.dtype, array.shape, array.stype, array.data) == ("no such dtype", [-1], stype, data)


class TestData:
    def test_bytes_are_kept_as_they_are(self):
        data = npy(VALUES)
        assert Array("float32", [2, 3], "numpy.ndarray", data).data is data

    @pytest.mark.parametrize(
        "wrap", [bytearray, memoryview, lambda data: np.frombuffer(data, np.float32).reshape(2, 3)]
    )
    def test_other_buffers_become_flat_read_only_views_without_a_copy(self, wrap):
        original = wrap(VALUES.tobytes())
        data = Array("float32", [2, 3], "raw", original).data
        assert isinstance(data, memoryview)
        assert (data.readonly, data.format, data.ndim, data.nbytes) == (True, "B", 1, 24)
        assert np.shares_memory(np.frombuffer(data, np.uint8), np.frombuffer(original, np.uint8))

    def test_a_view_shows_later_changes_of_its_buffer(self):
        buffer = bytearray(VALUES.tobytes())
        array = Array("float32", [2, 3], "raw", buffer)
        buffer[:4] = np.float32(9).tobytes()
        assert array.numpy()[0, 0] == 9

    def test_an_empty_buffer_of_any_shape_is_empty_bytes(self):
        assert len(Array("float32", [0, 3], "raw", np.empty((0, 3), np.float32)).data) == 0


class TestNumpy:
    @pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
    def test_gives_an_array_of_ones_own(self, stype):
        array = array_from_numpy(VALUES, stype)
        found = array.numpy()
        found[0, 0] = 7
        assert found.flags.writeable
        assert np.array_equal(array.numpy(), VALUES)

    @pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
    def test_without_copy_gives_a_read_only_view(self, stype):
        array = array_from_numpy(VALUES, stype)
        found = array.numpy(copy=False)
        assert np.array_equal(found, VALUES)
        assert np.shares_memory(found, np.frombuffer(array.data, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 7

    def test_keeps_the_order_of_npy_bytes(self):
        found = array_from_numpy(np.asfortranarray(VALUES)).numpy()
        assert (found.flags.f_contiguous, found.flags.c_contiguous) == (True, False)

    def test_an_unknown_stype_is_a_type_error_that_names_the_known_ones(self):
        with pytest.raises(TypeError) as caught:
            Array("float32", [2, 3], "mine", VALUES.tobytes()).numpy()
        assert isinstance(caught.value, Unknown)
        assert all(name in str(caught.value) for name in ("'mine'", "'numpy.ndarray'", "'raw'", "np.frombuffer"))

    def test_a_serialisation_of_ones_own_is_decoded_by_hand(self):
        array = Array(dtype="float32", shape=[2, 3], stype="my bytes", data=VALUES.tobytes())
        assert np.array_equal(np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape), VALUES)

    @pytest.mark.parametrize("dtype", ["f4", "<f4", "float", "Float32", "object", "O", "U3", "datetime64[s]", "V4", ""])
    def test_raw_knows_dtypes_by_their_canonical_name_alone(self, dtype):
        with pytest.raises(BadDtype, match="float32"):
            Array(dtype, [2, 3], "raw", VALUES.tobytes()).numpy()

    @pytest.mark.parametrize(
        ("shape", "data", "error"),
        [
            ([2, 3], VALUES.tobytes()[:-1], Truncated),
            ([2, 3], b"", Truncated),
            ([2, 4], VALUES.tobytes(), Truncated),
            ([2, 3], VALUES.tobytes() + b"\0", TrailingBytes),
            ([], VALUES.tobytes(), TrailingBytes),
            ([0, 3], VALUES.tobytes(), TrailingBytes),
            ([-2, -3], VALUES.tobytes(), BadShape),
            ([0, 2**62, 2**62], b"", BadShape),
            ([2**70], VALUES.tobytes(), BadShape),
            ([1] * 33, VALUES[0, :1].tobytes(), BadShape),
        ],
    )
    def test_raw_bytes_that_are_not_what_is_declared_are_refused(self, shape, data, error):
        with pytest.raises(ValueError, match=r"expected|should") as caught:
            Array("float32", shape, "raw", data).numpy()
        assert type(caught.value) is error

    @pytest.mark.parametrize(
        ("dtype", "shape", "data", "error", "words"),
        [
            ("int8", [99], npy(VALUES), Mismatch, ["int8", "[99]", "float32", "[2, 3]"]),
            ("float32", [3, 2], npy(VALUES), Mismatch, ["[3, 2]", "[2, 3]"]),
            ("float64", [2, 3], npy(VALUES), Mismatch, ["float64", "float32"]),
            ("float32", [2, 3], npy(VALUES)[:-1], Truncated, ["24", "23"]),
            ("float32", [2, 3], npy(VALUES) + b"\0", TrailingBytes, ["24", "1"]),
            ("float32", [2, 3], b"", Truncated, ["10"]),
            ("float32", [2, 3], npy(VALUES)[:40], Truncated, ["40"]),
            ("float32", [2, 3], b"PK\x03\x04 and so on", Mismatch, ["zip"]),
            ("float32", [2, 3], b"some bytes", BadHeader, ["NUMPY"]),
            ("object", [2], npy(VALUES).replace(b"'<f4'", b"'|O8'", 1), BadDtype, ["O"]),
            ("V8", [2], npy(np.zeros(2, [("a", "<f4"), ("b", "<f4")])), BadDtype, ["a"]),
        ],
    )
    def test_npy_bytes_that_are_not_what_is_declared_are_refused(self, dtype, shape, data, error, words):
        with pytest.raises(RecordError) as caught:
            Array(dtype, shape, "numpy.ndarray", data).numpy()
        assert type(caught.value) is error
        assert [word for word in words if word not in str(caught.value)] == []

    def test_a_pickle_is_never_loaded(self):
        out = BytesIO()
        np.save(out, np.array([{}, []], dtype=object), allow_pickle=True)
        with pytest.raises(RecordError):
            Array("object", [2], "numpy.ndarray", out.getvalue()).numpy()

    def test_a_dtype_in_the_letters_of_numpy_is_understood_for_npy_bytes(self):
        big = VALUES.astype(">f4")
        assert np.array_equal(Array(">f4", [2, 3], "numpy.ndarray", npy(big)).numpy(), VALUES)
        assert np.array_equal(Array("float32", [2, 3], "numpy.ndarray", npy(big)).numpy(), VALUES)

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_every_version_of_npy_is_read(self, version):
        out = BytesIO()
        np.lib.format.write_array(out, VALUES, version=version)
        assert np.array_equal(Array("float32", [2, 3], "numpy.ndarray", out.getvalue()).numpy(), VALUES)


class TestAsArray:
    def test_asarray_works(self):
        assert np.array_equal(np.asarray(array_from_numpy(VALUES)), VALUES)
        assert np.asarray(array_from_numpy(VALUES), dtype=np.float64).dtype == np.float64

    def test_array_gives_a_copy(self):
        array = array_from_numpy(VALUES)
        found = np.array(array)
        found[:] = 0
        assert np.array_equal(array.numpy(), VALUES)

    def test_functions_of_numpy_take_it(self):
        assert np.mean(array_from_numpy(VALUES)) == VALUES.mean()

    @pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 1 does not ask for no copy")
    def test_no_copy_is_taken_at_its_word(self):
        array = array_from_numpy(VALUES)
        assert np.shares_memory(np.asarray(array, copy=False), np.frombuffer(array.data, np.uint8))
        with pytest.raises(RecordError, match="no copy"):
            np.asarray(array, dtype=np.float64, copy=False)


class TestEquality:
    def test_is_by_content(self):
        left = Array("float32", [2, 3], "raw", VALUES.tobytes())
        assert left == Array("float32", (2, 3), "raw", bytearray(VALUES.tobytes()))
        assert left == Array("float32", [2, 3], "raw", VALUES)

    @pytest.mark.parametrize(
        "other",
        [
            Array("int32", [2, 3], "raw", VALUES.tobytes()),
            Array("float32", [3, 2], "raw", VALUES.tobytes()),
            Array("float32", [2, 3], "mine", VALUES.tobytes()),
            Array("float32", [2, 3], "raw", VALUES.tobytes()[:-1]),
            Array("float32", [2, 3], "raw", VALUES.tobytes() + b"\0"),
            Array("float32", [2, 3], "raw", VALUES.tobytes()[:-1] + b"\1"),
        ],
    )
    def test_sees_every_field(self, other):
        array = array_from_numpy(VALUES, "raw")
        assert array != other
        assert not array == other  # noqa: SIM201 - the other operator

    def test_not_a_number_is_equal_as_bytes(self):
        nan = np.array([np.nan])
        assert array_from_numpy(nan) == array_from_numpy(nan)

    @pytest.mark.parametrize("other", [None, 1, "x", b"", [], VALUES, np.float32(1), object(), {"a": VALUES}])
    def test_never_raises(self, other):
        array = array_from_numpy(VALUES)
        assert (array == other) is False
        assert (other == array) is False
        assert (array != other) is True

    def test_leaves_the_other_side_its_say(self):
        class Anything:
            __hash__ = None

            def __eq__(self, other):
                return True

        assert array_from_numpy(VALUES) == Anything()

    def test_is_not_hashable(self):
        with pytest.raises(TypeError):
            hash(array_from_numpy(VALUES))


class TestRepr:
    def test_shows_everything_but_the_bulk(self):
        text = repr(array_from_numpy(np.zeros(1_000_000, np.float32)))
        assert len(text) < 200
        assert "dtype='float32', shape=[1000000], stype='numpy.ndarray'" in text
        assert "4000128 bytes" in text
        assert "93 4e 55 4d" in text

    @pytest.mark.parametrize(("data", "shown"), [(b"", "<0 bytes>"), (b"\1\2", "<2 bytes: 01 02>")])
    def test_of_few_bytes(self, data, shown):
        assert repr(Array("uint8", [len(data)], "raw", data)).endswith(f"data={shown})")


class TestCopies:
    def array(self):
        return Array("float32", [2, 3], "raw", bytearray(VALUES.tobytes()))

    def test_copy_shares_the_bytes_and_not_the_sizes(self):
        array = self.array()
        twin = copy.copy(array)
        twin.shape.append(1)
        assert array.shape == [2, 3]
        assert np.shares_memory(np.frombuffer(array.data, np.uint8), np.frombuffer(twin.data, np.uint8))

    def test_deepcopy_shares_nothing_that_can_change(self):
        buffer = bytearray(VALUES.tobytes())
        array = Array("float32", [2, 3], "raw", buffer)
        twin = copy.deepcopy(array)
        assert twin == array
        buffer[:] = bytes(24)
        assert np.array_equal(twin.numpy(), VALUES)
        assert twin.data.readonly

    def test_deepcopy_of_nothing(self):
        empty = Array("float32", [0], "raw", bytearray())
        assert copy.deepcopy(empty) == empty

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle_by_others(self, protocol):
        array = self.array()
        assert pickle.loads(pickle.dumps(array, protocol)) == array

    def test_replace_checks_again(self):
        array = self.array()
        assert dataclasses.replace(array, shape=(6,)).shape == [6]
        with pytest.raises(RecordTypeError):
            dataclasses.replace(array, data="text")


def test_ten_thousand_arrays_are_small():
    # Slots, and no dict: what a model of many arrays costs beside its bytes.
    array = array_from_numpy(VALUES, "raw")
    assert not hasattr(array, "__dict__")
    assert sys.getsizeof(array) <= 64
