"""The gate's bound for norms of updates in files, which are measured while their mean is made."""

import numpy as np
import pytest

from answers import ARRAYS, COUNT, FIRST, Answers, Recorded, in_memory, mapped, refused, run, spoilt
from umbel.aggregation import Measuring, median, squared_distance, weighted_mean
from umbel.gate import Gate
from umbel.optimizers import momentum
from umbel.records import ParametersRecord
from umbel.rounds import RoundCompleted, UpdateRefused, _waiting, begin, train
from umbel.strategy import Companion, fedavg, power_of_choice, scaffold, strategy


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

    @pytest.mark.parametrize("bounds", [(None, 1e6), (1e6, None), (1e6, 1e6)])
    @pytest.mark.parametrize("others", [(median(), weighted_mean()), (weighted_mean(), median())])
    def test_beside_a_record_that_is_looked_at_before(self, tmp_path, bounds, others):
        """Of a median nothing is proven; its updates have been measured when those of the mean beside it are."""
        (rule, beside), (ours, theirs) = others, bounds
        companion = Companion("control", lambda model: model, beside, momentum(), Gate(max_norm=theirs))
        plan = strategy(aggregator=rule, gate=Gate(max_norm=ours), companions=(companion,))
        records, controls = mapped(tmp_path, spoilt(4, 1e30)), mapped(tmp_path, spoilt(2, 1e30), "control")
        _, events, done = run(records, companions={"control": controls}, plan=plan)
        _, early, expected = run(in_memory(records), companions={"control": in_memory(controls)}, plan=plan)
        assert sorted(refused(events)) == sorted(refused(early))
        assert len(refused(events)) == len([each for each in bounds if each])
        assert done.report.digest == expected.report.digest

    def test_a_node_that_is_wrong_twice_is_told_what_comes_first(self, tmp_path):
        controls = [*ARRAYS[:4], ARRAYS[4][:-1], *ARRAYS[5:8]]
        plan, made = scaffold(gate=Gate(max_norm=1e3)), mapped(tmp_path, controls, "control")
        records = mapped(tmp_path, spoilt(4, 1e30))
        _, events, _ = run(records, companions={"control": made}, plan=plan)
        _, early, _ = run(in_memory(records), companions={"control": in_memory(made)}, plan=plan)
        assert refused(events) == refused(early)
        assert "expected a norm" in refused(events)[0][1]

    @pytest.mark.parametrize("squares", [[], [-1.0] * 8, [np.nan] * 8, [0.0] * 7])
    def test_a_fold_that_measures_wrong_proves_nothing(self, tmp_path, squares):
        class Wrong(Measured):
            def measured(self, template, updates):
                return super().measured(template, updates)[0], squares

        fold, bound = Wrong(), sorted(map(norm_of, ARRAYS[:8]))[5]
        _, events, _ = run(mapped(tmp_path, ARRAYS[:8]), fold, gate=Gate(max_norm=bound))
        assert len(refused(events)) == 2
        assert fold.sizes == [6]

    def test_a_fold_that_does_not_measure_has_them_looked_at_before(self, tmp_path):
        fold = Recorded()
        _, events, _ = run(mapped(tmp_path, spoilt(4, 1e30)), fold, gate=Gate(max_norm=1e9))
        assert fold.sizes == [7]
        assert [type(event) for event in events if getattr(event, "node", "") == "node-04"] == [UpdateRefused]
        assert isinstance(fedavg().aggregator.reduce, Measuring)


@pytest.mark.parametrize(("value", "gate"), [(1e30, Gate(max_norm=1e3)), (np.nan, Gate())])
def test_what_a_node_said_that_is_refused_after_all_is_not_remembered(tmp_path, value, gate):
    """A node that claims the largest loss would be asked in every round."""
    records = mapped(tmp_path, spoilt(4, value))
    plan = strategy(aggregator=weighted_mean(), gate=gate, select=power_of_choice(4, candidates=6, loss="loss"))

    def ends(replies):
        grid = Answers(replies, losses={4: 1e9})
        return [each for each in train(grid, plan, begin(plan, FIRST), rounds=9) if isinstance(each, RoundCompleted)]

    waited, looked_at = ends(records), ends(in_memory(records))
    assert [each.report.refused for each in waited] == [each.report.refused for each in looked_at]
    assert 0 < sum(len(each.report.refused) for each in waited) < 9
    assert (
        waited[-1].state.parameters_records["nodes"]["loss"] == looked_at[-1].state.parameters_records["nodes"]["loss"]
    )
    assert waited[-1].report.digest == looked_at[-1].report.digest
