"""The distance between two records: in float32 where that is enough, in float64 where it is not."""

from math import inf, isnan

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import squared_distance
from umbel.errors import AggregationError
from umbel.records import ParametersRecord


def apart(one, other):
    return squared_distance(*(ParametersRecord.from_numpy({"w": np.asarray(each)}) for each in (one, other)))


def exact(one, other):
    return float(np.sum(np.square(np.asarray(one, np.float64) - np.asarray(other, np.float64))))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-3, 1.0, 1e6, 1e18, 1e30])
@pytest.mark.parametrize("size", [1, 4_095, 300_001, 1_200_000])
def test_it_is_near_the_true_one_at_any_scale(scale, size):
    random = np.random.default_rng(size)
    one, other = (random.standard_normal((2, size)) * scale).astype(np.float32)
    assert apart(one, other) == pytest.approx(exact(one, other), rel=4e-6)


def test_wide_arrays_are_done_in_float64():
    random = np.random.default_rng(2)
    one, other = random.standard_normal((2, 100_000))
    assert apart(one, one + (other - one) * 1e-9) == pytest.approx(exact(one, one + (other - one) * 1e-9), rel=1e-12)


def test_small_differences_of_large_numbers_count():
    one = np.full(10, 1e8, np.float32)
    assert apart(one, np.nextafter(one, np.float32(inf))) == 10 * 8.0**2


def test_narrow_and_wide_arrays_count_together():
    arrays = {
        "half": np.array([1.0, 2.0], ml_dtypes.bfloat16),
        "single": np.array([3.0], np.float32),
        "double": np.array([1e-12]),
        "complex": np.array([3 + 4j], np.complex64),
        "count": np.array([7]),
    }
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    made = [ParametersRecord.from_numpy(each) for each in (arrays, zeros)]
    assert squared_distance(*made) == pytest.approx(1 + 4 + 9 + 25 + 1e-24, rel=1e-15)


def test_a_number_that_float32_has_no_square_of():
    assert apart(np.array([1e30], np.float32), np.zeros(1, np.float32)) == pytest.approx(1e60, rel=1e-6)
    assert apart(np.array([1e200]), np.zeros(1)) == inf


def test_what_is_not_finite_stays_so():
    assert isnan(apart(np.array([np.nan], np.float32), np.zeros(1, np.float32)))
    assert apart(np.array([inf], np.float32), np.zeros(1, np.float32)) == inf


def test_equal_records_are_no_distance_apart():
    assert apart(np.ones(5, np.float32), np.ones(5, np.float32)) == 0.0


def test_another_size_is_refused_by_name():
    with pytest.raises(AggregationError, match=r"as many numbers .*'w'"):
        apart(np.zeros(3, np.float32), np.zeros(4, np.float32))
