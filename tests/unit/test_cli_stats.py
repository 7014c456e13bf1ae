import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from umbel.cli._stats import BLOCK, Difference, blocks, compare, measure, same_bytes, sparkline


def test_moments_of_more_than_one_block():
    values = np.random.default_rng(1).normal(3, 2, 3 * BLOCK + 17)
    stats = measure(values)
    assert stats.minimum == values.min()
    assert stats.maximum == values.max()
    assert stats.mean == pytest.approx(values.mean())
    assert stats.norm == pytest.approx(np.linalg.norm(values))
    assert sum(stats.histogram) == values.size
    assert list(stats.histogram) == np.histogram(values, 16)[0].tolist()


def test_what_is_not_finite_is_counted_and_left_out():
    stats = measure(np.array([1.0, np.nan, np.inf, -np.inf, 3.0, np.nan]))
    assert (stats.nans, stats.infinities) == (2, 2)
    assert (stats.minimum, stats.maximum, stats.mean) == (1, 3, 2)
    assert sum(stats.histogram) == 2


@pytest.mark.parametrize("values", [np.zeros((0, 5)), np.array([np.nan, np.inf])])
def test_nothing_finite_has_no_statistics(values):
    stats = measure(values)
    assert np.isnan([stats.minimum, stats.maximum, stats.mean]).all()
    assert stats.norm == 0
    assert sparkline(stats.histogram) == ""


def test_values_at_the_ends_of_float64():
    huge = measure(np.array([1e308, -1e308, 1e308]))
    assert huge.norm == pytest.approx(np.sqrt(3) * 1e308)
    assert huge.mean == pytest.approx(1e308 / 3)
    assert [huge.histogram[0], huge.histogram[-1]] == [1, 2]
    assert measure(np.array([3e-300, 4e-300])).norm == pytest.approx(5e-300)
    assert sum(measure(np.array([5e-324, 0.0])).histogram) == 2


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "longdouble", "complex64", "complex128"])
def test_dtypes_of_numpy(dtype):
    stats = measure(np.array([[0, 1], [1, 0]]).astype(dtype))
    assert (stats.minimum, stats.maximum, stats.mean) == (0, 1, 0.5)
    assert stats.norm == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"])
def test_dtypes_of_ml_dtypes(dtype):
    values = np.array([0, 1, 0, 1]).astype(getattr(ml_dtypes, dtype))
    assert measure(values).mean == 0.5
    assert compare(values, values).unequal == 0
    assert compare(values, values[::-1].copy()) == Difference(4, 1.0, pytest.approx(np.sqrt(2)))


def test_complex_elements_count_by_their_magnitude():
    assert measure(np.array([3 + 4j, 0])).maximum == 5
    assert compare(np.array([1j]), np.array([1 + 0j])).max_abs == pytest.approx(np.sqrt(2))


def test_blocks_take_any_memory_layout_in_c_order():
    for array in (np.arange(12).reshape(3, 4).T, np.asfortranarray(np.arange(12).reshape(3, 4)), np.array(5)):
        assert np.concatenate(list(blocks(array))).tolist() == array.ravel(order="C").tolist()


def test_memory_stays_flat():
    values = np.ones(64 * BLOCK, np.float32)
    tracemalloc.start()
    measure(values)
    compare(values, values)
    same_bytes(values, values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * BLOCK * 8 < values.nbytes


def test_a_constant_array_has_one_full_bar():
    assert sparkline(measure(np.full(9, 2.5)).histogram).count("█") == 1


def test_every_bin_that_is_not_empty_shows():
    assert sparkline((1000, 1, 0)) == "█▁ "
    assert sparkline((1000, 1, 0), "ascii") == "@. "


def test_the_size_of_a_difference():
    difference = compare(np.array([3.0, 4.0, 0.0]), np.array([3.0, 4.0, 2.5]))
    assert difference == Difference(1, 2.5, 0.5)


def test_differences_from_nothing_are_infinite_and_of_nothing_none():
    assert compare(np.zeros(3), np.ones(3)).relative == np.inf
    assert compare(np.zeros(3), np.zeros(3)) == Difference(0, 0.0, 0.0)


def test_bits_decide_what_is_equal():
    nan = np.array([np.nan])
    assert compare(nan, nan).unequal == 0
    assert compare(np.array([0.0]), np.array([-0.0])).unequal == 1


def test_integers_are_subtracted_exactly():
    low, high = np.array([2**63 - 2]), np.array([2**63 - 1])
    assert compare(low, high).max_abs == 1
    assert compare(np.array([-(2**63)]), high).max_abs == 2.0**64
    assert compare(np.array([1], ">i4"), np.array([3], ">i4")).max_abs == 2


def test_arrays_of_two_dtypes():
    before = np.array([1.0, 2.0, 3.0], np.float32)
    assert compare(before, before.astype(ml_dtypes.bfloat16)) == Difference(0, 0.0, 0.0)
    assert compare(before, np.array([1, 2, 4], np.int8)).max_abs == 1


def test_payloads_are_compared_by_bytes():
    assert same_bytes(b"abc", memoryview(b"abc"))
    assert not same_bytes(b"abc", b"abd")
    assert not same_bytes(b"abc", b"abcd")
    assert same_bytes(b"", b"")
