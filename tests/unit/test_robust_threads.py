"""Robust rules in several threads: how work is dealt out, that it changes no bit, and whose error is raised."""

from dataclasses import replace
from functools import partial
from itertools import chain
from math import fsum
from threading import current_thread

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_robust_laws import BREAKDOWN
from umbel.aggregation import Update, krum, median, squared_distance
from umbel.aggregation._distances import distances
from umbel.aggregation._kinds import mean_of
from umbel.aggregation._layout import slots
from umbel.aggregation._stacked import Place, dealt, rows_of, stacked
from umbel.aggregation._turns import in_turns
from umbel.errors import AggregationError
from umbel.records import ParametersRecord, digest
from umbel.records._threads import cores

DTYPES = [np.float32, np.int64, ml_dtypes.bfloat16, np.float64, np.complex64, np.bool_]
COUNT = 7
RULES = [make(1, COUNT) for make, _ in BREAKDOWN.values()]


@pytest.fixture(scope="module")
def updates():
    """Updates of so many elements that all threads have some: arrays that are not cut evenly, and small ones."""
    random = np.random.default_rng(11)
    found = []
    for turn in range(COUNT):
        drawn = random.standard_normal(220_001) * 9
        arrays = {np.dtype(dtype).name: drawn.astype(dtype) for dtype in DTYPES}
        small = {f"{name} small": array[:7] for name, array in arrays.items()}
        found.append(Update(f"node-{turn}", 1 + turn, ParametersRecord.from_numpy({**arrays, **small})))
    return found


def in_threads(rule, count):
    return replace(rule.reduce, reduce=replace(rule.reduce.reduce, threads=count))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_bits_do_not_depend_on_threads(updates, rule):
    template = updates[0].record
    folds = [in_threads(rule, count) for count in (1, 2, 3, 4)]
    assert len({digest(fold.finish(fold.start(template), updates)) for fold in folds}) == 1


def test_distances_do_not_depend_on_threads(updates):
    template = updates[0].record
    found = [distances(template, updates, threads) for threads in (1, 2, 3, 4, 9)]
    assert len({(each.model.tobytes(), each.others.tobytes()) for each in found}) == 1
    x0, *x = (np.concatenate([parts(array) for array in each.record.values()]) for each in (updates[0], *updates))
    np.testing.assert_allclose(found[0].model, [((each - x0) ** 2).sum() for each in x], rtol=6e-6)


def test_distances_are_as_near_as_is_said_where_a_whole_run_is_rounded_the_same_way():
    step = np.float32(2.0**-21)
    one, other = np.full((2, 2048), step, np.float32) * np.array([[0.999], [-0.999]], np.float32)
    one[0] = other[0] = 1 + step
    updates = [Update(f"n{i}", 1, ParametersRecord.from_numpy({"w": w})) for i, w in enumerate((one, other))]
    found = distances(ParametersRecord.from_numpy({"w": np.zeros(2048, np.float32)}), updates)
    error = abs(np.sqrt(found.others[0, 1]) - np.linalg.norm(one.astype(float) - other))
    assert 0 < error <= 2.2e-5 * (np.linalg.norm(one) + np.linalg.norm(other))


def test_the_distance_of_two_does_not_depend_on_threads(updates):
    one, other = (update.record for update in updates[:2])
    found = [squared_distance(one, other, threads) for threads in (1, 2, 3, 4, 9)]
    assert len(set(found)) == 1
    x, y = (np.concatenate([parts(array) for array in record.values()]) for record in (one, other))
    assert found[0] == pytest.approx(fsum(((x - y) ** 2).tolist()), rel=4e-6)
    assert squared_distance(one, one) == 0


def parts(array):
    """The numbers of an array that count in distances, in float64."""
    whole = array.numpy()
    if whole.dtype.kind == "c":
        return np.concatenate([whole.real, whole.imag]).astype(float)
    return whole.astype(float) if "float" in array.dtype else np.empty(0)


def test_the_array_of_an_error_is_that_of_one_thread():
    arrays = {name: np.ones(2**19, np.float32) for name in "abcd"}
    arrays["b"][-1] = arrays["c"][5] = arrays["d"][7] = np.inf
    record = ParametersRecord.from_numpy(arrays)
    less = ParametersRecord.from_numpy({name: array for name, array in arrays.items() if name in "ab"})
    for threads in (1, 2, 3, 4):
        fold = in_threads(median(), threads)
        with pytest.raises(AggregationError, match=r"1 elements of the result are NaN, infinite .* - at array 'b'"):
            fold.finish(fold.start(record), [Update("a", 1, record), Update("b", 1, record)])
        for rule in (median(finite=False), krum(byzantine=0, finite=False)):
            fold = in_threads(rule, threads)
            with pytest.raises(AggregationError, match=r"from node 'b', got none.* - at array 'c'"):
                fold.finish(fold.start(record), [Update("a", 1, record), Update("b", 1, less)])


def test_tasks_that_follow_one_another_share_a_thread():
    for threads in (1, 2, 3, 7, None):
        found = in_turns([current_thread] * 6, threads)
        assert len(set(found)) == min(threads or cores(), 6)
        assert found == sorted(found, key=found.index)
        assert in_turns([partial(int, str(place)) for place in range(6)], threads) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="'b'"):
        in_turns([partial(int, each) for each in "1bc4"], 3)


def blocks(places, updates, columns):
    """What is stacked: the bytes of each block, and which arrays have which of its columns."""
    for rows, pieces in stacked(places, updates, columns):
        yield rows.tobytes(), [(piece.place.slot.name, piece.columns) for piece in pieces]


@given(
    st.lists(st.tuples(st.sampled_from(["float32", "float64", "int8"]), st.integers(0, 900)), max_size=8),
    st.integers(1, 5),
    st.sampled_from([1, 10, 512]),
)
def test_shares_have_the_blocks_of_the_whole_in_their_order(arrays, count, columns):
    random = np.random.default_rng(1)
    record = ParametersRecord.from_numpy([random.integers(-9, 9, size).astype(dtype) for dtype, size in arrays])
    places = [Place(slot, mean_of(slot.kind)) for slot in slots(record)]
    updates = [Update("a", 1, record), Update("b", 1, record)]
    whole = list(blocks(places, updates, columns))
    shares = [list(blocks(share, updates, columns)) for share in dealt(places, count, columns)]
    assert list(chain.from_iterable(shares)) == whole
    assert len(shares) == count
    assert max(map(len, shares)) == -(-len(whole) // count)


@given(
    st.lists(st.tuples(st.sampled_from(["float16", "float32", "float64"]), st.integers(0, 900)), max_size=8),
    st.sampled_from([1, 10, 512]),
)
def test_what_is_not_copied_is_what_is_stacked(arrays, columns):
    random = np.random.default_rng(1)
    records = [[random.integers(-9, 9, size).astype(dtype) for dtype, size in arrays] for _ in range(3)]
    updates = [Update("a", 1, ParametersRecord.from_numpy(each)) for each in records]
    places = [Place(slot, mean_of(slot.kind)) for slot in slots(updates[0].record)]
    expected = [[row.tobytes() for row in rows] for rows, _ in stacked(places, updates, columns)]
    found = [[row.tobytes() for row in rows] for rows in rows_of(places, updates, columns)]
    assert found == expected


def test_what_lies_in_one_array_is_not_copied(updates):
    places = [Place(slot, mean_of(slot.kind)) for slot in slots(updates[0].record) if slot.name == "float32"]
    whole = [update.record["float32"].numpy(copy=False) for update in updates]
    shared = [all(map(np.shares_memory, rows, whole)) for rows in rows_of(places, updates, 2**14)]
    assert shared == [True] * (220_001 // 2**14) + [False]
