"""Updates in files: which wait for one pass over all of them, and what becomes of those that are not finite."""

import resource

import numpy as np
import pytest

from answers import ARRAYS, COUNT, FIRST, Recorded, in_memory, mapped, refused, run, spoilt
from umbel.aggregation import Aggregator, Update, uniform, weighted_mean
from umbel.aggregation._kinds import mean_of
from umbel.aggregation._linear import LinearFold
from umbel.aggregation._weights import Step
from umbel.errors import RoundFailed
from umbel.gate import Gate
from umbel.optimizers import momentum
from umbel.records import Array, ParametersRecord
from umbel.rounds import UpdateAccepted, UpdateRefused, _waiting
from umbel.rounds._waiting import can_wait
from umbel.strategy import fedavg, scaffold, strategy


def test_updates_in_memory_that_is_used_again_do_not_wait(tmp_path):
    fold, _, _ = run(in_memory(mapped(tmp_path, ARRAYS[:5])))
    assert fold.sizes == [1, 1, 1, 1, 1, 0]


def test_mapped_updates_wait_for_one_pass(tmp_path):
    records = mapped(tmp_path, ARRAYS)
    fold, _, done = run(records)
    assert fold.sizes == [COUNT]
    _, _, other = run(in_memory(records))
    assert done.report.digest == other.report.digest
    assert done.report.metrics == other.report.metrics


@pytest.mark.parametrize(("limit", "most"), [("_MOST_HELD", 16 * (4000 + 2**15 + 2**9)), ("_MOST_BYTES", 16 * 4000)])
def test_so_many_wait_and_no_more(tmp_path, monkeypatch, limit, most):
    records = mapped(tmp_path, ARRAYS)
    monkeypatch.setattr(_waiting, limit, most)
    fold, _, done = run(records)
    assert fold.sizes == [16, 16, 8]
    assert done.report.digest == run(in_memory(records))[2].report.digest


def test_the_order_is_kept_where_some_wait_and_some_cannot(tmp_path):
    records = mapped(tmp_path, ARRAYS[:8])
    mixed = [*records[:3], *in_memory(records[3:5]), *records[5:]]
    fold, _, done = run(mixed)
    assert fold.sizes == [3, 1, 1, 3]
    assert done.report.digest == run(in_memory(records))[2].report.digest


def test_few_bytes_that_nobody_changes_can_wait_and_many_cannot():
    for times, waits in ((1, True), (17, False)):
        data = np.tile(ARRAYS[0], times).tobytes()
        for held in (data, memoryview(data)):
            record = ParametersRecord({"0": Array("float32", [1000 * times], "raw", held)})
            assert can_wait(Update("a", 1, record)) is waits
    assert not can_wait(Update("a", 1, FIRST))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("most", [64, 3])
def test_one_that_is_not_finite_is_refused_as_ever(tmp_path, monkeypatch, value, most):
    monkeypatch.setattr(_waiting, "_MOST_BYTES", most * 4000)
    records = mapped(tmp_path, spoilt(4, value))
    _, events, done = run(records)
    _, early, expected = run(in_memory(records))
    assert done.report.accepted == 7
    assert refused(events) == refused(early) == list(done.report.refused)
    assert refused(events)[0][0] == "node-04"
    assert (done.report.digest, done.report.metrics) == (expected.report.digest, expected.report.metrics)
    assert done.report.bytes == expected.report.bytes | {"received": done.report.bytes["received"]}


def test_a_refusal_comes_after_the_acceptance_that_it_replaces(tmp_path):
    _, events, done = run(mapped(tmp_path, spoilt(4)))
    of_it = [type(event) for event in events if getattr(event, "node", "") == "node-04"]
    assert of_it == [UpdateAccepted, UpdateRefused]
    assert done.report.cohort == 8


def test_finite_updates_are_read_once_and_others_again(tmp_path):
    assert run(mapped(tmp_path, ARRAYS[:8]))[0].sizes == [8]
    assert run(mapped(tmp_path, spoilt(4)))[0].sizes == [8, 7]


def test_if_all_are_refused_the_round_fails_with_every_reason(tmp_path):
    arrays = [np.full(1000, np.nan, np.float32)] * 3
    with pytest.raises(RoundFailed, match="got 0 from a cohort of 3") as caught:
        run(mapped(tmp_path, arrays))
    assert "\n  node-00, node-01, node-02: expected finite numbers, got 1000 NaN and" in str(caught.value)


def test_too_few_that_are_left_fail_the_round(tmp_path):
    with pytest.raises(RoundFailed, match="expected at least 8 usable replies to 'train', got 7"):
        run(mapped(tmp_path, spoilt(0)), min_updates=8)


def test_finite_updates_without_a_finite_mean_fail_the_round(tmp_path):
    arrays = [np.full(1000, 3e38, np.float32)] * 2
    fold = Recorded()
    fold.inner = LinearFold(mean_of, unscaled)
    with pytest.raises(RoundFailed, match="the accepted updates do not make a model"):
        run(mapped(tmp_path, arrays), fold)


def unscaled(scale, weights):
    return scale._replace(added=scale.added + len(weights), total=1.0), [Step()] * len(weights)


def test_a_companion_that_is_not_finite_costs_its_model_too(tmp_path):
    records, controls = mapped(tmp_path, ARRAYS[:8]), mapped(tmp_path, spoilt(2, np.inf), "control")
    _, events, done = run(records, companions={"control": controls}, plan=scaffold())
    others = in_memory(records), {"control": in_memory(controls)}
    _, early, expected = run(others[0], companions=others[1], plan=scaffold())
    assert refused(events) == refused(early)
    assert "parameters_records.control['0']" in refused(events)[0][1]
    assert done.report.digest == expected.report.digest
    for name, record in done.state.parameters_records.items():
        assert record == expected.state.parameters_records[name]


def test_a_gate_that_asks_for_less_looks_at_each(tmp_path):
    records = mapped(tmp_path, spoilt(4))
    plan = strategy(aggregator=weighted_mean(finite=False), gate=Gate(finite=False))
    _, events, done = run(records, plan=plan)
    assert done.report.digest == run(in_memory(records), plan=plan)[2].report.digest
    assert refused(events) == []
    assert "node-04" in [event.node for event in events if isinstance(event, UpdateAccepted)]


def test_no_more_files_wait_than_the_process_may_have(tmp_path):
    """Each mapped one holds a descriptor."""
    records = mapped(tmp_path, ARRAYS[:1]) * 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        fold, _, _ = run(records)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert fold.sizes == [150, 50]


def test_a_fold_that_needs_all_at_once_gets_what_nobody_changes(tmp_path):
    class Keeping(Recorded):
        streaming = False
        proves_finite = False

        def add(self, acc, updates):
            self.kept = [*getattr(self, "kept", []), *updates]
            return super().add(acc, updates)

    fold, array = Keeping(), ARRAYS[0].copy()
    records = [ParametersRecord.from_numpy([array], copy=False), *mapped(tmp_path, ARRAYS[1:3])]
    plan = strategy(aggregator=Aggregator("kept", uniform, fold))
    run(records, fold, plan=plan)
    array[:] = 0
    assert np.array_equal(fold.kept[0].record["0"].numpy(), ARRAYS[0])
    assert fold.kept[1].record["0"].data is records[1]["0"].data


def test_what_proves_nothing_waits_and_is_looked_at_before(tmp_path):
    fold = Recorded()
    fold.proves_finite = False
    _, events, _ = run(mapped(tmp_path, spoilt(4)), fold)
    assert fold.sizes == [7]
    assert [type(event) for event in events if getattr(event, "node", "") == "node-04"] == [UpdateRefused]
    assert fedavg().aggregator.reduce.proves_finite
    assert not weighted_mean(finite=False).reduce.proves_finite


class Chosen:
    """The first update: as it came, or as a copy, which is what ``exclusive`` says."""

    streaming = False

    def __init__(self, *, exclusive):
        if exclusive:
            self.exclusive = True

    def start(self, template):
        return []

    def add(self, acc, updates):
        return [*acc, *updates]

    def finish(self, acc, updates=()):
        self.first = acc[0].record
        self.result = ParametersRecord.from_numpy(self.first.to_numpy()) if hasattr(self, "exclusive") else self.first
        return self.result


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_step_takes_the_memory_of_a_result_that_is_nobody_elses(exclusive):
    fold = Chosen(exclusive=exclusive)
    plan = strategy(aggregator=Aggregator("first", uniform, fold), optimizer=momentum(learning_rate=0.5))
    _, _, done = run([ParametersRecord.from_numpy([array]) for array in ARRAYS[:3]], fold, plan=plan)
    following = done.state.parameters_records["model"]["0"].numpy(copy=False)
    assert np.array_equal(following, ARRAYS[0] / 2)
    assert np.shares_memory(following, fold.result["0"].numpy(copy=False)) is exclusive
    assert np.array_equal(fold.first["0"].numpy(), ARRAYS[0])
    assert fedavg().aggregator.reduce.exclusive
