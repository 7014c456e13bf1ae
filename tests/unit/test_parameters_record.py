"""ParametersRecord: whole models in and out, in one allocation or none."""

import gc
import weakref
import zlib
from collections import OrderedDict
from types import MappingProxyType

import ml_dtypes
import numpy as np
import pytest

from solid_records import forget
from umbel.errors import BadDtype, DuplicateName, Mismatch, RecordError, RecordTypeError, Truncated, UnknownStype
from umbel.records import Arena, Array, ParametersRecord, array_from_numpy, register_stype
from umbel.records._stypes import _CODECS


def model():
    return {
        "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "conv.bias": np.zeros(2, ml_dtypes.bfloat16),
        "steps": np.array(7),
        "mask": np.array([True, False]),
    }


def memory(array):
    return np.frombuffer(array.data, np.uint8)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape


@pytest.fixture
def stype():
    """Register a codec for the time of one test."""
    names = []

    def register(name, encode, decode):
        register_stype(name, encode, decode)
        names.append(name)
        return name

    yield register
    for name in names:
        del _CODECS[name]


class TestFromNumpy:
    def test_keeps_names_order_dtypes_and_shapes(self):
        record = ParametersRecord.from_numpy(model())
        assert list(record) == list(model())
        assert [array.dtype for array in record.values()] == ["float32", "bfloat16", "int64", "bool"]
        assert [array.shape for array in record.values()] == [[2, 3, 4], [2], [], [2]]
        assert {array.stype for array in record.values()} == {"raw"}
        assert_same(record.to_numpy(), model())

    def test_is_what_single_arrays_are(self):
        record = ParametersRecord.from_numpy(model())
        assert record == {name: array_from_numpy(array, "raw") for name, array in model().items()}

    @pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
    def test_takes_any_mapping(self, kind):
        assert_same(ParametersRecord.from_numpy(kind(model())).to_numpy(), model())

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_numbers_the_arrays_of_a_sequence(self, kind):
        record = ParametersRecord.from_numpy(kind([np.zeros(1)] * 11))
        assert list(record) == [str(place) for place in range(11)]

    @pytest.mark.parametrize("nothing", [{}, [], ()])
    @pytest.mark.parametrize("copy", [True, False])
    def test_of_nothing(self, nothing, copy):
        assert len(ParametersRecord.from_numpy(nothing, copy=copy)) == 0

    @pytest.mark.parametrize("wrong", [None, 1, np.zeros((2, 2)), {1, 2}, iter([])])
    def test_refuses_other_collections(self, wrong):
        with pytest.raises(RecordTypeError, match="mapping or a sequence"):
            ParametersRecord.from_numpy(wrong)

    def test_npy_on_request(self):
        arrays = {"a": np.asfortranarray(np.eye(3)), "b": np.arange(2, dtype=">i2")}
        record = ParametersRecord.from_numpy(arrays, stype="numpy.ndarray")
        assert record == {name: array_from_numpy(array) for name, array in arrays.items()}

    def test_is_a_snapshot_in_one_allocation(self):
        forget()
        arrays = model()
        record = ParametersRecord.from_numpy(arrays)
        arrays["conv.weight"][:] = -1
        assert_same(record.to_numpy(), model())
        starts = [memory(array).ctypes.data for array in record.values()]
        assert starts[1] - starts[0] == 128
        assert [start % 64 for start in starts] == [0, 0, 0, 0]

    def test_is_read_only(self):
        record = ParametersRecord.from_numpy(model())
        with pytest.raises(ValueError, match="read-only"):
            record.to_numpy(copy=False)["conv.weight"][:] = 0

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            (1, np.zeros(1), RecordTypeError),
            ("b", [1.0], RecordTypeError),
            ("b", None, RecordTypeError),
            ("b", np.ma.masked_array([1.0]), RecordTypeError),
            ("b", np.array(["x"]), BadDtype),
            ("b", np.array([None]), BadDtype),
        ],
    )
    @pytest.mark.parametrize("keep_input", [True, False])
    @pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
    def test_an_input_that_fails_is_left_untouched(self, name, value, error, keep_input, stype):
        given = {"a": np.zeros(1), name: value, "z": np.zeros(1)}
        before = dict(given)
        with pytest.raises(error):
            ParametersRecord.from_numpy(given, keep_input=keep_input, stype=stype)
        assert list(given.items()) == list(before.items())

    @pytest.mark.parametrize(
        ("stype", "last", "error"),
        [
            ("numpy.ndarray", np.zeros(1, ml_dtypes.bfloat16), BadDtype),
            ("zip", np.zeros(1), UnknownStype),
            pytest.param(
                "raw",
                np.zeros(1, np.longdouble),
                BadDtype,
                marks=pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="a long double is a double"),
            ),
        ],
    )
    def test_what_the_stype_cannot_carry_leaves_the_input_untouched(self, stype, last, error):
        given = {"a": np.zeros(1), "b": last}
        with pytest.raises(error):
            ParametersRecord.from_numpy(given, stype=stype, keep_input=False)
        assert list(given) == ["a", "b"]

    @pytest.mark.parametrize("given", [{"a": np.zeros(1), "b": np.zeros(2)}, [np.zeros(1), np.zeros(2)]])
    @pytest.mark.parametrize("copy", [True, False])
    def test_keep_input_both_ways(self, given, copy):
        given = given.copy()
        kept = ParametersRecord.from_numpy(given, copy=copy)
        assert len(given) == 2
        taken = ParametersRecord.from_numpy(given, keep_input=False, copy=copy)
        assert len(given) == 0
        assert taken == kept

    @pytest.mark.parametrize("fixed", [(np.zeros(1),), MappingProxyType({"a": np.zeros(1)})])
    def test_what_cannot_be_emptied_is_refused(self, fixed):
        with pytest.raises(RecordTypeError, match="keep_input=False"):
            ParametersRecord.from_numpy(fixed, keep_input=False)

    def test_lets_go_of_each_array_once_it_is_read(self, monkeypatch):
        # Of ten arrays that nobody else holds, those that were read are gone when the next one is.
        alive = []
        given = {str(place): np.zeros(1000) for place in range(10)}
        watched = [weakref.ref(array) for array in given.values()]

        class Watching:
            def __init__(self, base):
                self.base = base

            def __call__(self, array, *rest):
                alive.append(sum(ref() is not None for ref in watched))
                return self.base(array, *rest)

        module = ParametersRecord.from_numpy.__func__.__globals__
        monkeypatch.setitem(module, "place_raw", Watching(module["place_raw"]))
        gc.disable()
        try:
            ParametersRecord.from_numpy(given, keep_input=False)
        finally:
            gc.enable()
        assert alive in ([*range(10, 0, -1)], [10, *range(10, 1, -1)])

    def test_a_name_of_any_text(self):
        names = ["", "a/b", "ü", "\N{SNOWMAN}", "a\nb", "../x", "__metadata__"]
        assert list(ParametersRecord.from_numpy(dict.fromkeys(names, np.zeros(1)))) == names


class TestViews:
    def test_show_the_callers_arrays(self):
        values = np.arange(4.0)
        record = ParametersRecord.from_numpy({"a": values}, copy=False)
        assert np.shares_memory(memory(record["a"]), values)
        values[0] = 9
        assert record["a"].numpy()[0] == 9

    def test_cannot_change_the_callers_arrays(self):
        values = np.arange(4.0)
        found = ParametersRecord.from_numpy({"a": values}, copy=False).to_numpy(copy=False)["a"]
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
        assert values.flags.writeable

    @pytest.mark.parametrize(
        "values", [np.eye(3)[:, ::2], np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3, dtype=">f8")]
    )
    def test_copy_what_is_laid_out_otherwise(self, values):
        record = ParametersRecord.from_numpy({"a": values}, copy=False)
        assert not np.shares_memory(memory(record["a"]), values)
        assert np.array_equal(record["a"].numpy(), values)

    def test_keep_the_callers_memory_alive(self):
        values = np.arange(1000.0)
        record = ParametersRecord.from_numpy([values], copy=False)
        expected = values.sum()
        del values
        gc.collect()
        assert record["0"].numpy().sum() == expected


class TestArena:
    def test_is_used_again(self):
        arena = Arena()
        first = ParametersRecord.from_numpy(model(), arena=arena)
        second = ParametersRecord.from_numpy(model(), arena=arena)
        assert np.shares_memory(memory(first["conv.weight"]), memory(second["conv.weight"]))
        assert_same(second.to_numpy(), model())

    def test_overwrites_the_record_before(self):
        arena = Arena()
        first = ParametersRecord.from_numpy([np.zeros(4)], arena=arena)
        ParametersRecord.from_numpy([np.ones(4)], arena=arena)
        assert np.array_equal(first["0"].numpy(), np.ones(4))

    def test_grows_without_touching_what_it_gave_before(self):
        arena = Arena()
        small = ParametersRecord.from_numpy([np.zeros(4)], arena=arena)
        large = ParametersRecord.from_numpy([np.ones(1000)], arena=arena)
        assert np.array_equal(small["0"].numpy(), np.zeros(4))
        smaller = ParametersRecord.from_numpy([np.full(4, 2.0)], arena=arena)
        assert np.shares_memory(memory(smaller["0"]), memory(large["0"]))

    def test_to_numpy_with_copy_is_safe_from_it(self):
        arena = Arena()
        found = ParametersRecord.from_numpy([np.zeros(4)], arena=arena).to_numpy()
        ParametersRecord.from_numpy([np.ones(4)], arena=arena)
        assert np.array_equal(found["0"], np.zeros(4))


class TestToNumpy:
    def test_gives_arrays_of_ones_own(self):
        record = ParametersRecord.from_numpy(model())
        found = record.to_numpy()
        found["conv.weight"][:] = 0
        assert_same(record.to_numpy(), model())

    def test_without_copy_gives_views(self):
        record = ParametersRecord.from_numpy(model())
        for name, array in record.to_numpy(copy=False).items():
            assert np.shares_memory(array, memory(record[name]))
            assert not array.flags.writeable

    def test_names_the_array_that_is_wrong(self):
        record = ParametersRecord({"good": array_from_numpy(np.zeros(1)), "bad": Array("float32", [2], "raw", b"xyz")})
        with pytest.raises(Truncated, match=r"at ParametersRecord\['bad'\]"):
            record.to_numpy()
        record["bad"] = Array("float32", [2], "mine", b"xyz")
        with pytest.raises(UnknownStype, match=r"'mine'.*at ParametersRecord\['bad'\]"):
            record.to_numpy()


class TestCountBytes:
    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [([100], np.float32), ([31, 31], np.int8), ([31, 153], np.bool_), ([], np.float64), ([0], np.int8)],
    )
    @pytest.mark.parametrize("name", ["", "weight", "größe", "\N{SNOWMAN}"])
    def test_is_payload_and_name_in_utf8(self, shape, dtype, name):
        values = np.ones(shape, dtype)
        raw = ParametersRecord.from_numpy({name: values})
        assert raw.count_bytes() == values.nbytes + len(name.encode())
        npy = ParametersRecord({name: array_from_numpy(values)})
        assert npy.count_bytes() == values.nbytes + 128 + len(name.encode())

    def test_adds_up(self):
        record = ParametersRecord.from_numpy(model())
        assert record.count_bytes() == 24 * 4 + 2 * 2 + 8 + 2 + len("".join(model()))
        assert ParametersRecord().count_bytes() == 0


class TestRepr:
    def test_of_many_arrays_is_short(self):
        record = ParametersRecord.from_numpy({f"layer.{i}": np.zeros(10) for i in range(500)})
        text = repr(record)
        assert len(text) < 2500
        assert "'layer.0'" in text
        assert "'layer.499'" in text
        assert "488 more" in text

    def test_of_few_shows_all(self):
        text = repr(ParametersRecord.from_numpy(model()))
        assert all(repr(name) in text for name in model())
        assert "more" not in text


class TestStypes:
    # A codec of one's own: here, half-precision floats in zlib.

    @staticmethod
    def encode(array):
        return zlib.compress(array.astype("<f2").tobytes())

    @staticmethod
    def decode(data, dtype, shape):
        return np.frombuffer(zlib.decompress(data), "<f2").astype(dtype).reshape(shape)

    def test_work_like_those_that_are_there(self, stype):
        name = stype("half+zlib", self.encode, self.decode)
        values = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 100)
        array = array_from_numpy(values, name)
        assert (array.dtype, array.shape, array.stype) == ("float32", [10, 100], name)
        assert len(array.data) < values.nbytes / 2
        assert np.allclose(array.numpy(), values, atol=1e-3)
        assert not array.numpy(copy=False).flags.writeable
        record = ParametersRecord.from_numpy({"a": values}, stype=name)
        assert record["a"] == array
        assert np.array_equal(record.to_numpy()["a"], array.numpy())

    def test_a_name_is_registered_once(self, stype):
        name = stype("twice", self.encode, self.decode)
        register_stype(name, self.encode, self.decode)
        with pytest.raises(DuplicateName, match="twice"):
            register_stype(name, self.decode, self.encode)
        with pytest.raises(DuplicateName, match="raw"):
            register_stype("raw", self.encode, self.decode)
        assert array_from_numpy(np.zeros(2), "raw").data == bytes(16)

    def test_a_codec_that_refuses_leaves_the_input_untouched(self, stype):
        def encode(array):
            if array.size > 1:
                raise RecordError("too large for me")
            return array.tobytes()

        name = stype("small", encode, self.decode)
        given = {"a": np.zeros(1), "b": np.zeros(2)}
        with pytest.raises(RecordError, match="too large"):
            ParametersRecord.from_numpy(given, stype=name, keep_input=False)
        assert list(given) == ["a", "b"]
        del given["b"]
        ParametersRecord.from_numpy(given, stype=name, keep_input=False)
        assert given == {}

    @pytest.mark.parametrize("made", [np.zeros(4, np.float32), np.zeros((2, 2)), [0.0] * 4, None])
    def test_a_codec_that_returns_another_array_is_found_out(self, stype, made):
        name = stype("careless", self.encode, lambda data, dtype, shape: made)
        with pytest.raises(Mismatch, match=r"declared 'float32' \[2, 2\], but the payload was decoded to"):
            Array("float32", [2, 2], name, b"").numpy()

    @pytest.mark.parametrize("codec", [(1, bytes, bytes), ("x", None, bytes), ("x", bytes, b"")])
    def test_a_codec_is_a_name_and_two_functions(self, codec):
        with pytest.raises(RecordTypeError, match="expected a str and two functions"):
            register_stype(*codec)

    def test_nothing_in_a_record_can_add_one(self):
        before = dict(_CODECS)
        Array("float32", [1], "os.system", b"true")
        with pytest.raises(UnknownStype):
            Array("float32", [1], "os.system", b"true").numpy()
        assert before == _CODECS
