"""The compiled loop of distances has NumPy's bits, whatever the numbers, their count and how they are cut."""

import ml_dtypes
import numpy as np
import pytest

from umbel.aggregation import Update, _distances
from umbel.aggregation._distances import distances
from umbel.records import Array, ParametersRecord

pytestmark = pytest.mark.skipif(not _distances.LOOPS, reason="there was no C compiler when umbel was installed")

RUN, STRIP, COLUMNS = 2048, 256, 2**14
SIZES = [1, 7, STRIP, STRIP + 1, RUN - 1, RUN, RUN + 1, 3 * RUN + 5, COLUMNS, 2 * COLUMNS + RUN + 3]
KINDS = [np.float32, np.float64]
# What is of each kind near the ends of what is rounded, and counted, as it is.
LARGE = {np.float32: [124, 125, 126, 127], np.float64: [478, 479, 480, 481, 1000, 1023]}
SMALL = {np.float32: [-126, -127, -130, -148, -149], np.float64: [-478, -479, -480, -481, -482, -1022, -1074]}
HARD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3.4e38, -3.4e38, 1.5]


def numbers(seed, size, dtype):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6, size)).astype(dtype)


def records_of(arrays):
    return [ParametersRecord.from_numpy({"w": array}) for array in arrays]


def both(monkeypatch, model, *records, threads=None):
    """The distances of records, once it is certain that both ways find the same, to the bit."""
    updates = [Update(f"node-{place:03}", 1.0, record) for place, record in enumerate(records)]
    found = distances(model, updates, threads)
    with monkeypatch.context() as patch:
        patch.setattr(_distances, "LOOPS", {})
        expected = distances(model, updates, threads)
    assert found.model.tobytes() == expected.model.tobytes()
    assert found.others.tobytes() == expected.others.tobytes()
    return found


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 65])
def test_of_any_number_of_elements_and_updates(monkeypatch, dtype, size, count):
    found = both(monkeypatch, *records_of(numbers(place, size, dtype) for place in range(count + 1)))
    assert len(found.alive) == count


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bad", [*HARD, "any"])
def test_of_what_is_not_finite_or_nearly_so(monkeypatch, dtype, size, bad):
    arrays = [numbers(place, size, dtype) for place in range(11)]
    rng = np.random.default_rng(size)
    for array in arrays[1::2]:
        places = rng.integers(0, size, 1 + size // 3000)
        array[places] = rng.choice(np.array(HARD), places.size) if bad == "any" else bad
    found = both(monkeypatch, *records_of(arrays))
    assert set(found.alive) >= {1, 3, 5, 7, 9}
    if isinstance(bad, float) and not np.isfinite(bad):
        assert found.alive == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3.4e38])
def test_of_a_model_that_is_not_finite_or_nearly_so(monkeypatch, bad):
    arrays = [numbers(place, RUN + 9, np.float32) for place in range(5)]
    arrays[0][RUN + 1] = bad
    arrays[2][RUN + 1] = -3.4e38
    found = both(monkeypatch, *records_of(arrays))
    assert found.alive == ([0, 2, 3] if np.isfinite(bad) else [])


@pytest.mark.parametrize(("dtype", "power"), [(kind, each) for kind in KINDS for each in LARGE[kind] + SMALL[kind]])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_of_the_largest_and_the_smallest(monkeypatch, dtype, power, count):
    """A run has its largest number just at a power of two, or next to it on either side; others may be as they like."""
    unit = np.ldexp(dtype(1), power)
    rng = np.random.default_rng(count)
    arrays = [np.zeros(4 * RUN, dtype)]
    for _ in range(count):
        array = (rng.uniform(-1, 1, 4 * RUN) * unit).astype(dtype)
        array[[0, RUN, 2 * RUN]] = -unit, np.nextafter(unit, dtype(0)), np.nextafter(unit, dtype(np.inf))
        array[3 * RUN :] = rng.standard_normal(RUN)
        arrays.append(array)
    both(monkeypatch, *records_of(arrays))


@pytest.mark.parametrize("dtype", KINDS)
def test_of_numbers_just_between_two_that_are_rounded_to(monkeypatch, dtype):
    rng = np.random.default_rng(1)
    arrays = [np.zeros(2 * RUN, dtype)]
    for place in range(6):
        halves = (2 * rng.integers(-(2**20), 2**20, 2 * RUN) + 1) * 2.0**-22
        halves[::RUN] = 0.75 if place % 2 else 2.0**-place
        arrays.append(halves.astype(dtype))
    both(monkeypatch, *records_of(arrays))


@pytest.mark.parametrize("dtype", KINDS)
def test_of_sums_as_long_as_float64_can_hold(monkeypatch, dtype):
    """All have the most digits there are, and the same sign."""
    odd = 1 - np.random.default_rng(2).integers(1, 9, (11, 3 * RUN)) * 2.0**-21
    odd[:, ::RUN] = 1 - 2.0**-24
    odd[0] = 0
    found = both(monkeypatch, *records_of(odd.astype(dtype)))
    assert (found.model > 3 * RUN * (1 - 2.0**-17)).all()


def test_of_what_does_not_differ(monkeypatch):
    same = numbers(1, 3 * RUN, np.float32)
    found = both(monkeypatch, *records_of([same, same, -same, same, -same]))
    assert found.model[0] == found.model[2] == found.others[0, 2] == found.others[1, 3] == 0 < found.others[0, 1]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_of_whole_records_of_many_arrays(monkeypatch, threads):
    shapes = {"a": (300, 1001), "b": (2**20 + 7,), "c": (3,), "d": (0,), "e": (5000,), "f": (), "z": (1000, 33)}
    kinds = {"a": ml_dtypes.bfloat16, "c": np.float64, "e": np.int32, "z": np.complex64}
    records = []
    for place in range(6):
        rng = np.random.default_rng(place)
        arrays = {name: np.asarray(rng.standard_normal(shape)) * 9 for name, shape in shapes.items()}
        records.append(
            ParametersRecord.from_numpy({n: each.astype(kinds.get(n, np.float32)) for n, each in arrays.items()})
        )
    assert len(both(monkeypatch, *records, threads=threads).alive) == 5


def test_of_what_does_not_lie_in_memory_as_it_should(monkeypatch):
    """Payloads may begin anywhere."""
    size = 2 * COLUMNS
    arrays = [numbers(place, size, np.float32) for place in range(4)]
    crooked = [
        ParametersRecord({"w": Array("float32", [size], "raw", memoryview(b"x" * place + array.tobytes())[place:])})
        for place, array in enumerate(arrays)
    ]
    found = both(monkeypatch, *crooked)
    assert found.others.tobytes() == both(monkeypatch, *records_of(arrays)).others.tobytes()
