"""Updates that are wrong, in their values (A13), their layout (A14) or their weight (A15): refused, with the reason.

None of them may end in anything but UpdateRejected, and the federation without the bad node is not touched by it.
"""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import Update, aggregate, weighted_mean
from umbel.errors import AggregationError, UmbelError, UpdateRejected
from umbel.gate import Gate
from umbel.records import Array, ParametersRecord, _stypes, array_from_numpy, register_stype

GATE = Gate()
MODEL = {"layer.weight": np.zeros((2, 3), np.float32), "layer.bias": np.zeros(3, np.float32), "steps": np.int64(0)}
TEMPLATE = ParametersRecord.from_numpy(MODEL)
FLOATS = [
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
]


def rejection(record, weight=1, *, template=TEMPLATE, gate=GATE):
    with pytest.raises(UpdateRejected) as caught:
        gate.check(template, Update("site-3", weight, record))
    message = str(caught.value)
    assert message.startswith("update of node 'site-3': ")
    return message


def changed(**arrays):
    return ParametersRecord.from_numpy(MODEL | {name.replace("_", ".", 1): array for name, array in arrays.items()})


class TestValues:
    """A13."""

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("size", [3, 200_000])
    def test_not_finite(self, dtype, bad, size):
        with np.errstate(all="ignore"):
            value = np.array(bad, np.float32).astype(dtype)
        if np.isfinite(value):
            pytest.skip(f"{dtype} has no such value")
        values = np.ones(size, dtype)
        template = ParametersRecord.from_numpy({"w": values})
        values[size - 2] = value
        message = rejection(ParametersRecord.from_numpy({"w": values}), template=template)
        counted = "1 NaN and 0 infinite" if np.isnan(value) else "0 NaN and 1 infinite"
        assert f"expected finite numbers, got {counted} among" in message
        assert message.endswith("- at parameters_records.model['w']")

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_the_largest_the_smallest_and_zeros_are_finite(self, dtype):
        info = ml_dtypes.finfo(dtype)
        ends = [np.array(end).astype(dtype) for end in (info.max, info.min, info.smallest_subnormal)]
        values = np.array([*ends, np.array(0.0 if "e8m0" not in dtype else 1.0).astype(dtype)])
        record = ParametersRecord.from_numpy({"w": values})
        GATE.check(record, Update("a", 1, record))

    def test_imaginary_parts_too(self):
        record = ParametersRecord.from_numpy({"w": np.array([1 + 1j, complex(0, np.nan)])})
        assert "1 NaN" in rejection(record, template=ParametersRecord.from_numpy({"w": np.zeros(2, complex)}))

    def test_numbers_whose_squares_overflow_are_finite(self):
        GATE.check(TEMPLATE, Update("a", 1, changed(layer_bias=np.float32([1e38, -3e38, 1e-45]))))

    def test_1e38_does_not_overflow_in_the_sum(self):
        records = [changed(layer_bias=np.float32([1e38, 2e38, 3e38]))] * 9
        updates = [Update(f"n{i}", 1e6, record) for i, record in enumerate(records)]
        for update in updates:
            GATE.check(TEMPLATE, update)
        mean = aggregate(weighted_mean(), TEMPLATE, updates)["layer.bias"].numpy()
        assert mean == pytest.approx([1e38, 2e38, 3e38], rel=1e-6)

    def test_negative_zeros_and_denormals_stay_as_they_are(self):
        record = changed(layer_bias=np.float32([-0.0, 1e-45, -1e-45]))
        mean = aggregate(weighted_mean(), TEMPLATE, [Update("a", 7, record)])
        assert mean["layer.bias"].data == record["layer.bias"].data

    def test_bytes_that_are_no_bools(self):
        template = ParametersRecord.from_numpy({"mask": np.ones(5, bool)})
        record = ParametersRecord({"mask": Array("bool", [5], "raw", b"\x00\x01\x02\xff\x01")})
        assert "expected bytes of 0 or 1 for bool, got 2 others among 5" in rejection(record, template=template)
        assert "others" in rejection(record, template=template, gate=Gate(finite=False))

    def test_the_smallest_integer(self):
        record = changed(steps=np.int64(-(2**63)))
        GATE.check(TEMPLATE, Update("a", 1, record))
        mean = aggregate(weighted_mean(), TEMPLATE, [Update(name, 1e9, record) for name in "abc"])
        assert mean["steps"].numpy() == -(2**63)

    def test_pass_where_the_gate_is_told_so(self):
        Gate(finite=False).check(TEMPLATE, Update("a", 1, changed(layer_bias=np.float32([np.nan, np.inf, 0]))))

    def test_an_update_far_away(self):
        far = changed(layer_bias=np.float32([3, 0, 4]))
        assert Gate(max_norm=5).check(TEMPLATE, Update("a", 1, far)).norm == 5.0
        message = rejection(far, gate=Gate(max_norm=4.99))
        assert "expected a norm of at most 4.99 from the model, got 5" in message

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
    def test_an_update_infinitely_far_away(self, value):
        template = ParametersRecord.from_numpy({"w": np.zeros(9000)})
        record = ParametersRecord.from_numpy({"w": np.full(9000, value)})
        assert "expected a norm" in rejection(record, template=template, gate=Gate(max_norm=1, finite=False))


class TestLayout:
    """A14."""

    def test_missing(self):
        record = changed()
        del record["layer.bias"]
        assert "expected the names of the model's arrays: missing 'layer.bias' - at" in rejection(record)

    def test_extra(self):
        record = ParametersRecord.from_numpy(MODEL | {f"x{i}": np.zeros(1) for i in range(9)})
        assert "unexpected 'x0', 'x1', 'x2' and 6 more" in rejection(record)

    def test_renamed(self):
        named = {("layer.scale" if name == "layer.bias" else name): array for name, array in MODEL.items()}
        assert "renamed 'layer.bias' to 'layer.scale'" in rejection(ParametersRecord.from_numpy(named))

    def test_swapped_for_another_array(self):
        named = {name: array for name, array in MODEL.items() if name != "steps"} | {"other": np.zeros(7)}
        assert "missing 'steps', unexpected 'other'" in rejection(ParametersRecord.from_numpy(named))

    def test_empty(self):
        assert "missing 'layer.weight', 'layer.bias', 'steps'" in rejection(ParametersRecord())

    def test_another_order_is_fine(self):
        record = ParametersRecord.from_numpy(dict(reversed(MODEL.items())))
        assert GATE.check(TEMPLATE, Update("a", 1, record)) == ("a", None)

    @pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 3), (2, 1), (1, 2, 3), (), (0,), (2, 3, 1)])
    def test_another_shape_even_if_it_could_be_broadcast(self, shape):
        message = rejection(changed(layer_weight=np.zeros(shape, np.float32)))
        assert (
            f"expected shape [2, 3], got {list(shape)} - at parameters_records.model['layer.weight'].shape" in message
        )

    @pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "complex64", "int32", "uint32", "bool"])
    def test_another_dtype(self, dtype):
        message = rejection(changed(layer_bias=np.zeros(3, dtype)))
        assert f"expected dtype float32, got '{dtype}' - at parameters_records.model['layer.bias'].dtype" in message

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (Array("float32", [3], "raw", b"short"), "ends after 5"),
            (Array("float32", [3], "raw", bytes(13)), "1 more follow"),
            (Array("float32", [3], "numpy.ndarray", b""), "at least"),
            (Array("float32", [3], "numpy.ndarray", b"PK\x03\x04 and so on"), "zip"),
            (Array("float32", [3], "numpy.ndarray", array_from_numpy(np.zeros(3)).data), "holds float64"),
            (
                Array("float32", [3], "numpy.ndarray", array_from_numpy(np.zeros(4, np.float32)).data),
                r"holds float32 \[4\]",
            ),
            (Array("float32", [3], "pickle", b"cos\nsystem\n."), "no codec is registered for stype 'pickle'"),
        ],
        ids=["short", "long", "empty", "zip", "dtype", "shape", "stype"],
    )
    def test_a_payload_that_cannot_be_decoded(self, array, reason):
        record = changed()
        record["layer.bias"] = array
        with pytest.raises(UpdateRejected, match=reason) as caught:
            GATE.check(TEMPLATE, Update("site-3", 1, record))
        assert caught.value.at == "parameters_records.model['layer.bias'].data"

    def test_a_payload_that_lies_about_its_size_costs_nothing(self):
        header = array_from_numpy(np.zeros(3, np.float32)).data
        bomb = bytes(header).replace(b"(3,)", b"(9999999999,)")
        record = changed()
        record["layer.bias"] = Array("float32", [3], "numpy.ndarray", bomb)
        tracemalloc.start()
        rejection(record)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

    def test_a_codec_that_fails_in_its_own_way(self, monkeypatch):
        monkeypatch.setattr(_stypes, "_CODECS", dict(_stypes._CODECS))  # what is registered here is gone afterwards
        register_stype("umbel tests: broken", bytes, _broken)
        record = changed()
        record["layer.bias"] = Array("float32", [3], "umbel tests: broken", b"")
        assert "cannot be decoded: ZeroDivisionError: " in rejection(record)

    @pytest.mark.parametrize("record", [None, {}, b"bytes", {"layer.weight": 1}, TEMPLATE["steps"]])
    def test_no_record_at_all(self, record):
        assert f"expected a ParametersRecord, got a {type(record).__name__}" in rejection(record)

    @pytest.mark.parametrize("name", ["", "..", "a\0b", "\x1b[31m", "é" * 5000])
    def test_names_are_shown_escaped_and_short(self, name):
        message = rejection(ParametersRecord.from_numpy(MODEL | {name: np.zeros(1)}))
        assert message.isprintable()
        assert len(message) < 300


class TestWeights:
    """A15."""

    @pytest.mark.parametrize(
        "weight",
        [
            0,
            0.0,
            -0.0,
            -1,
            -8.5,
            np.nan,
            np.inf,
            -np.inf,
            10**18,
            1e18,
            10**400,
            True,
            False,
            "60",
            b"60",
            None,
            [60],
            1j,
        ],
        ids=repr,
    )
    def test_what_is_no_weight(self, weight):
        message = rejection(TEMPLATE, weight)
        assert "expected a weight above 0 and at most 1e+09, got" in message
        assert len(message) < 200

    @pytest.mark.parametrize("weight", [1, 1e-9, 10**9, 1e9, np.float64(3), 0.5])
    def test_weights(self, weight):
        GATE.check(TEMPLATE, Update("a", weight, TEMPLATE))

    def test_a_bound_of_ones_own(self):
        gate = Gate(max_weight=100)
        gate.check(TEMPLATE, Update("a", 100, TEMPLATE))
        assert "at most 100, got 101" in rejection(TEMPLATE, 101, gate=gate)

    def test_no_weight_in_all(self):
        with pytest.raises(AggregationError, match="at least one update with a weight above 0"):
            aggregate(weighted_mean(), TEMPLATE, [Update("a", 0, TEMPLATE), Update("b", 0.0, TEMPLATE)])


def test_the_federation_without_the_bad_nodes_is_not_touched():
    good = [Update(f"n{i}", i + 1, changed(layer_bias=np.full(3, i, np.float32))) for i in range(4)]
    bad = [
        Update("n0a", 1, changed(layer_bias=np.float32([np.nan, 0, 0]))),
        Update("n1a", -8, changed()),
        Update("n2a", 1, changed(layer_bias=np.zeros((1, 3), np.float32))),
    ]
    passed = []
    for update in sorted(good + bad):
        try:
            GATE.check(TEMPLATE, update)
        except UmbelError:
            continue
        passed.append(update)
    assert aggregate(weighted_mean(), TEMPLATE, passed) == aggregate(weighted_mean(), TEMPLATE, good)


def _broken(data, dtype, shape):
    raise ZeroDivisionError
