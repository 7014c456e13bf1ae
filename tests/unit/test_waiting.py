"""Updates in files: which wait for one pass over all of them, and what becomes of those that are not finite."""

import numpy as np
import pytest

from umbel.aggregation import Aggregator, Update, by_examples, squared_distance, uniform, weighted_mean
from umbel.aggregation._fold import LinearFold
from umbel.aggregation._kinds import mean_of
from umbel.aggregation._weights import Step
from umbel.errors import RoundFailed
from umbel.gate import Gate
from umbel.grid import Node
from umbel.optimizers import momentum
from umbel.records import Array, MetricsRecord, ParametersRecord, RecordSet, load, save
from umbel.rounds import RoundCompleted, UpdateAccepted, UpdateRefused, _waiting, begin, train
from umbel.rounds._waiting import can_wait
from umbel.strategy import fedavg, scaffold, strategy

COUNT = 40
ARRAYS = [np.random.default_rng(turn).standard_normal(1000, np.float32) for turn in range(COUNT)]
FIRST = ParametersRecord.from_numpy([np.zeros(1000, np.float32)])


class Recorded:
    """The weighted mean, with a list of how many updates came at once."""

    streaming = True
    proves_finite = True

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


class Answers:
    """A grid of nodes whose answers are there already."""

    def __init__(self, records, companions=None):
        self._records, self._companions, self._asked = records, companions or {}, []

    def nodes(self, round=0, message_type="train"):  # noqa: A002
        return [Node(f"node-{place:02}", place + 1) for place in range(len(self._records))]

    def send(self, messages):
        self._asked = list(messages)

    def replies(self):
        for place, message in enumerate(self._asked):
            records = {"model": self._records[place]}
            records |= {name: others[place] for name, others in self._companions.items()}
            metrics = {"metrics": MetricsRecord({"num-examples": place + 1, "loss": 1.0})}
            yield message.create_reply(RecordSet(records, metrics))

    def cancel(self, message_ids):
        pass


def mapped(folder, arrays, name="model"):
    found = []
    for turn, array in enumerate(arrays):
        save(ParametersRecord.from_numpy([array]), folder / f"{name}-{turn}")
        found.append(load(folder / f"{name}-{turn}").parameters_records["model"])
    return found


def in_memory(records):
    return [ParametersRecord.from_numpy(record.to_numpy()) for record in records]


def run(records, fold=None, companions=None, plan=None, **parts):
    fold = fold or Recorded()
    plan = plan or strategy(aggregator=Aggregator("recorded", by_examples, fold), **parts)
    events = list(train(Answers(records, companions), plan, begin(plan, FIRST), rounds=1))
    (done,) = [event for event in events if isinstance(event, RoundCompleted)]
    return fold, events, done


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


def spoilt(place, value=np.nan):
    arrays = [array.copy() for array in ARRAYS[:8]]
    arrays[place][7] = value
    return arrays


def refused(events):
    return [(event.node, event.reason) for event in events if isinstance(event, UpdateRefused)]


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


class Measured(Recorded):
    """The same, with its norms: a list of how many updates were measured at once."""

    def __init__(self):
        super().__init__()
        self.measures = []

    def measured(self, template, updates):
        self.measures.append(len(updates))
        return self.inner.measured(template, updates)


def norm_of(array):
    return squared_distance(FIRST, ParametersRecord.from_numpy([array])) ** 0.5


class TestNorms:
    """The gate's bound for norms, which are measured while the mean is made."""

    def test_updates_within_it_are_read_once(self, tmp_path):
        bound = max(map(norm_of, ARRAYS))  # one of them is just as long
        records, fold = mapped(tmp_path, ARRAYS), Measured()
        _, events, done = run(records, fold, gate=Gate(max_norm=bound))
        assert (fold.measures, fold.sizes) == ([COUNT], [])
        assert refused(events) == []
        assert done.report.digest == run(records)[2].report.digest

    @pytest.mark.parametrize("most", [64, 3])
    def test_those_beyond_it_are_refused_as_ever(self, tmp_path, monkeypatch, most):
        monkeypatch.setattr(_waiting, "_MOST_BYTES", most * 4000)
        bound = sorted(map(norm_of, ARRAYS[:8]))[5]
        records, fold = mapped(tmp_path, ARRAYS[:8]), Measured()
        _, events, done = run(records, fold, gate=Gate(max_norm=bound))
        _, early, expected = run(in_memory(records), Measured(), gate=Gate(max_norm=bound))
        assert done.report.accepted == 6
        assert refused(events) == refused(early) == list(done.report.refused)
        assert f"expected a norm of at most {bound!r} from the model, got" in refused(events)[0][1]
        assert (done.report.digest, done.report.metrics) == (expected.report.digest, expected.report.metrics)
        assert (fold.measures, fold.sizes) == (([8], [6]) if most == 64 else ([], fold.sizes))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_one_that_is_not_finite_or_nearly_so_is_refused(self, tmp_path, value):
        records = mapped(tmp_path, spoilt(4, value))
        found, early = (run(each, gate=Gate(max_norm=1e9)) for each in (records, in_memory(records)))
        assert refused(found[1]) == refused(early[1])
        assert [node for node, _ in refused(found[1])] == ["node-04"]
        assert found[2].report.digest == early[2].report.digest

    def test_a_fold_that_does_not_measure_has_them_looked_at_before(self, tmp_path):
        fold = Recorded()
        _, events, _ = run(mapped(tmp_path, spoilt(4, 1e30)), fold, gate=Gate(max_norm=1e9))
        assert fold.sizes == [7]
        assert [type(event) for event in events if getattr(event, "node", "") == "node-04"] == [UpdateRefused]
        assert fedavg().aggregator.reduce.measured


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
