"""Laws of the robust aggregators: no order of arrival, no block size changes a bit; a minority moves nothing far."""

import os
import subprocess
import sys
from inspect import isfunction, signature
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_aggregation_laws import DTYPES, cohorts, in_batches
from umbel import aggregation
from umbel.aggregation import (
    Update,
    aggregate,
    bulyan,
    by_examples,
    canonical,
    centred_clipping,
    clipped_mean,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
    weighted_mean,
)
from umbel.aggregation import _stacked as stacked
from umbel.records import ParametersRecord, digest

# Each as a function of how many updates may be bad, and the least number of updates of which it bears as many.
BREAKDOWN = {
    "median": (lambda f, n: median(), lambda f: 2 * f + 1),
    "trimmed_mean": (lambda f, n: trimmed_mean(share=min((f + 0.5) / n, 0.49)), lambda f: 2 * f + 1),
    "krum": (lambda f, n: krum(byzantine=f), lambda f: 2 * f + 3),
    "multi_krum": (lambda f, n: multi_krum(byzantine=f), lambda f: 2 * f + 3),
    "bulyan": (lambda f, n: bulyan(byzantine=f), lambda f: 4 * f + 3),
    "geometric_median": (lambda f, n: geometric_median(), lambda f: 2 * f + 1),
    "clipped_mean": (lambda f, n: clipped_mean(), lambda f: 2 * f + 1),
    "centred_clipping": (lambda f, n: centred_clipping(), lambda f: 2 * f + 1),
}
BY_ELEMENT = ("median", "trimmed_mean")
TOWARDS_THE_MODEL = ("clipped_mean", "centred_clipping")
ALL = [make(0, 1) for make, _ in BREAKDOWN.values()]
every_one = pytest.mark.parametrize("aggregator", ALL, ids=lambda each: each.name)
FLOATS = ["float16", "bfloat16", "float32", "float64", "complex64"]


def outcome(aggregator, updates, in_parts=None):
    """The bytes of the result, or why there is none."""
    fold = aggregator.reduce
    try:
        if in_parts is not None:
            return dict(in_batches(fold, updates, in_parts, tail=True))
        return dict(aggregate(aggregator, updates[0].record, updates))
    except ArithmeticError as error:
        return str(error)


@every_one
@given(updates=cohorts(dtypes=DTYPES), cuts=st.lists(st.integers(0, 100), max_size=4), random=st.randoms())
def test_neither_batches_nor_the_order_of_arrival_change_a_bit(aggregator, updates, cuts, random):
    expected = outcome(aggregator, updates)
    assert outcome(aggregator, updates, cuts) == expected
    arrived = random.sample(updates, len(updates))
    assert outcome(aggregator, canonical(arrived)) == expected


@every_one
@given(updates=cohorts(most=1))
def test_the_result_of_one_update_is_that_update(aggregator, updates):
    with np.errstate(all="ignore"):
        assert outcome(aggregator, updates) == dict(updates[0].record)


@pytest.mark.parametrize("aggregator", [median(), trimmed_mean(share=0.3), bulyan(byzantine=1)], ids=lambda a: a.name)
@given(updates=cohorts(dtypes=DTYPES, most=4), data=st.data())
def test_who_sent_what_changes_no_bit_of_what_goes_by_element(aggregator, updates, data):
    """Only values count: a rule that added them up by the names of nodes would differ in the last bit."""
    if aggregator.least > len(updates):
        aggregator = bulyan(byzantine=0)
    order = data.draw(st.sampled_from(list(permutations(range(len(updates))))))
    swapped = [update._replace(record=updates[place].record) for update, place in zip(updates, order, strict=True)]
    if all(array.dtype not in ("uint64", "int64") for array in updates[0].record.values()):
        assert outcome(aggregator, swapped) == outcome(aggregator, updates)


def vectors(draw, count, size):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng, rng.standard_normal((count, size)) * 10.0 ** draw(st.integers(-3, 3))


@st.composite
def attacked(draw, least):
    """Honest points near one another, and f of n bad ones anywhere; often just as many as there have to be."""
    f = draw(st.integers(1, 4))
    n = least(f) + draw(st.integers(0, 6))
    rng, honest = vectors(draw, n - f, 6)
    centre = rng.standard_normal(6) * 10.0 ** draw(st.integers(-2, 4))
    far = 10.0 ** draw(st.integers(-2, 12))
    kind = draw(st.sampled_from(["one place", "many places", "opposite", "one element"]))
    bad = {
        "one place": np.repeat(rng.standard_normal((1, 6)), f, axis=0) * far,
        "many places": rng.standard_normal((f, 6)) * far,
        "opposite": -np.repeat(honest.mean(axis=0, keepdims=True), f, axis=0) * far,
        "one element": honest[:1] + np.eye(6)[:1].repeat(f, axis=0) * far,
    }[kind]
    whole = np.concatenate([honest, bad]) + centre
    order = rng.permutation(n)
    return f, whole[order], order < n - f, centre


def result(rule, points, centre):
    """What a rule makes of points, if the model that nodes began with is where rounds have led: among the honest."""
    updates = [Update(f"n{i:02}", 1.0, ParametersRecord.from_numpy({"w": w})) for i, w in enumerate(points)]
    return aggregate(rule, ParametersRecord.from_numpy({"w": centre}), updates)["w"].numpy()


def apart(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2).max()


@pytest.mark.parametrize("name", BREAKDOWN)
@settings(deadline=None)
@given(data=st.data())
def test_bad_updates_move_the_result_by_no_more_than_the_honest_ones_lie_apart(name, data):
    """For the rules that clip, the model is one of the honest: it is where they draw updates to.

    With up to four bad ones: with no more honest ones than there have to be, that is what each rule bears. The bound
    of the geometric median grows with their number, 2(n - f)/(n - 2f) radii (Lopuhaä and Rousseeuw 1991).
    """
    make, least = BREAKDOWN[name]
    f, points, is_honest, centre = data.draw(attacked(least))
    found = result(make(f, len(points)), points, centre)
    honest = points[is_honest]
    spread = apart(np.vstack([honest, centre]) if name in TOWARDS_THE_MODEL else honest)
    slack = 1e-5 * np.abs(honest - centre).max() + 1e-9 * np.abs(honest).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) <= spread + slack
    if name in BY_ELEMENT:
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()


@pytest.mark.parametrize("name", BREAKDOWN)
@given(data=st.data())
def test_a_majority_of_bad_updates_takes_the_result_where_it_wants(name, data):
    """No rule could bear more than it does; of those that go by element, a half is enough."""
    make, least = BREAKDOWN[name]
    f = data.draw(st.integers(1, 4))
    n = least(f) + data.draw(st.integers(0, 6))
    bad = (n + 1) // 2 if name in BY_ELEMENT else n // 2 + 1
    rng, honest = vectors(data.draw, n - bad, 6)
    lie = rng.standard_normal(6)
    lie *= 10.0 ** data.draw(st.integers(3, 9)) * (1 + np.abs(honest).max()) / np.linalg.norm(lie)
    found = result(make(f, n), np.vstack([honest, *[lie] * bad]), np.zeros(6))
    assert np.linalg.norm(found) > np.linalg.norm(lie) / 10


@every_one
@settings(max_examples=20, deadline=None)
@given(updates=cohorts(dtypes=[*FLOATS, "int64", "int8"]), columns=st.sampled_from([512, 1024, 4096]))
def test_the_size_of_a_block_changes_no_bit(aggregator, updates, columns):
    expected = outcome(aggregator, updates)
    before = stacked._FEWEST, stacked._MOST
    stacked._FEWEST = stacked._MOST = columns
    try:
        assert outcome(aggregator, updates) == expected
    finally:
        stacked._FEWEST, stacked._MOST = before


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=9), st.integers(0, 1))
def test_wide_integers_keep_their_last_digit_beside_a_liar(values, liar):
    """What goes by element is exact for honest integers, however far the others are."""
    honest = [1_000_000_007 + value % 50 for value in values]
    lies = [-(2**63), 2**63 - 1][liar : liar + 1] * ((len(honest) - 1) // 2)
    updates = [
        Update(f"n{i:02}", 1.0, ParametersRecord.from_numpy({"n": np.array([value, value])}))
        for i, value in enumerate(lies + honest)
    ]
    ordered = sorted(lies + honest)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    found = aggregate(median(), updates[0].record, updates)["n"].numpy().tolist()
    assert found == [round((low + high) / 2)] * 2
    assert min(honest) <= found[0] <= max(honest)


WEIGHED = {
    "weighted_mean": weighted_mean(),
    "multi_krum": multi_krum(byzantine=1, weigh=by_examples),
    "geometric_median": geometric_median(weigh=by_examples),
    "clipped_mean": clipped_mean(weigh=by_examples),
    "centred_clipping": centred_clipping(weigh=by_examples),
}


def test_these_are_all_the_rules_that_take_weights():
    rules = {name: getattr(aggregation, name) for name in aggregation.__all__}
    taking = {n for n, rule in rules.items() if isfunction(rule) and "weigh" in signature(rule).parameters}
    assert taking - {"total"} == WEIGHED.keys()


def scaled(updates, factor):
    return [update._replace(weight=update.weight * factor) for update in updates]


@pytest.mark.parametrize("name", WEIGHED)
@given(updates=cohorts(least=5), power=st.integers(-60, 60))
def test_scaling_all_weights_by_a_power_of_two_changes_no_bit(name, updates, power):
    assert outcome(WEIGHED[name], scaled(updates, 2.0**power)) == outcome(WEIGHED[name], updates)


@pytest.mark.parametrize("name", WEIGHED)
@given(data=st.data(), count=st.integers(5, 12), factor=st.floats(1e-6, 1e6))
def test_scaling_all_weights_changes_nothing_that_counts(name, data, count, factor):
    rng, points = vectors(data.draw, count, 6)
    updates = [
        Update(f"n{i:02}", weight, ParametersRecord.from_numpy({"w": w}))
        for i, (weight, w) in enumerate(zip(rng.uniform(0.1, 10, count), points, strict=True))
    ]
    model = ParametersRecord.from_numpy({"w": np.zeros(6)})
    found, expected = (
        aggregate(WEIGHED[name], model, each)["w"].numpy() for each in (scaled(updates, factor), updates)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * apart(points))


THREADS = """
import sys
import numpy as np
from umbel.aggregation import *
from umbel.records import ParametersRecord, digest
rng = np.random.default_rng(5)
model = {"a": rng.standard_normal((700, 300)).astype(np.float32), "b": rng.standard_normal(5000)}
updates = [
    Update(f"n{i:02}", 1.0, ParametersRecord.from_numpy(
        {k: v + rng.standard_normal(v.shape).astype(v.dtype) for k, v in model.items()}
    )) for i in range(40)
]
first = ParametersRecord.from_numpy(model)
rules = [make(byzantine=5) for make in (krum, multi_krum, bulyan)]
for rule in (*rules, geometric_median(), clipped_mean(), centred_clipping()):
    print(digest(aggregate(rule, first, updates)))
"""


def test_the_number_of_threads_changes_no_bit():
    outputs = []
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [sys.executable, "-c", THREADS]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
        outputs.append(done.stdout.split())
    assert len(outputs[0]) == 6
    assert outputs[0] == outputs[1] == outputs[2]


def test_digests_are_what_they_were():
    """The bits of a small fixed cohort; a change of them is a change of every run."""
    rng = np.random.default_rng(3)
    draws = rng.integers(-1000, 1000, (12, 40)) / 64
    updates = [
        Update(f"n{i:02}", 1.0, ParametersRecord.from_numpy({"w": row.astype(np.float32)}))
        for i, row in enumerate(draws)
    ]
    model = ParametersRecord.from_numpy({"w": np.zeros(40, np.float32)})
    found = {each.name: digest(aggregate(each, model, updates))[7:23] for each in ALL}
    assert found == GOLDEN


GOLDEN = {
    "median": "5226a01d6e29649b",
    "trimmed_mean(share=0.49)": "5226a01d6e29649b",
    "krum(byzantine=0)": "cae86083b4301f96",
    "multi_krum(byzantine=0, count=None)": "f5f122c39a47b0f6",
    "bulyan(byzantine=0)": "f5f122c39a47b0f6",
    "geometric_median(smooth=1e-06, iterations=200)": "9ceb5362918af0b4",
    "clipped_mean(quantile=0.5)": "665510577bd4903d",
    "centred_clipping(radius=None, iterations=3)": "90a883262acaab21",
}
