"""The weighted mean and the sum: what comes out of each dtype, and what is refused."""

import numpy as np
import pytest

from umbel.aggregation import Update, aggregate, total, weighted_mean
from umbel.errors import AggregationError
from umbel.gate import Gate
from umbel.records import Array, ParametersRecord, array_from_numpy

MEAN = weighted_mean()
SUM = total()
NARROW = [
    "float16",
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
]
FLOATS = [*NARROW, "float32", "float64", "complex64", "complex128"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int4", "uint4"]


def record(dtype, *values):
    return ParametersRecord.from_numpy(
        {"w": np.array(values, np.float64 if "complex" not in dtype else None).astype(dtype)}
    )


def cohort(records, weights=None):
    weights = weights or [1.0] * len(records)
    return [Update(f"node-{i}", weight, r) for i, (r, weight) in enumerate(zip(records, weights, strict=True))]


def combine(aggregator, records, weights=None):
    return aggregate(aggregator, records[0], cohort(records, weights))["w"].numpy()


class TestMean:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_keeps_the_dtype_of_floats(self, dtype):
        mean = combine(MEAN, [record(dtype, 1, 2), record(dtype, 2, 2)], [1, 1])
        assert mean.dtype == np.dtype(dtype)
        nearest = np.array([1.5, 2.0], np.complex128 if "complex" in dtype else np.float32).astype(dtype)
        assert mean.tolist() == nearest.tolist()

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_rounds_integers_half_to_even(self, dtype):
        mean = combine(MEAN, [record(dtype, 0, 1, 2, 3), record(dtype, 1, 2, 3, 3)])
        assert mean.dtype == np.dtype(dtype)
        assert mean.astype(int).tolist() == [0, 2, 2, 3]

    @pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "int4"])
    def test_rounds_negative_integers_half_to_even(self, dtype):
        mean = combine(MEAN, [record(dtype, -1, -2, -3, 1), record(dtype, -2, -3, -4, -2)])
        assert mean.astype(int).tolist() == [-2, -2, -4, 0]

    def test_weighs(self):
        mean = combine(MEAN, [record("float32", 0), record("float32", 8)], [3, 1])
        assert mean.tolist() == [2.0]

    def test_takes_the_parts_of_complex_numbers_one_by_one(self):
        mean = combine(MEAN, [record("complex64", 1 + 2j), record("complex64", 3 - 6j)], [3, 1])
        assert mean.tolist() == [1.5 + 0j]

    @pytest.mark.parametrize(
        ("votes", "weights", "expected"),
        [
            ([True, False], [2, 1], True),
            ([True, False], [1, 2], False),
            ([True, False], [1, 1], False),
            ([True], [1], True),
        ],
        ids=["most", "few", "tie", "one"],
    )
    def test_decides_bools_by_the_majority_of_the_weight(self, votes, weights, expected):
        mean = combine(MEAN, [record("bool", vote) for vote in votes], weights)
        assert mean.dtype == np.bool_
        assert mean.tolist() == [expected]

    @pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 2**60 + 3])
    def test_of_equal_int64_is_that_integer(self, value):
        one = ParametersRecord.from_numpy({"w": np.array([value], np.int64)})
        assert combine(MEAN, [one] * 7, [3, 0.1, 12, 7, 1e-3, 2.5, 1]).tolist() == [value]

    @pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**53 + 1, 0])
    def test_of_equal_uint64_is_that_integer(self, value):
        one = ParametersRecord.from_numpy({"w": np.array([value], np.uint64)})
        assert combine(MEAN, [one] * 7, [3, 0.1, 12, 7, 1e-3, 2.5, 1]).tolist() == [value]

    @pytest.mark.parametrize(("dtype", "low", "high"), [("int64", -(2**63), 2**63 - 1), ("uint64", 0, 2**64 - 1)])
    def test_of_the_extremes_of_64_bits_stays_in_range(self, dtype, low, high):
        ends = [ParametersRecord.from_numpy({"w": np.array([value], dtype)}) for value in (low, high)]
        for records, weights, near in [
            (ends, [1, 1], (low + high) / 2),
            (ends[::-1], [1, 1], (low + high) / 2),
            (ends, [1, 2**60], high),
            (ends[::-1], [2**60, 1], high),
            (ends, [2**60, 1], low),
            (ends[::-1], [1, 2**60], low),
        ]:
            (mean,) = combine(MEAN, records, weights).tolist()
            assert abs(mean - near) <= 2**12
            assert low <= mean <= high

    @pytest.mark.parametrize("dtype", ["int64", "uint64"])
    def test_of_one_wide_integer_is_that_of_many(self, dtype):
        low, high = (-(2**63), 2**63 - 1) if dtype == "int64" else (0, 2**64 - 1)
        values = [low, low + 1, 0, 1, 2**53 + 1, 2**61 + 12345, 2**62 + 2**8 + 3, 2**63 - 1, high - 1, high]
        for first in values:
            for second in values:
                pairs = [np.array([value], dtype) for value in (first, second)]
                tiled = [np.tile(pair, 3) for pair in pairs]
                for weights in ([3, 5], [1, 1], [1, 2**60]):
                    one = combine(MEAN, [ParametersRecord.from_numpy({"w": pair}) for pair in pairs], weights)
                    many = combine(MEAN, [ParametersRecord.from_numpy({"w": pair}) for pair in tiled], weights)
                    assert many.tolist() == one.tolist() * 3

    def test_survives_numbers_whose_weighted_sum_would_overflow(self):
        mean = combine(MEAN, [record("float32", 1e38, -3e38)] * 3, [100, 2000, 1e9])
        assert mean == pytest.approx([1e38, -3e38], rel=1e-6)

    def test_survives_weights_at_the_ends_of_float64(self):
        records = [record("float32", 1.0), record("float32", 3.0)]
        assert combine(MEAN, records, [1e300, 3e300]) == pytest.approx([2.5], rel=5e-7)
        assert combine(MEAN, records, [1e-300, 3e-300]) == pytest.approx([2.5], rel=5e-7)

    def test_leaves_out_updates_of_weight_0(self):
        records = [record("float32", np.nan), record("float32", 0.1), record("float32", np.inf)]
        assert combine(MEAN, records, [0, 0.3, 0]).tobytes() == np.float32(0.1).tobytes()

    def test_names_an_array_whose_mean_is_not_finite(self):
        with pytest.raises(AggregationError, match=r"1 elements .* NaN, infinite .* - at array 'w'"):
            combine(MEAN, [record("float32", 1, np.inf), record("float32", 1, 1)])

    def test_passes_on_what_is_not_finite_if_told_so(self):
        mean = combine(weighted_mean(finite=False), [record("float32", 1, np.inf, np.nan), record("float32", 1, 1, 1)])
        assert mean[:2].tolist() == [1.0, np.inf]
        assert np.isnan(mean[2])

    def test_never_makes_infinity_of_finite_numbers(self):
        # Ten of the largest float32 under weights that round up at each step: only the division overflows, if at all.
        most = float(np.finfo(np.float32).max)
        for finite in (True, False):
            for weights in ([1.0] * 10, [0.1] * 10, [1 + i / 7 for i in range(10)], [3.0] * 3):
                try:
                    mean = combine(weighted_mean(finite=finite), [record("float32", most)] * len(weights), weights)
                except AggregationError:
                    continue
                assert mean == pytest.approx([most], rel=1e-5)

    def test_handles_arrays_of_many_blocks(self):
        values = np.arange(300_001, dtype=np.float32)
        records = [ParametersRecord.from_numpy({"w": values * scale}) for scale in (1, 2, 3)]
        for dtype in ("float32", "bfloat16", "float64", "int64", "int32", "bool"):
            cast = [ParametersRecord.from_numpy({"w": r["w"].numpy().astype(dtype)}) for r in records]
            whole = combine(MEAN, cast, [1, 2, 1])
            parts = []
            for start in range(0, 300_001, 999):
                part = [ParametersRecord.from_numpy({"w": r["w"].numpy()[start : start + 999]}) for r in cast]
                parts.append(combine(MEAN, part, [1, 2, 1]))
            assert whole.tobytes() == np.concatenate(parts).tobytes()

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 1, 3)])
    def test_keeps_the_shape(self, shape):
        one = ParametersRecord.from_numpy({"w": np.ones(shape, np.float32)})
        mean = combine(MEAN, [one, one])
        assert mean.shape == shape
        assert (mean == 1).all()

    def test_keeps_names_and_order_of_the_template(self):
        template = ParametersRecord.from_numpy({"b": np.zeros(1), "a": np.zeros(2, np.int8)})
        other = ParametersRecord.from_numpy({"a": np.zeros(2, np.int8), "b": np.ones(1)})
        mean = aggregate(MEAN, template, cohort([other, template]))
        assert list(mean) == ["b", "a"]
        assert mean["b"].numpy().tolist() == [0.5]

    def test_reads_any_stype_and_order_and_writes_raw(self):
        values = np.arange(6, dtype=np.float64).reshape(2, 3)
        forms = [values, np.asfortranarray(values), values.astype(">f8")]
        records = [ParametersRecord({"w": array_from_numpy(form)}) for form in forms]
        mean = aggregate(MEAN, records[0], cohort(records))
        assert mean["w"].stype == "raw"
        assert mean["w"].numpy().tolist() == values.tolist()

    @pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
    def test_reads_payloads_at_any_address(self, dtype):
        drawn = (
            np.random.default_rng(1).integers(0, 2, (3, 1000))
            if dtype == "bool"
            else np.arange(3000).reshape(3, -1) % 8
        )
        records = [ParametersRecord.from_numpy({"w": values.astype(np.float32).astype(dtype)}) for values in drawn]
        moved = []
        for each in records:
            array = each["w"]
            odd = memoryview(b"-" + bytes(array.data))[1:]
            moved.append(ParametersRecord({"w": Array(array.dtype, array.shape, "raw", odd)}))
            Gate(max_norm=1e9).check(each, Update("a", 1, moved[-1]))
        assert combine(MEAN, moved, [3, 5, 7]).tobytes() == combine(MEAN, records, [3, 5, 7]).tobytes()

    def test_of_an_empty_record_is_empty(self):
        assert len(aggregate(MEAN, ParametersRecord(), cohort([ParametersRecord()]))) == 0


class TestSum:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_adds_floats(self, dtype):
        assert combine(SUM, [record(dtype, 1, 0.5)] * 2, [7, 9]).tolist() == record(dtype, 2, 1)["w"].numpy().tolist()

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_adds_integers(self, dtype):
        summed = combine(SUM, [record(dtype, 1, 2), record(dtype, 3, 0), record(dtype, 1, 1)])
        assert summed.dtype == np.dtype(dtype)
        assert summed.astype(int).tolist() == [5, 3]

    def test_is_exact_beyond_float64(self):
        values = [2**62 - 1, 2**61 + 1, -(2**60) - 1, 1]
        records = [ParametersRecord.from_numpy({"w": np.array([value])}) for value in values]
        assert combine(SUM, records).tolist() == [sum(values)]

    def test_may_leave_the_range_on_the_way(self):
        values = [2**63 - 1, 2**63 - 1, -(2**63), -5]
        records = [ParametersRecord.from_numpy({"w": np.array([value])}) for value in values]
        assert combine(SUM, records).tolist() == [sum(values)]

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [
            ("int8", 100),
            ("int8", -100),
            ("uint16", 2**16 - 1),
            ("int32", 2**31 - 1),
            ("int64", 2**63 - 1),
            ("int64", -(2**63)),
            ("uint64", 2**64 - 1),
            ("uint4", 9),
            ("float16", 60000),
            ("bfloat16", 3e38),
            ("float8_e4m3fn", 448),
            ("float4_e2m1fn", 6),
            ("float32", 3e38),
            ("float64", 1.7e308),
            ("complex64", 3e38),
        ],
    )
    def test_refuses_a_sum_outside_the_dtype(self, dtype, value):
        values = np.array([value, 0]) if isinstance(value, int) and value >= 2**63 else np.array([float(value), 0])
        if dtype in ("int64", "uint64"):
            values = np.array([value, 0], dtype)
        one = ParametersRecord.from_numpy({"w": values.astype(dtype)})
        with pytest.raises(
            AggregationError, match=rf"^1 elements .* outside {dtype.replace('complex64', 'float32')}.*'w'$"
        ):
            combine(SUM, [one] * 2)

    def test_has_no_sum_of_bools(self):
        with pytest.raises(AggregationError, match=r"bool, which has no sum.*array 'w'"):
            combine(SUM, [record("bool", True)])

    def test_of_one_is_that_one(self):
        assert combine(SUM, [record("float16", -0.0, 6e-8)]).tobytes() == record("float16", -0.0, 6e-8)["w"].data
