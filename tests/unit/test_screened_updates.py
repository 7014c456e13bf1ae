"""Updates that an engine has in memory of its own: their numbers are looked at in the call that adds them."""

import numpy as np
import pytest

from answers import ARRAYS, Recorded, in_memory, mapped, refused, run, spoilt
from umbel.aggregation import Update, _linear, _screened, weighted_mean
from umbel.aggregation import total as accumulated
from umbel.errors import AggregationError
from umbel.gate import Gate
from umbel.records import ParametersRecord, RecordSet, dumps, load, loads, save
from umbel.strategy import fedavg, fedmedian, scaffold

compiled = pytest.mark.skipif(not _screened.LOOPS, reason="there was no C compiler when umbel was installed")
NAMES = ("large", "small", "scalar")
SHAPES = ((200, 120), (3, 5), ())
# The last is so heavy that the sums before it are scaled.
WEIGHTS = (3.0, 1.0, 0.1, 7e8, 5.0, 1e-30)


def drawn(dtype, count=6):
    rng = np.random.default_rng(7)

    def one(shape):
        made = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)
        return np.asarray(made + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else made, dtype)

    return [dict(zip(NAMES, map(one, SHAPES), strict=True)) for _ in range(count)]


def counted(dtype):
    """The same with integers, which a layer that normalises batches has beside its floats."""
    rng = np.random.default_rng(8)
    return [
        {
            "first": rng.integers(0, 2**58, 3),
            **each,
            "tiny": rng.integers(-9, 9, 70, np.int8),
            "batches": np.array(rng.integers(2**58)),
        }
        for each in drawn(dtype)
    ]


def solid(arrays):
    whole = b"".join(dumps(RecordSet({"model": ParametersRecord.from_numpy(arrays)})))
    return loads(whole).parameters_records["model"]


def added(fold, records, weights=WEIGHTS):
    """The sum of records that come one by one, and which of them were screened."""
    acc, screened = fold.start(records[0]), []
    for place, (record, weight) in enumerate(zip(records, weights, strict=False)):
        update = Update(f"node-{place}", weight, record)
        screened.append(fold.screened(acc, update))
        if not screened[-1]:
            acc = fold.add(acc, [update])
    return fold.finish(acc), screened


def summed(fold, records, weights=WEIGHTS):
    updates = [
        Update(f"node-{at}", weight, each) for at, (each, weight) in enumerate(zip(records, weights, strict=False))
    ]
    return fold.finish(fold.start(records[0]), updates)


def bits(record):
    return [bytes(array.data) for array in record.values()]


@compiled
class TestSums:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
    @pytest.mark.parametrize("made", [ParametersRecord.from_numpy, solid])
    @pytest.mark.parametrize("rule", [weighted_mean(), accumulated()])
    def test_have_the_bits_of_any_other_way(self, monkeypatch, dtype, made, rule):
        records = [made(each) for each in drawn(dtype)]
        found, screened = added(rule.reduce, records)
        assert screened == [True] * len(records)
        assert bits(found) == bits(summed(rule.reduce, records))
        monkeypatch.setattr(_screened, "LOOPS", {})
        found, screened = added(rule.reduce, records)
        assert screened == [False] * len(records)
        assert bits(found) == bits(summed(rule.reduce, records))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", NAMES)
    def test_are_as_they_were_if_an_update_is_not_finite(self, dtype, value, name):
        fold, arrays = weighted_mean().reduce, drawn(dtype, 4)
        arrays[2][name].reshape(-1)[-1] = value
        records = [ParametersRecord.from_numpy(each) for each in arrays]
        acc = fold.start(records[0])
        for place, record in enumerate(records[:2]):
            acc = fold.add(acc, [Update(f"node-{place}", 1.0, record)])
        assert not fold.screened(acc, Update("node-2", 1.0, records[2]))
        assert fold.screened(acc, Update("node-3", 2.0, records[3]))
        good = [records[place] for place in (0, 1, 3)]
        assert bits(fold.finish(acc)) == bits(summed(fold, good, (1.0, 1.0, 2.0)))

    def test_of_the_largest_and_smallest_numbers_are_as_ever(self):
        extremes = np.array([3.4e38, -3.4e38, 1e-45, -0.0, 0.0], np.float32)
        records = [ParametersRecord.from_numpy([extremes]) for _ in range(3)]
        found, screened = added(weighted_mean().reduce, records)
        assert screened == [True, True, True]
        assert bits(found) == bits(summed(weighted_mean().reduce, records))

    @pytest.mark.parametrize("made", [ParametersRecord.from_numpy, solid])
    @pytest.mark.parametrize("beside", [None, np.int64, np.int8, np.float64])
    def test_that_leave_the_range_are_refused_as_those_of_one_pass_are(self, made, beside):
        arrays = {"first": np.ones(3, np.float32), "large": np.full(3, 3e38, np.float32)}
        if beside is not None:
            arrays = {"before": np.ones(3, beside), **arrays, "behind": np.ones(3, beside)}
        messages = []
        for way in (added, summed):
            with pytest.raises(AggregationError, match=r"^3 elements.* at array 'large'$") as caught:
                way(accumulated().reduce, [made(arrays)] * 2, (1.0, 1.0))
            messages.append(str(caught.value))
        assert messages[0] == messages[1]

    @pytest.mark.parametrize("made", [ParametersRecord.from_numpy, solid])
    def test_that_leave_the_range_when_they_are_divided_are_refused_as_those_of_one_pass_are(self, made):
        largest = {name: np.finfo(name).max for name in ("f4", "f8")}
        record = made({"x": np.full(4, largest["f8"]), "y": np.full(20_000, largest["f4"], "f4")})
        weights = (8.702492039700847, 2.8681720908755537, 6.031481500515619, 7.775340829201788, 7.1607462960356525)
        messages = []
        for way in (added, summed):
            with pytest.raises(AggregationError, match=r"^4 elements.* at array 'x'$") as caught:
                way(weighted_mean().reduce, [record] * 5, weights)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]

    def test_take_no_memory_for_what_is_not_screened(self):
        fold, record = weighted_mean().reduce, ParametersRecord.from_numpy([np.ones(9, np.float16)])
        acc = fold.start(record)
        assert not fold.screened(acc, Update("a", 1.0, record))
        assert acc.rooms == []

    def test_take_what_is_not_just_as_expected_in_another_way(self):
        arrays = drawn(np.float32, 5)
        other_order = dict(reversed(arrays[1].items()))
        records = [ParametersRecord.from_numpy(each) for each in (arrays[0], other_order, *arrays[2:])]
        records[2] = ParametersRecord.from_numpy(arrays[2], stype="numpy.ndarray")
        misplaced = memoryview(b"?" + arrays[3]["small"].tobytes())[1:]
        array = records[3]["small"]
        records[3]["small"] = type(array)(array.dtype, array.shape, array.stype, misplaced)
        found, screened = added(weighted_mean().reduce, records)
        assert screened == [True, False, False, False, True]
        assert bits(found) == bits(summed(weighted_mean().reduce, records))

    def test_of_other_dtypes_or_of_much_memory_are_not_screened(self, monkeypatch):
        mixed = [ParametersRecord.from_numpy([np.ones(9, np.float32), np.ones(9, dtype)]) for dtype in ("f4", "f2")]
        assert added(weighted_mean().reduce, [mixed[0]] * 2)[1] == [True, True]
        assert added(weighted_mean().reduce, [mixed[1]] * 2)[1] == [False, False]
        monkeypatch.setattr(_screened, "_MOST", 71)
        assert added(weighted_mean().reduce, [mixed[0]] * 2)[1] == [False, False]

    @pytest.mark.parametrize("made", [ParametersRecord.from_numpy, solid])
    @pytest.mark.parametrize("rule", [weighted_mean(), accumulated()])
    def test_of_integers_beside_floats_are_screened_and_have_the_same_bits(self, made, rule):
        records = [made(each) for each in counted(np.float32)]
        found, screened = added(rule.reduce, records)
        assert screened == [True] * len(records), "a count of batches is always finite"
        assert bits(found) == bits(summed(rule.reduce, records))

    @pytest.mark.parametrize("made", [ParametersRecord.from_numpy, solid])
    @pytest.mark.parametrize("few", [np.float32, np.float64, np.complex64, np.complex128])
    def test_of_floats_of_two_widths_are_screened_and_have_the_same_bits(self, made, few):
        pairs = zip(drawn(np.float64 if few in (np.float32, np.complex64) else np.float32), drawn(few), strict=True)
        both = [made({**each, "few": other["small"], "one": other["scalar"]}) for each, other in pairs]
        found, screened = added(weighted_mean().reduce, both)
        assert screened == [True] * len(both)
        assert bits(found) == bits(summed(weighted_mean().reduce, both))

    @pytest.mark.parametrize("name", ["small", "few"])
    def test_of_two_widths_are_as_they_were_if_one_of_them_is_not_finite(self, name):
        arrays = [{**each, "few": each["small"].astype(np.float64)} for each in drawn(np.float32, 4)]
        arrays[2][name][-1, -1] = -np.inf
        records = [ParametersRecord.from_numpy(each) for each in arrays]
        fold = weighted_mean().reduce
        acc = fold.add(fold.start(records[0]), [Update("node-0", 1.0, records[0])])
        screened = [fold.screened(acc, Update(f"node-{at}", 2.0, records[at])) for at in (1, 2, 3)]
        assert screened == [True, False, True]
        good = [records[place] for place in (0, 1, 3)]
        assert bits(fold.finish(acc)) == bits(summed(fold, good, (1.0, 2.0, 2.0)))

    def test_of_integers_are_as_they_were_too_if_a_float_is_not_finite(self):
        fold, arrays = weighted_mean().reduce, counted(np.float32)[:4]
        arrays[2]["scalar"][...] = np.nan
        records = [ParametersRecord.from_numpy(each) for each in arrays]
        acc = fold.add(fold.start(records[0]), [Update("node-0", 1.0, records[0])])
        screened = [fold.screened(acc, Update(f"node-{at}", 2.0, records[at])) for at in (1, 2, 3)]
        assert screened == [True, False, True]
        good = [records[place] for place in (0, 1, 3)]
        assert bits(fold.finish(acc)) == bits(summed(fold, good, (1.0, 2.0, 2.0)))

    def test_refuse_what_any_sum_refuses(self):
        fold, records = weighted_mean().reduce, [ParametersRecord.from_numpy(each) for each in drawn(np.float32, 2)]
        acc = fold.add(fold.start(records[0]), [Update("node-1", 1.0, records[0])])
        with pytest.raises(AggregationError, match="ascending order of node names, got 'node-0' after 'node-1'"):
            fold.screened(acc, Update("node-0", 1.0, records[1]))

    def test_may_be_added_after_all_where_screening_failed(self):
        fold, records = weighted_mean().reduce, [ParametersRecord.from_numpy(each) for each in drawn(np.float32, 3)]
        acc = fold.add(fold.start(records[0]), [Update("node-0", 1.7e308, records[0])])
        with pytest.raises(AggregationError, match="finite sum of weights"):
            fold.screened(acc, Update("node-1", 1.7e308, records[1]))
        assert fold.screened(acc, Update("node-1", 1.0, records[1]))

    def test_pass_over_nothing_but_what_the_loop_left(self, monkeypatch):
        passes = []
        add_up = _linear._add_up
        monkeypatch.setattr(_linear, "_add_up", lambda *given: passes.append(given[1]) or add_up(*given))
        floats = [ParametersRecord.from_numpy(each) for each in drawn(np.float32, 4)]
        assert added(weighted_mean().reduce, floats)[1] == [True, True, True, True]
        assert not passes
        counted = [ParametersRecord.from_numpy({**each, "count": np.ones(3, np.int64)}) for each in drawn("f4", 4)]
        assert added(weighted_mean().reduce, counted)[1] == [True, True, True, True]
        assert len(passes) == 4 + 1, "of the counts: each update, and the division at the end"


class Screened(Recorded):
    """The same, with what it was asked to look at while it adds."""

    def __init__(self):
        super().__init__()
        self.screens = []

    def screened(self, acc, update):
        self.screens.append(update.node)
        return self.inner.screened(acc, update)


class TestRounds:
    """Whether they are looked at before or on the way, the same nodes are refused and the model has the same bits."""

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("place", [0, 1, 7])
    def test_an_update_that_is_not_finite_is_refused_with_the_reason_of_the_gate(self, value, place):
        records = in_memory_of(spoilt(place, value))
        fold, events, done = run(records, Screened())
        _, early, expected = run(records, Recorded())
        assert refused(events) == refused(early) == list(done.report.refused)
        assert [node for node, _ in refused(events)] == [f"node-{place:02}"]
        assert "expected finite numbers, got" in refused(events)[0][1]
        assert (done.report.digest, done.report.metrics) == (expected.report.digest, expected.report.metrics)
        assert len(fold.screens) == len(records), "each is looked at when its turn comes"

    @compiled
    def test_nobody_looks_at_one_before(self, monkeypatch):
        looked = []
        check = Gate._check

        def counted(gate, template, expected, update):
            looked.append((update.node, gate.finite))
            return check(gate, template, expected, update)

        monkeypatch.setattr(Gate, "_check", counted)
        run(in_memory_of(ARRAYS[:4]), Screened())
        assert looked
        assert not [node for node, finite in looked if finite and node]

    @pytest.mark.parametrize("plan", [fedavg(), fedmedian()])
    @pytest.mark.parametrize("in_file", [False, True])
    def test_an_update_that_is_wrong_twice_is_told_what_comes_first(self, plan, in_file, tmp_path):
        good = {"first": np.ones(3, np.float32), "second": np.ones(3, np.float32)}
        bad = {"first": np.full(3, np.nan, np.float32), "second": np.ones(4, np.float32)}
        records = [ParametersRecord.from_numpy(each) for each in (good, bad, good, good)]
        if in_file:
            for turn, each in enumerate(records):
                save(each, tmp_path / f"{turn}")
            records = [load(tmp_path / f"{turn}").parameters_records["model"] for turn in range(4)]
        _, events, _ = run(records, plan=plan._replace(evaluate=None), first=ParametersRecord.from_numpy(good))
        ((node, reason),) = refused(events)
        assert node == "node-01"
        assert reason.startswith("expected finite numbers, got 3 NaN")

    @pytest.mark.parametrize("gate", [Gate(max_norm=1e9), Gate(finite=False)])
    def test_a_gate_that_wants_something_else_is_asked_before(self, gate):
        fold, _, done = run(in_memory_of(ARRAYS[:8]), Screened(), gate=gate)
        assert fold.screens == []
        assert done.report.accepted == 8

    def test_of_several_records_all_count_or_none(self):
        bad = [array * (np.nan if place == 3 else 1) for place, array in enumerate(ARRAYS[:8])]
        records, controls = in_memory_of(ARRAYS[:8]), in_memory_of(bad)
        _, events, done = run(records, companions={"control": controls}, plan=scaffold())
        assert [node for node, _ in refused(events)] == ["node-03"]
        others = [place for place in range(8) if place != 3]
        assert done.report.accepted == len(others)

    def test_those_in_files_wait_for_those_before_them(self, tmp_path):
        files = mapped(tmp_path, spoilt(5))
        mixed = [
            file if place % 2 else made for place, (file, made) in enumerate(zip(files, in_memory(files), strict=True))
        ]
        _, events, done = run(mixed, Screened())
        assert [node for node, _ in refused(events)] == ["node-05"]
        assert done.report.digest == run(files)[2].report.digest


def in_memory_of(arrays):
    return [ParametersRecord.from_numpy([array]) for array in arrays]
