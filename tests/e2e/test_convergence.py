"""Each algorithm beats FedAvg in the regime that its paper is for: the suite of `benchmarks/bench_convergence.py`."""

import importlib
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
NEEDS = {"fedxgb_bagging": "xgboost", "fedxgb_cyclic": "xgboost"}
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


def rows_of_the_page():
    """The strategies and regimes of the table in the documentation."""
    table = (ROOT / "docs" / "strategies.md").read_text().partition("| strategy | regime |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \| (.+?)(?: \[\d\])? \|", table, re.MULTILINE)


def test_the_page_has_every_regime_and_the_numbers_it_is_measured_with():
    found = [
        (whole if whole.startswith("quorum") else whole.partition("(")[0], regime)
        for whole, regime in rows_of_the_page()
    ]
    assert found == [(each.strategy, each.regime) for each in REGIMES]
    code = "".join((BENCHMARKS / name).read_text() for name in ("_regimes.py", "_cohorts.py", "_sites.py"))
    missing = [whole for whole, _ in rows_of_the_page() if "(" in whole and whole.removesuffix(")") not in code]
    assert missing == []


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
