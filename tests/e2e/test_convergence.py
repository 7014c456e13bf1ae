"""Each algorithm beats FedAvg in the regime that its paper is for: the suite of `benchmarks/bench_convergence.py`."""

import importlib
import sys
from functools import cache
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NEEDS = {"fedxgb_bagging": "xgboost"}
# It does not hurt the mean of these nodes, so there is nothing to win back.
HARMLESS = "a little is enough"


@cache
def suite(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


REGIMES = suite("_regimes").REGIMES
ATTACKS = suite("_attacks")


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES, ids=lambda each: f"{each.strategy}: {each.regime}")
def test_beats_fedavg_where_it_should(regime):
    if regime.strategy in NEEDS:
        pytest.importorskip(NEEDS[regime.strategy])
    try:
        ours, theirs = regime.measure(1)
    except suite("_peers").PeerUnavailable as error:
        pytest.skip(str(error))
    assert ours > theirs


@cache
def mean_under(attack):
    return ATTACKS.mean_under(attack, 1)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS.ATTACKS)
@pytest.mark.parametrize("rule", ATTACKS.RULES)
def test_bears_the_attack_better_than_the_mean(rule, attack):
    found, bound = ATTACKS.accuracy_under(ATTACKS.RULES[rule], attack, 1), mean_under(attack)
    if attack == HARMLESS:
        assert bound > mean_under(None) - 2
        assert rule == "krum" or found > bound - 5
    else:
        assert found > bound


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(ATTACKS.RULES.keys() - {"krum"}))
def test_costs_little_where_nobody_attacks(rule):
    assert ATTACKS.accuracy_under(ATTACKS.RULES[rule], None, 1) > mean_under(None) - 3
