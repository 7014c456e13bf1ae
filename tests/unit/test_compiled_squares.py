"""The compiled loop of squared distances has NumPy's bits, whatever the numbers, their count and how they are cut."""

from functools import partial
from itertools import accumulate
from math import inf, isnan, nan

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import _squares, squared_distance
from umbel.aggregation._squares import parts_of, squares, squares_of_each, sums
from umbel.errors import AggregationError
from umbel.records import Array, ParametersRecord

compiled = pytest.mark.skipif(not _squares.LOOPS, reason="there was no C compiler when umbel was installed")

ROW, PART, BLOCK = 2**8, 2**14, 2**18
PARTS = [PART - 1, PART, PART + 1, 3 * PART + 77, BLOCK - 1, BLOCK + ROW + 3]
SIZES = [0, 1, 7, ROW - 1, ROW, ROW + 1, 3 * ROW + 5, *PARTS]
KINDS = [np.float32, np.float64]
HARD = [0.0, -0.0, inf, -inf, nan, 1e-45, -1e-40, 3.4e38, -3.4e38, 1.5]
# From where all squares of a kind go under to where all go over.
POWERS = {
    np.float32: [-45, -38, -30, -24, -22, -20, -11, 0, 9, 18, 19, 20, 30, 37],
    np.float64: [-320, -200, -162, -160, -45, -11, 0, 30, 140, 152, 153, 154, 160, 300],
}


def numbers(seed, size, dtype):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6, size)).astype(dtype)


def strewn(array, bad):
    """The array with a hard number, or any of them, in some places."""
    rng = np.random.default_rng(array.size)
    places = rng.integers(0, array.size, 1 + array.size // 3000)
    array[places] = rng.choice(np.array(HARD), places.size) if bad == "any" else bad
    return array


def record_of(array):
    return ParametersRecord.from_numpy({"w": array})


def same(one, other):
    """Bits are the same; of what is not a number, only that it is none."""
    here, there = np.isnan(one), np.isnan(other)
    return (here == there).all() and one[~here].tobytes() == other[~there].tobytes()


def both(monkeypatch, one, other, threads=None):
    """The squared distance of two records, once it is certain that both ways find the same, to the bit."""
    found = squared_distance(one, other, threads)
    with monkeypatch.context() as patch:
        patch.setattr(_squares, "LOOPS", {})
        expected = squared_distance(one, other, threads)
    assert same(np.array([found]), np.array([expected]))
    return found


def parts(monkeypatch, one, other):
    """The sums of the parts by the loop, once it is certain that NumPy's are the same."""
    found = squares(one, other, one.dtype)
    with monkeypatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(_squares, "LOOPS", {})
        expected = squares(one, other, one.dtype)
    assert found.size == parts_of(one.size)
    assert same(found, expected)
    return found


def halved(lanes):
    """The sum of lanes, half by half, number by number."""
    numbers = [float(each) for each in lanes]
    while len(numbers) > 1:
        half = len(numbers) // 2
        numbers = [here + there for here, there in zip(numbers[:half], numbers[half:], strict=True)]
    return numbers[0]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 63, 64, 65, 129])
@pytest.mark.parametrize("rest", [0, 1, ROW - 1])
@pytest.mark.parametrize("bad", [1.5, "any"])
def test_numpy_adds_row_after_row_in_the_dtype_of_the_squares(dtype, rows, rest, bad):
    with np.errstate(all="ignore"):
        given = np.abs(strewn(np.square(numbers(rows, rows * ROW + rest, dtype)), bad))
        expected = []
        for start in range(0, given.size, PART):
            part = np.zeros(-(-given[start : start + PART].size // ROW) * ROW, dtype)
            part[: given[start : start + PART].size] = given[start : start + PART]
            *_, lanes = accumulate(part.reshape(-1, ROW))
            assert lanes.dtype == dtype
            expected.append(halved(lanes))
        assert same(sums(given), np.array(expected))


@compiled
class TestTheLoop:
    @pytest.mark.parametrize("dtype", KINDS)
    @pytest.mark.parametrize("size", SIZES)
    def test_of_any_number_of_elements(self, monkeypatch, dtype, size):
        one, other = (numbers(seed, size, dtype) for seed in (1, 2))
        parts(monkeypatch, one, other)
        found = both(monkeypatch, record_of(one), record_of(other))
        assert found == pytest.approx(np.square(np.subtract(one, other, dtype=np.float64)).sum(), rel=4e-6)

    @pytest.mark.parametrize("dtype", KINDS)
    @pytest.mark.parametrize("size", SIZES[1:])
    @pytest.mark.parametrize("bad", [*HARD, "any"])
    def test_of_what_is_not_finite_or_nearly_so(self, monkeypatch, dtype, size, bad):
        one, other = strewn(numbers(1, size, dtype), bad), numbers(2, size, dtype)
        parts(monkeypatch, one, other)
        found = both(monkeypatch, record_of(one), record_of(other))
        if bad != "any":
            assert isnan(found) if isnan(bad) else (found == inf) == np.isinf(bad)
        both(monkeypatch, record_of(one), record_of(one))

    @pytest.mark.parametrize("size", [5, ROW + 3, PART + 3 * ROW + 1])
    @pytest.mark.parametrize(("dtype", "power"), [(kind, each) for kind in KINDS for each in POWERS[kind]])
    def test_of_numbers_whose_squares_go_under_or_over(self, monkeypatch, dtype, power, size):
        rng = np.random.default_rng(size)
        one, other = ((rng.uniform(-1, 1, size) * 10.0**power).astype(dtype) for _ in range(2))
        parts(monkeypatch, one, other)
        found = both(monkeypatch, record_of(one), record_of(other))
        with np.errstate(over="ignore"):
            expected = np.square(np.subtract(one, other, dtype=np.float64)).sum()
        assert found == pytest.approx(expected, rel=4e-6, abs=0)

    @pytest.mark.parametrize("dtype", KINDS)
    def test_of_what_does_not_differ(self, monkeypatch, dtype):
        one = numbers(1, BLOCK + 9, dtype)
        assert both(monkeypatch, record_of(one), record_of(one)) == 0
        assert both(monkeypatch, record_of(np.full(9, 0.0, dtype)), record_of(np.full(9, -0.0, dtype))) == 0

    @pytest.mark.parametrize("threads", [1, 2, 4])
    @pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
    def test_of_whole_records_of_many_arrays(self, monkeypatch, threads, scale):
        shapes = {"a": (300, 1001), "b": (2**20 + 7,), "c": (3,), "d": (0,), "f": (), "y": (9000,), "z": (1000, 33)}
        kinds = {"a": ml_dtypes.bfloat16, "c": np.float64, "f": np.complex128, "y": np.float64, "z": np.complex64}
        records = []
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            arrays = {name: np.asarray(rng.standard_normal(shape)) * scale for name, shape in shapes.items()}
            records.append(
                ParametersRecord.from_numpy({n: each.astype(kinds.get(n, np.float32)) for n, each in arrays.items()})
            )
        found = both(monkeypatch, *records, threads=threads)
        assert 0 < found < inf
        assert found == squared_distance(*records, 3)

    def test_does_what_it_can_and_nothing_else(self, monkeypatch):
        done = []

        def noted(loop, dtype, *arguments):
            done.append((dtype.name, arguments[-1]))
            loop(*arguments)

        loops = {dtype: partial(noted, loop, dtype) for dtype, loop in _squares.LOOPS.items()}
        narrow = [np.float16, ml_dtypes.bfloat16, np.int32, np.bool_]
        kinds = [np.float32, np.float64, np.complex64, np.complex128, *narrow]
        one, other = (
            ParametersRecord.from_numpy({str(i): np.full(10 + i, value, kind) for i, kind in enumerate(kinds)})
            for value in (0, 1)
        )
        monkeypatch.setattr(_squares, "LOOPS", loops)
        assert both(monkeypatch, one, other) == 10 + 11 + 12 + 13 + 14 + 15
        assert sorted(done) == [("float32", 10), ("float32", 2 * 12), ("float64", 11), ("float64", 2 * 13)]

    @pytest.mark.parametrize("size", [9, 2 * BLOCK])
    def test_of_what_does_not_lie_in_memory_as_it_should(self, monkeypatch, size):
        """Payloads may begin anywhere."""
        one, other = (numbers(seed, size, np.float32) for seed in (1, 2))
        crooked = Array("float32", [size], "raw", memoryview(b"x" + other.tobytes())[1:])
        found = both(monkeypatch, record_of(one), ParametersRecord({"w": crooked}))
        assert found == both(monkeypatch, ParametersRecord({"w": crooked}), record_of(one))
        assert found == squared_distance(record_of(one), record_of(other))

    @pytest.mark.parametrize("dtype", KINDS)
    @pytest.mark.parametrize("bad", [1.5, "any"])
    def test_of_small_arrays_that_stand_side_by_side(self, monkeypatch, dtype, bad):
        sizes = [0, 1, 7, 0, ROW - 1, ROW, ROW + 1, 3 * ROW + 5, PART, PART - 1, 2, 0]
        ends = np.array([*accumulate(sizes)], np.uintp)
        one, other = strewn(numbers(1, sum(sizes), dtype), bad), numbers(2, sum(sizes), dtype)
        with np.errstate(all="ignore"):
            found = squares_of_each(one, other, ends, one.dtype)
            monkeypatch.setattr(_squares, "LOOPS_OF_EACH", {})
            assert same(found, squares_of_each(one, other, ends, one.dtype))
            monkeypatch.setattr(_squares, "LOOPS", {})
            assert same(found, squares_of_each(one, other, ends, one.dtype))
        assert (found[np.array(sizes) == 0] == 0).all()

    def test_of_arrays_of_two_sizes_there_is_none(self):
        with pytest.raises(AggregationError, match=f"got {BLOCK} and {BLOCK - 1} - at array 'w'"):
            squared_distance(record_of(np.zeros(BLOCK, np.float32)), record_of(np.zeros(BLOCK - 1, np.float32)))
