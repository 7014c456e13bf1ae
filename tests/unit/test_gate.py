"""The gate: its bounds, and the norm that it measures. What it refuses is tested in tests/attacks/test_updates.py."""

import dataclasses
from math import fsum, sqrt

import numpy as np
import pytest

from umbel.aggregation import Update
from umbel.errors import StrategyError, UpdateRejected
from umbel.gate import Gate, Verdict
from umbel.records import ParametersRecord


def norm(template, values, **bounds):
    records = [ParametersRecord.from_numpy(named) for named in (template, values)]
    return Gate(max_norm=1e300, **bounds).check(records[0], Update("a", 1, records[1])).norm


def test_is_a_value():
    assert Gate() == Gate()
    assert Gate(max_norm=1) != Gate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Gate().finite = False


@pytest.mark.parametrize("name", ["max_norm", "max_weight"])
@pytest.mark.parametrize("bound", [0, -1, np.nan, np.inf])
def test_bounds_are_above_0(name, bound):
    with pytest.raises(StrategyError, match=f"expected a number above 0 for {name}, got {bound!r} - at Gate"):
        Gate(**{name: bound})


def test_measures_no_norm_without_a_bound():
    record = ParametersRecord.from_numpy({"w": np.ones(3)})
    assert Gate().check(record, Update("site", 2, record)) == Verdict("site", None)


def test_the_norm_is_over_all_float_and_complex_arrays():
    template = {
        "a": np.zeros(1, np.float32),
        "b": np.ones((1, 1), complex),
        "c": np.zeros(1, np.int8),
        "d": np.array([True]),
    }
    values = {"a": np.float32([2]), "b": np.array([[1 + 3j]]), "c": np.int8([5]), "d": np.array([False])}
    assert norm(template, values) == sqrt(4 + 9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float32", "float64"])
def test_the_norm_is_taken_in_float64(dtype):
    template = {"w": np.full(1000, 1, dtype)}
    values = {"w": np.full(1000, 4, dtype)}
    assert norm(template, values) == sqrt(9000)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65536, 65537, 200_001])
def test_the_norm_is_that_of_all_elements(size):
    rng = np.random.default_rng(size)
    template, values = rng.standard_normal((2, size))
    exact = sqrt(fsum(((values - template) ** 2).tolist()))
    assert norm({"w": template}, {"w": values}) == pytest.approx(exact, rel=1e-14)


def test_a_bound_is_inclusive():
    template, update = (ParametersRecord.from_numpy({"w": np.full(4, value)}) for value in (0.0, 1.0))
    assert Gate(max_norm=2).check(template, Update("a", 1, update)).norm == 2.0
    with pytest.raises(UpdateRejected, match="norm of at most"):
        Gate(max_norm=np.nextafter(2.0, 0)).check(template, Update("a", 1, update))


def test_integers_pass_whatever_their_bits():
    record = ParametersRecord.from_numpy({"w": np.array([-1, 0x7F800000], np.int32), "v": np.uint16([0x7F80, 0xFFFF])})
    Gate().check(record, Update("a", 1, record))


def test_scalars_and_empty_arrays_pass():
    record = ParametersRecord.from_numpy({"w": np.float32(1), "v": np.empty((0, 3)), "b": np.empty(0, bool)})
    assert Gate(max_norm=1).check(record, Update("a", 1, record)).norm == 0.0


def test_a_norm_beyond_the_range_of_float64_costs_one_node_its_update():
    template = ParametersRecord.from_numpy({"w": np.zeros(100_000)})
    far = ParametersRecord.from_numpy({"w": np.full(100_000, 1.2e154)})  # squares are finite, their sum is not
    with pytest.raises(UpdateRejected, match=r"at most 1\.0 from the model, got inf"):
        Gate(max_norm=1.0).check(template, Update("a", 1, far))


@pytest.mark.parametrize("values", [[0, 0, 0, 1e6], [0, 0], [0.1]])
def test_an_array_of_another_length_has_no_distance(values):
    template = {"w": np.zeros(3, np.float32), "v": np.zeros(2)}
    with pytest.raises(UpdateRejected, match=f"numbers in both records, got 3 and {len(values)}.* - at array 'w'"):
        norm(template, {"w": np.array(values, np.float32), "v": np.zeros(2)}, any_length=("w",))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_is_told_as_the_numbers_that_are_not(bad):
    template, update = (ParametersRecord.from_numpy({"w": np.array([1.0, value], np.float32)}) for value in (2, bad))
    with pytest.raises(UpdateRejected, match=r"expected finite numbers, got .*'w'"):
        Gate(max_norm=5.0).check(template, Update("a", 1, update))
    with pytest.raises(UpdateRejected, match=r"norm of at most 5\.0 from the model, got (nan|inf)"):
        Gate(max_norm=5.0, finite=False).check(template, Update("a", 1, update))
