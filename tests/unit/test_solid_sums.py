"""Sums of solid updates: blocks, threads, batches, and whose fault it is that there is none."""

import gc
import weakref
from threading import Barrier, Thread

import numpy as np
import pytest

from solid_records import composed, content, forget, joined, plain, solid
from umbel.aggregation import Update, aggregate, total, weighted_mean
from umbel.aggregation._linear import LinearFold
from umbel.errors import AggregationError, UpdateRejected
from umbel.gate import Gate
from umbel.records import ParametersRecord, RecordSet, array_from_numpy, loads
from umbel.records._parameters import solid_of

THREADS = (1, 2, 4)
#: Runs of one alignment between one another, blocks that end within arrays, and arrays of several blocks.
MIXED = {
    "f": ("float32", 700_001),
    "i": ("int32", 5),
    "g": ("float32", 9),
    "h": ("float16", 90_001),
    "w": ("int64", 40_003),
    "c": ("complex64", 300_007),
    "u": ("uint64", 1),
    "d": ("float64", 0),
    "e": ("bfloat16", 66_000),
    "n": ("int64", 1),
    "b": ("bool", 1000),
    "j": ("int32", 400_000),
    "k": ("float32", 600_000),
}


def made(seed, sizes=MIXED):
    rng = np.random.default_rng(seed)
    values = {name: (kind, rng.standard_normal(size) * 1000) for name, (kind, size) in sizes.items()}
    return ParametersRecord.from_numpy(
        {name: (each > 0 if kind == "bool" else np.abs(each)).astype(kind) for name, (kind, each) in values.items()}
    )


def cohort(records):
    return [Update(f"n{place}", place + 0.5, record) for place, record in enumerate(records)]


def in_batches(fold, updates, *sizes):
    acc = fold.start(updates[0].record)
    for size in sizes:
        fold.add(acc, updates[:size])
        updates = updates[size:]
    return fold.finish(acc, updates)


def fold_of(aggregator, threads):
    fold = aggregator.reduce
    return LinearFold(fold.kind_of, fold.plan, finite=fold.finite, threads=threads)


@pytest.fixture(autouse=True)
def _nothing_known():
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def updates():
    return cohort([plain(made(seed)) for seed in range(4)])


@pytest.fixture(scope="module")
def mean(updates):
    return content(aggregate(weighted_mean(threads=1), updates[0].record, updates))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("which", ["1111", "1000", "0111", "1010"])
def test_all_solid_some_or_but_the_first(updates, mean, which, threads):
    mixed = [
        each._replace(record=solid(each.record)) if yes == "1" else each
        for each, yes in zip(updates, which, strict=True)
    ]
    fold = fold_of(weighted_mean(), threads)
    for sizes in ((), (1, 1, 1, 1), (1,), (2, 1), (4,)):
        assert content(in_batches(fold, mixed, *sizes)) == mean


def test_a_sum_in_threads(updates):
    sizes = {name: each for name, each in MIXED.items() if each[0] != "bool"}
    parts = cohort([plain(made(seed, sizes)) for seed in range(3)])
    expected = content(aggregate(total(), parts[0].record, parts))
    whole = [each._replace(record=solid(each.record)) for each in parts]
    for threads in THREADS:
        assert content(in_batches(fold_of(total(), threads), whole, 1)) == expected


def test_the_result_is_solid_and_written_as_it_is(updates):
    whole = [each._replace(record=solid(each.record)) for each in updates]
    found = aggregate(weighted_mean(), updates[0].record, whole)
    assert solid_of(found) is not None
    assert joined(found) == composed(RecordSet({"model": plain(found)}))
    with pytest.raises(ValueError, match="read-only"):
        found["f"].numpy(copy=False)[0] = 1


def test_a_result_that_somebody_holds_is_not_overwritten(updates):
    whole = [each._replace(record=solid(each.record)) for each in updates]
    aggregator = weighted_mean()
    first = aggregate(aggregator, updates[0].record, whole)
    kept, before = first["n"], content(first)
    del first
    for _ in range(3):
        aggregate(aggregator, updates[0].record, whole[:2])
    assert ("n", kept.dtype, kept.shape, kept.stype, bytes(kept.data)) in before


def test_updates_under_another_name_are_summed_alike(updates, mean):
    mixed = [each._replace(record=solid(each.record, name)) for each, name in zip(updates, "abab", strict=True)]
    assert content(aggregate(weighted_mean(), updates[0].record, mixed)) == mean


def test_arrays_in_another_order_are_summed_by_their_names(updates, mean):
    turned = [each._replace(record=solid(dict(reversed(each.record.items())))) for each in updates]
    assert content(aggregate(weighted_mean(), updates[0].record, turned)) == mean
    forward = solid(updates[0].record)
    fold = weighted_mean().reduce
    acc = fold.add(fold.start(forward), [updates[0]._replace(record=forward)])
    assert content(fold.finish(acc, turned[1:])) == mean


def said(fold, updates, *sizes):
    with pytest.raises(AggregationError) as caught:
        in_batches(fold, updates, *sizes)
    return str(caught.value)


#: Which element of which array is wrong, and what it is in every update.
WRONG = {
    "the last of an array of several blocks": {("k", 599_999): 1e38},
    "in two blocks of one array": {("f", 5): np.nan, ("f", 700_000): np.inf},
    "two arrays of one run": {("j", 399_999): 2**31 - 1, ("i", 2): 2**31 - 1},
    "the second block of a run": {("j", 300_000): -(2**31), ("n", 0): 2**63 - 1},
    "narrow": {("h", 90_000): 65_504, ("e", 0): 3e38},
    "narrow and not finite": {("h", 90_000): 65_504, ("h", 3): np.inf},
    "wide": {("u", 0): 2**64 - 1},
    "complex": {("c", 300_006): complex(0, np.inf), ("k", 0): np.nan},
    "in the order of the model, not of the payloads": {("i", 0): 2**31 - 1, ("w", 40_002): -(2**63)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("make", [weighted_mean, total])
def test_what_is_wrong_is_said_of_the_same_array_in_the_same_words(wrong, make):
    sizes = {name: each for name, each in MIXED.items() if each[0] != "bool"}
    arrays = [made(seed, sizes).to_numpy() for seed in range(3)]
    for each in arrays:
        for (name, place), value in wrong.items():
            each[name][place] = value
            if make is total and value == 1e38:
                each[name][place] = 3e38
    plain_ones = cohort([ParametersRecord.from_numpy(each) for each in arrays])
    whole = [each._replace(record=solid(each.record)) for each in plain_ones]
    seen = set()
    for threads in (1, 4):
        fold = fold_of(make(), threads)
        for sizes in ((), (1,), (2, 1)):
            found = []
            for each in (plain_ones, whole, [*whole[:2], plain_ones[2]]):
                try:
                    in_batches(fold, each, *sizes)
                except AggregationError as error:
                    found.append(str(error))
                else:
                    found.append("")
            assert len(set(found)) == 1
            seen |= set(found)
    assert len(seen) == 1
    if make is total:
        assert seen != {""}


def test_what_is_wrong_with_a_sum_that_may_be_infinite():
    """Of the infinite elements only those count that no update had."""
    one = {"a": np.float32([np.nan, np.inf]), "b": np.float16([65_504, 1])}
    parts = cohort([solid(ParametersRecord.from_numpy(one))] * 2)
    for sizes in ((), (1,), (2,)):
        assert said(total(finite=False).reduce, parts, *sizes).startswith("1 elements of the result ")
        assert said(total(finite=False).reduce, parts, *sizes).endswith("at array 'b'")


def test_a_mean_that_overflows_as_it_is_divided_is_an_error_whatever_came_before():
    arrays = {"a": np.full(3, np.inf, np.float32), "b": np.full(3, np.finfo(np.float32).max)}
    weights = (1.0, 1 / 3, 1 / 7, 1 / 3)
    for sizes in ((), (1,), (4,)):
        results = set()
        for make in (plain, solid):
            record = make(ParametersRecord.from_numpy(arrays))
            parts = [Update(f"n{place}", weight, record) for place, weight in enumerate(weights)]
            try:
                in_batches(weighted_mean(finite=False).reduce, parts, *sizes)
                results.add("")
            except AggregationError as error:
                results.add(error.message)
        assert len(results) == 1


def test_after_an_error_an_accumulator_is_spent():
    parts = cohort([solid(ParametersRecord.from_numpy({"w": np.float32([np.inf])}))] * 2)
    fold = weighted_mean().reduce
    acc = fold.add(fold.start(parts[0].record), parts[:1])
    for message in ("1 elements of the result", "finished, or was left half done"):
        with pytest.raises(AggregationError, match=message):
            fold.finish(acc, parts[1:])


@pytest.mark.parametrize("batches", [(), (1,)])
def test_an_update_that_does_not_fit_is_refused_after_solid_ones(batches):
    right = solid(ParametersRecord.from_numpy({"v": np.ones(2), "w": np.ones(3, np.float32)}))
    for wrong in (
        {"v": np.ones(2)},
        {"v": np.ones(2), "w": np.ones(3)},
        {"v": np.ones(2), "w": np.ones(4, np.float32)},
    ):
        texts = set()
        for first in (plain(right), right):
            for last in (ParametersRecord.from_numpy(wrong), solid(ParametersRecord.from_numpy(wrong))):
                texts.add(said(weighted_mean().reduce, cohort([first, last]), *batches))
        assert len(texts) == 1
        assert "from node 'n1'" in texts.pop()


def test_an_update_of_another_serialisation_is_put_together():
    arrays = [{"v": np.full((2, 3), value, np.float32).T, "w": np.arange(4) + value} for value in range(2)]
    right = [ParametersRecord.from_numpy(each) for each in arrays]
    npy = ParametersRecord({name: array_from_numpy(np.asfortranarray(each)) for name, each in arrays[1].items()})
    expected = aggregate(weighted_mean(), right[0], cohort(right))
    for sizes in ((), (1,)):
        assert in_batches(weighted_mean().reduce, cohort([solid(right[0]), npy]), *sizes) == expected


@pytest.mark.parametrize("make", [plain, solid])
def test_updates_that_are_like_one_another_but_not_like_the_model(make):
    parts = cohort([solid(ParametersRecord.from_numpy({"a": np.zeros(2), "b": np.ones(2)}))] * 2)
    turned, other = (make(ParametersRecord.from_numpy({name: np.ones(2) for name in names})) for names in ("ba", "ax"))
    assert aggregate(weighted_mean(), turned, parts) == parts[0].record
    assert list(aggregate(weighted_mean(), turned, parts)) == ["b", "a"]
    with pytest.raises(AggregationError, match=r"expected float64 \[2\] from node 'n0', got none.*array 'x'"):
        aggregate(weighted_mean(), other, parts)


def test_updates_may_be_any_mapping_of_arrays(updates, mean):
    loose = [each._replace(record=dict(each.record)) for each in updates]
    mixed = [loose[0], updates[1]._replace(record=solid(updates[1].record)), *loose[2:]]
    first_is_solid = [updates[0]._replace(record=solid(updates[0].record)), *loose[1:]]
    for each, sizes in ((loose, ()), (mixed, ()), (first_is_solid, (1, 1))):
        assert content(in_batches(weighted_mean().reduce, each, *sizes)) == mean


def test_the_shape_of_an_array_that_was_changed_is_seen():
    record = ParametersRecord.from_numpy({"w": np.ones((2, 3), np.float32)})
    parts = cohort([solid(record), solid(record)])
    parts[1].record["w"].shape[:] = [3, 2]
    assert "got float32 [3, 2]" in said(weighted_mean().reduce, parts)
    with pytest.raises(UpdateRejected, match=r"expected shape \[2, 3\], got \[3, 2\]"):
        Gate().check(solid(record), parts[1])


def test_two_models_may_be_summed_at_once():
    records = [solid(made(seed, {"a": ("float32", 50_000), "i": ("int64", 3)})) for seed in range(3)]
    aggregator, start, results = weighted_mean(), Barrier(4), []
    expected = aggregate(weighted_mean(), records[0], cohort([plain(each) for each in records]))

    def run():
        start.wait()
        results.extend(aggregate(aggregator, records[0], cohort(records)) == expected for _ in range(20))

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


class _Bytes(np.ndarray):
    """A buffer that can be watched."""


def test_updates_that_were_added_are_let_go_of():
    data = composed(RecordSet({"model": made(0, {"a": ("float32", 10)})}))
    buffer = np.frombuffer(bytearray(data), np.uint8).view(_Bytes)
    gone = weakref.ref(buffer)
    update = Update("a", 1, loads(buffer).parameters_records["model"])
    fold = weighted_mean().reduce
    acc = fold.add(fold.start(update.record), [update])
    Gate().against(update.record)(update)
    del update, buffer
    gc.collect()
    assert gone() is None
    assert fold.finish(acc)["a"].shape == [10]
