"""Which updates wait for one another on their way into a fold, and that it changes no bit."""

import numpy as np
import pytest

from umbel.aggregation import Update, weighted_mean
from umbel.records import Array, ParametersRecord, load, save
from umbel.rounds import _batches
from umbel.rounds._batches import Batches

ARRAYS = [np.random.default_rng(turn).standard_normal(1000, np.float32) for turn in range(40)]


class Recorded:
    """The weighted mean, with a list of how many updates came at once."""

    streaming = True

    def __init__(self):
        self.inner = weighted_mean().reduce
        self.sizes = []

    def start(self, template):
        return self.inner.start(template)

    def add(self, acc, updates):
        self.sizes.append(len(updates))
        return self.inner.add(acc, updates)

    def finish(self, acc, updates=()):
        self.sizes.append(len(updates))
        return self.inner.finish(acc, updates)


@pytest.fixture
def mapped(tmp_path):
    found = []
    for turn, array in enumerate(ARRAYS):
        save(ParametersRecord.from_numpy([array]), tmp_path / str(turn))
        found.append(load(tmp_path / str(turn)).parameters_records["model"])
    return updates(found)


def updates(records):
    return [Update(f"node-{turn:02}", turn + 1, record) for turn, record in enumerate(records)]


def folded(given, *, batch=1):
    fold = Recorded()
    batches = Batches(fold, given[0].record)
    for start in range(0, len(given), batch):
        batches.add(given[start : start + batch])
    return fold.sizes, batches.finish()


def in_memory(given):
    return [update._replace(record=ParametersRecord.from_numpy(update.record.to_numpy())) for update in given]


def test_updates_in_memory_that_is_used_again_do_not_wait(mapped):
    sizes, _ = folded(in_memory(mapped[:5]))
    assert sizes == [1, 1, 1, 1, 1, 0]


def test_mapped_updates_wait_for_one_pass(mapped):
    sizes, mean = folded(mapped[:16])
    assert sizes == [16]
    assert mean == folded(in_memory(mapped[:16]))[1]


def test_so_many_wait_and_no_more(mapped):
    sizes, mean = folded(mapped)
    assert sizes == [16, 16, 8]
    assert mean == folded(in_memory(mapped))[1]
    assert folded(mapped, batch=7)[0] == [14, 14, 12]


def test_so_many_bytes_wait_and_no_more(mapped, monkeypatch):
    monkeypatch.setattr(_batches, "_MOST_BYTES", 3 * 4000)
    assert folded(mapped[:8])[0] == [3, 3, 2]


def test_the_order_is_kept_where_some_wait_and_some_cannot(mapped):
    mixed = [*mapped[:3], *in_memory(mapped[3:5]), *mapped[5:8]]
    sizes, mean = folded(mixed)
    assert sizes == [3, 1, 1, 3]
    assert mean == folded(in_memory(mapped[:8]))[1]


@pytest.mark.parametrize(("times", "sizes"), [(1, [4]), (17, [1, 1, 1, 1, 0])])
def test_few_bytes_can_wait_and_many_cannot(times, sizes):
    arrays = [np.tile(array, times) for array in ARRAYS[:4]]
    records = [ParametersRecord({"0": Array("float32", list(a.shape), "raw", a.tobytes())}) for a in arrays]
    assert folded(updates(records))[0] == sizes


def test_a_fold_that_needs_all_at_once_gets_what_nobody_changes(mapped):
    class Keeping(Recorded):
        streaming = False

        def add(self, acc, updates):
            self.kept = [*getattr(self, "kept", []), *updates]
            return super().add(acc, updates)

    fold, array = Keeping(), ARRAYS[0].copy()
    batches = Batches(fold, mapped[0].record)
    batches.add([Update("a", 1, ParametersRecord.from_numpy([array], copy=False)), mapped[1]])
    array[:] = 0
    assert np.array_equal(fold.kept[0].record["0"].numpy(), ARRAYS[0])
    assert fold.kept[1].record["0"].data is mapped[1].record["0"].data
