"""Selectors: cohorts that depend on the seed alone, and are drawn without listing a population."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import StrategyError
from umbel.strategy import everyone, fixed, fraction, weighted

seeds = st.integers(0, 2**63 - 1)


@given(count=st.integers(1, 300), seed=seeds, data=st.data())
def test_a_cohort_has_distinct_ascending_positions(count, seed, data):
    wanted = data.draw(st.integers(1, count))
    cohort = list(fixed(wanted).choose(count, seed))
    assert len(cohort) == wanted
    assert cohort == sorted(set(cohort))
    assert cohort[0] >= 0
    assert cohort[-1] < count


def test_a_cohort_is_the_same_for_ever():
    # The numbers are those of version 0.1: a change of them changes the result of every seed.
    assert list(fixed(5).choose(100, 7)) == [31, 35, 43, 84, 97]
    assert list(fixed(3).choose(1_000_000, 2**63 - 1)) == [477398, 573808, 787012]


def test_every_node_is_drawn_equally_often():
    drawn = Counter(position for seed in range(4_000) for position in fixed(3).choose(10, seed))
    assert sorted(drawn) == list(range(10))
    # 1,200 expected of each, with a standard deviation of 29.
    assert all(1_050 < times < 1_350 for times in drawn.values())


def test_every_pair_is_drawn_equally_often():
    drawn = Counter(tuple(fixed(2).choose(5, seed)) for seed in range(5_000))
    assert len(drawn) == 10
    assert all(400 < times < 600 for times in drawn.values())


def test_everyone_is_a_range():
    assert everyone().choose(1_000_000_000, 1) == range(1_000_000_000)


@pytest.mark.parametrize(("share", "count", "size"), [(0.1, 100, 10), (0.29, 100, 29), (0.1, 3, 1), (1.0, 7, 7)])
def test_a_fraction_is_rounded_to_the_nearest(share, count, size):
    assert len(fraction(share).choose(count, 0)) == size


def test_a_fraction_has_at_least_min_nodes():
    assert len(fraction(0.01, min_nodes=4).choose(20, 0)) == 4


def test_too_few_nodes_are_refused_with_both_numbers():
    with pytest.raises(StrategyError, match="at least 4 nodes to select from, the grid has 3"):
        fraction(0.5, min_nodes=4).choose(3, 0)
    with pytest.raises(StrategyError, match="at least 9 nodes"):
        fixed(9).choose(8, 0)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(StrategyError, match="above 0 and at most 1"):
        fraction(share)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_number_of_nodes_is_a_positive_int(count):
    with pytest.raises(StrategyError, match="whole number of nodes"):
        fixed(count)
    with pytest.raises(StrategyError, match="whole number of nodes"):
        fraction(0.5, min_nodes=count)


def test_a_selector_says_what_it_is():
    assert everyone().name == "everyone()"
    assert fraction(0.25, min_nodes=2).name == "fraction(0.25, min_nodes=2)"
    assert fixed(3).name == "fixed(3)"


def test_weighted_draws_in_proportion():
    selector = weighted(1, [1, 0, 3])
    drawn = [selector.choose(3, seed)[0] for seed in range(4000)]
    assert drawn.count(1) == 0
    assert abs(drawn.count(2) / 4000 - 0.75) < 0.03


def test_weighted_draws_without_replacement_and_in_order():
    selector = weighted(3, [5.0, 0.0, 1e-12, 2.0, 1.0])
    for seed in range(200):
        chosen = selector.choose(5, seed)
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 3
        assert 1 not in chosen
    assert weighted(2, [0, 1e100, 1e-300]).choose(3, 5) == [1, 2]
    assert selector.choose(5, 7) == selector.choose(5, 7)
    assert selector.most == 3


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (0, [1], "at least 1"),
        (2, [1, 0], "at least 2 of them above 0"),
        (1, [-1, 2], "expected weights from 0"),
        (1, [float("nan")], "expected weights from 0"),
        (1, [float("inf")], "expected weights from 0"),
    ],
)
def test_weighted_refuses_what_cannot_be(count, weights, message):
    with pytest.raises(StrategyError, match=message):
        weighted(count, weights)


def test_weighted_knows_how_many_nodes_there_are():
    with pytest.raises(StrategyError, match="as many weights as nodes, 3, got 2"):
        weighted(1, [1, 2]).choose(3, 0)
    assert weighted(1, [1, 2]).name != weighted(1, [1, 3]).name
