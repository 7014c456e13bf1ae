"""Aggregation in several threads: how work is dealt out, that it changes no bit, and whose error is raised."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.aggregation import Update, total, weighted_mean
from umbel.aggregation._kinds import mean_of
from umbel.aggregation._layout import slots
from umbel.aggregation._linear import LinearFold
from umbel.aggregation._shares import Room, groups_of, shares_of
from umbel.errors import AggregationError
from umbel.records import ParametersRecord, digest
from umbel.records._threads import cores, side_by_side

MIB = 2**20


def rooms(sizes):
    """Room for a float32 array of each size, in MiB."""
    record = ParametersRecord.from_numpy([np.empty(size * MIB // 4, np.float32) for size in sizes])
    return made(record)


def made(record):
    layout = slots(record)
    groups = groups_of(layout, [mean_of(slot.kind) for slot in layout])
    return [Room(group, np.empty(group.size, group.kind.view), None) for group in groups]


def dealt(sizes, threads):
    shares = shares_of(rooms(sizes), threads)
    return [[(piece.group.members[0].slot.name, piece.part) for piece in share.pieces] for share in shares]


def test_few_bytes_are_one_share():
    assert dealt([0, 1, 2, 3], 4) == [[("1", None), ("2", None), ("3", None)]]


def test_many_small_arrays_are_one_share():
    record = ParametersRecord.from_numpy([np.empty(1000, np.float32)] * 5000)
    (share,) = shares_of(made(record), 4)
    assert [len(piece.group.members) for piece in share.pieces] == [262] * 19 + [22]


def test_small_arrays_of_one_kind_are_put_together():
    arrays = {"a": 5, "b": 2**15, "c": 8193, "d": 0, "e": 8192}
    given = {name: np.zeros(size, np.float32) for name, size in arrays.items()} | {"n": np.zeros(2, np.int64)}
    layout = slots(ParametersRecord.from_numpy(given | {"m": np.zeros(1, np.int64)}))
    groups = groups_of(layout, [mean_of(slot.kind) for slot in layout])
    assert [[member.slot.name for member in group.members] for group in groups] == [
        ["a", "d", "e"],
        ["b"],
        ["c"],
        ["n", "m"],
    ]
    assert [(member.part.start, member.part.stop) for member in groups[0].members] == [(0, 5), (5, 5), (5, 8197)]
    assert [member.at for member in groups[3].members] == [5, 6]


def test_a_large_array_is_cut_at_blocks():
    step = 8 * MIB // 4
    parts = [part for share in dealt([32], 4) for _, part in share]
    assert [(part.start, part.stop) for part in parts] == [(turn * step, (turn + 1) * step) for turn in range(4)]


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 6))
def test_everything_is_dealt_once_in_order(sizes, threads):
    shares = dealt(sizes, threads)
    assert len(shares) <= threads
    seen = {}
    for name, part in (piece for share in shares for piece in share):
        size = sizes[int(name)] * MIB // 4
        assert seen.get(name, 0) == (0 if part is None else part.start)
        seen[name] = size if part is None else part.stop
    assert list(seen.items()) == [(str(at), size * MIB // 4) for at, size in enumerate(sizes) if size]


DTYPES = ["float32", "float64", "bfloat16", "float16", "float8_e4m3fn", "complex64", "int16", "int64", "uint64", "bool"]


@pytest.fixture(scope="module")
def updates():
    """Updates of 19 MB: arrays of each dtype that are not cut evenly, and small ones between."""
    random = np.random.default_rng(11)
    found = []
    for turn, weight in enumerate((3, 1000, 0.1)):
        arrays = {}
        for dtype in DTYPES:
            drawn = random.standard_normal(500_001, np.float32) * 9
            arrays[dtype] = (np.abs(drawn) if "u" in dtype else drawn).astype(np.dtype(dtype_of(dtype)))
            arrays[f"{dtype} small"] = arrays[dtype][:7]
        found.append(Update(f"node-{turn}", weight, ParametersRecord.from_numpy(arrays)))
    return found


def dtype_of(name):
    import ml_dtypes  # noqa: PLC0415 - names of dtypes that NumPy alone does not know

    return getattr(ml_dtypes, name, name)


def test_bits_do_not_depend_on_threads(updates):
    def results(threads):
        fold, template = weighted_mean(threads=threads).reduce, updates[0].record
        yield digest(fold.finish(fold.start(template), updates))
        acc = fold.start(template)
        for update in updates:
            acc = fold.add(acc, [update])
        yield digest(fold.finish(acc))

    assert len({each for threads in (1, 2, 4) for each in results(threads)}) == 1


def test_work_is_done_in_as_many_threads(updates):
    fold = weighted_mean(threads=4).reduce
    acc = fold.add(fold.start(updates[0].record), updates)
    assert len(acc.shares) == 4
    assert len({id(piece.place.product.base) for share in acc.shares for piece in share.pieces}) == 4


def test_what_is_not_finite_is_named_as_in_one_thread():
    arrays = {name: np.ones(3 * MIB, np.float32) for name in "abcd"}
    arrays["b"][-1] = arrays["c"][5] = arrays["d"][7] = np.inf
    record = ParametersRecord.from_numpy(arrays)
    for threads in (1, 2, 4):
        fold = weighted_mean(threads=threads).reduce
        with pytest.raises(AggregationError, match=r"1 elements of the result are NaN, infinite .* - at array 'b'"):
            fold.finish(fold.start(record), [Update("a", 1, record)])
        assert weighted_mean(finite=False, threads=threads).reduce.threads == threads


def test_one_of_several_small_arrays_that_is_not_finite_is_named():
    arrays = {name: np.ones(10, np.float32) for name in "abcd"}
    arrays["c"][:3] = np.nan
    record = ParametersRecord.from_numpy(arrays)
    for finite, message in ((True, "3 elements of the result .* - at array 'c'"), (False, "")):
        fold = weighted_mean(finite=finite).reduce
        updates = [Update(name, 1, record) for name in "ab"]
        if finite:
            with pytest.raises(AggregationError, match=message):
                fold.finish(fold.start(record), updates)
        else:
            found = fold.finish(fold.start(record), updates).to_numpy()
            assert np.array_equal(found["c"], arrays["c"], equal_nan=True)
            assert np.array_equal(found["d"], arrays["d"])


def test_sums_use_threads_too():
    record = ParametersRecord.from_numpy([np.full(5 * MIB, 2, np.int32)] * 2)
    fold = total().reduce
    found = [LinearFold(fold.kind_of, fold.plan, threads=threads) for threads in (1, 2)]
    sums = [each.finish(each.start(record), [Update(name, 1, record) for name in "ab"]) for each in found]
    assert sums[0] == sums[1]
    assert sums[0]["1"].numpy()[-1] == 4


def test_side_by_side_waits_for_all_and_raises_the_first():
    ended = []

    def task(name, *, fails):
        ended.append(name)
        if fails:
            raise KeyError(name)
        return name

    assert side_by_side([partial(task, name, fails=False) for name in "abc"]) == ["a", "b", "c"]
    for failing in ("ab", "bc", "c"):
        ended.clear()
        with pytest.raises(KeyError, match=failing[0]):
            side_by_side([partial(task, name, fails=name in failing) for name in "abc"])
        assert sorted(ended) == ["a", "b", "c"]


def test_work_is_done_where_no_thread_can_be_had():
    script = (
        "import resource\nfrom umbel.records._threads import side_by_side\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**23, 2**23))\n"
        "print(side_by_side([lambda place=place: place for place in range(4)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[0, 1, 2, 3]\n"


def test_there_is_a_core():
    assert 1 <= cores() <= 4
