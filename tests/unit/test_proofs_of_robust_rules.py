"""Robust rules see on their way what is not finite: nobody looks at updates in files before."""

import ml_dtypes
import numpy as np
import pytest

from answers import ARRAYS, in_memory, mapped, refused, run, spoilt
from umbel.aggregation import (
    Proving,
    Update,
    bagged_trees,
    bulyan,
    centred_clipping,
    clipped_mean,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from umbel.errors import AggregationError
from umbel.gate import Gate
from umbel.records import ParametersRecord
from umbel.strategy import strategy

RULES = (
    median(),
    trimmed_mean(),
    krum(byzantine=1),
    multi_krum(byzantine=1),
    bulyan(byzantine=1),
    geometric_median(),
    clipped_mean(),
    centred_clipping(),
)
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.partition("(")[0])


def of(rule, records):
    return run(records, plan=strategy(aggregator=rule))


@each_rule
class TestARound:
    def test_of_good_updates_is_proof_of_them(self, rule, tmp_path, monkeypatch):
        records, looked = mapped(tmp_path, ARRAYS[:8]), []
        check = Gate._check

        def counted(gate, template, expected, update):
            looked.extend([update.node] * gate.finite)
            return check(gate, template, expected, update)

        monkeypatch.setattr(Gate, "_check", counted)
        _, events, done = of(rule, records)
        assert (looked, refused(events)) == ([], [])
        assert of(rule, in_memory(records))[2].report.digest == done.report.digest
        assert looked == [f"node-{place:02}" for place in range(8)]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_refuses_who_is_not_finite_and_goes_on_without(self, rule, value, tmp_path):
        records = mapped(tmp_path, spoilt(4, value))
        _, events, done = of(rule, records)
        _, early, expected = of(rule, in_memory(records))
        assert [node for node, _ in refused(events)] == ["node-04"]
        assert refused(events) == refused(early) == list(done.report.refused)
        assert done.report.digest == expected.report.digest


@each_rule
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.complex64])
class TestAProof:
    def records(self, dtype, place=None, value=None):
        arrays = [array[:100].astype(dtype) for array in ARRAYS[:7]]
        if place is not None:
            arrays[place][-1] = value
        return [Update(f"node-{at}", 1.0, ParametersRecord.from_numpy([array])) for at, array in enumerate(arrays)]

    def test_is_the_result(self, rule, dtype):
        fold, updates = rule.reduce, self.records(dtype)
        assert isinstance(fold, Proving)
        assert fold.proves_finite
        template = updates[0].record
        found = fold.proven(template, updates)["0"].data
        assert bytes(found) == bytes(fold.finish(fold.start(template), updates)["0"].data)

    @pytest.mark.parametrize("place", [1, 6])
    def test_is_none_where_one_is_not_finite(self, rule, dtype, place):
        good = self.records(dtype)[0].record
        for value in (np.nan, np.inf):
            with pytest.raises(AggregationError, match="known to be finite"):
                rule.reduce.proven(good, self.records(dtype, place, value))


class Wrapped:
    """A fold of one's own that is another one in all that is asked of it."""

    def __init__(self, fold):
        self.fold = fold

    def __getattr__(self, name):
        return getattr(self.fold, name)


def test_a_fold_that_passes_everything_on_is_believed_no_more_than_what_it_wraps(tmp_path):
    rule = median()._replace(reduce=Wrapped(median().reduce))
    _, events, done = of(rule, mapped(tmp_path, spoilt(4, np.nan)))
    assert [node for node, _ in refused(events)] == ["node-04"]
    (tmp_path / "bare").mkdir()
    assert done.report.digest == of(median(), mapped(tmp_path / "bare", spoilt(4, np.nan)))[2].report.digest


def test_updates_of_weight_0_and_none_prove_nothing():
    record = ParametersRecord.from_numpy([ARRAYS[0]])
    for updates in ([], [Update("a", 1.0, record), Update("b", 0.0, record)]):
        with pytest.raises(AggregationError, match="weights above 0"):
            median().reduce.proven(record, updates)
    assert not bagged_trees().reduce.proves_finite


@pytest.mark.parametrize("rule", [krum(byzantine=1), geometric_median()])
def test_numbers_too_large_for_distances_prove_nothing_and_count_as_ever(rule):
    arrays = [array[:10].astype(np.float64) for array in ARRAYS[:6]]
    arrays[3] *= 1e200
    updates = [Update(f"node-{at}", 1.0, ParametersRecord.from_numpy([array])) for at, array in enumerate(arrays)]
    template = updates[0].record
    with pytest.raises(AggregationError, match="known to be finite"):
        rule.reduce.proven(template, updates)
    assert np.isfinite(rule.reduce.finish(rule.reduce.start(template), updates)["0"].numpy()).all()
