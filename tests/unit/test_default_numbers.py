"""Every default of every named strategy: what its paper has, and why ours is another one where it is."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from umbel.strategy import catalogue

PAGE = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
TUNED = "tuned for each task"
NONE = "the paper has no such number"


class Default(NamedTuple):
    """A default, what the paper has (a number, several that it tries, TUNED or NONE), and why ours is not just that."""

    ours: Any
    paper: Any
    why: str = ""


LEARNED = Default(None, TUNED, "learned from the distances of each round")
TREES = {
    "local_rounds": Default(1, NONE, "the least"),
    "most": Default(None, NONE, "what local_rounds grow: nobody adds more than asked"),
}
ADAPTIVE = {
    "learning_rate": Default(0.1, TUNED, "a starting point"),
    "beta1": Default(0.9, 0.9),
    "beta2": Default(0.99, 0.99),
    "tau": Default(1e-3, 1e-3),
}
FOREVER = Default(100, NONE, "a bound against nodes that never come back")

DEFAULTS = {
    "fedavg": {
        "fraction": Default(1.0, 0.1, "a federation of a few sites has no tenth"),
        "min_nodes": Default(1, NONE, "the least"),
        "min_updates": Default(1, NONE, "the least"),
        "evaluate_fraction": Default(1.0, NONE, "all who are there"),
        "statistics": Default(False, NONE, "costs a round, and not every app answers"),
        "quorum": Default(1.0, NONE, "everyone, as FedAvg"),
        "deadline_quantile": Default(None, NONE, "no deadline, as FedAvg"),
        "deadline_factor": Default(2.0, NONE, "twice what a usual node takes"),
        "first_deadline": Default(None, NONE, "nothing is known of the nodes yet"),
        **dict.fromkeys(("clipped", "noisy", "narrowed"), Default(None, NONE, "updates leave as they are")),
    },
    "fedavgm": {"learning_rate": Default(1.0, 1.0), "beta": Default(0.9, TUNED, "what momentum mostly is")},
    "fedadagrad": {
        "learning_rate": Default(0.1, TUNED, "a starting point"),
        "beta1": Default(0.0, 0.0),
        "tau": Default(1e-3, 1e-3),
    },
    "fedadam": ADAPTIVE,
    "fedyogi": ADAPTIVE,
    "fedprox": {},
    "fednova": {},
    "scaffold": {"learning_rate": Default(1.0, 1.0)},
    "feddyn": {"alpha": Default(0.01, (0.1, 0.01, 0.001))},
    "qfedavg": {"loss": Default("loss-before", NONE, "the name of a metric")},
    "fedbn": {},
    "fedper": {},
    "ditto": {},
    "diloco": {
        "local_steps": Default(500, 500),
        "learning_rate": Default(0.7, 0.7),
        "beta": Default(0.9, 0.9),
    },
    "fedmedian": {},
    "fedtrimmedavg": {"share": Default(0.2, TUNED, "at least the share of bad nodes, which the paper leaves open")},
    "krum": {},
    "multikrum": {"count": Default(None, TUNED, "all but the f that may be bad")},
    "bulyan": {},
    "rfa": {
        "smooth": Default(1e-6, 1e-6),
        "iterations": Default(200, 3, "steps among distances that are there cost nothing, and end when nothing moves"),
    },
    "normclip": {"bound": LEARNED, "quantile": Default(0.5, 0.5)},
    "centredclip": {
        "radius": LEARNED,
        "iterations": Default(3, 1, "begins at the model, and not at the point of the round before, which is nearer"),
    },
    "fedbuff": {
        "buffer": Default(10, 10),
        "exponent": Default(0.5, 0.5),
        "learning_rate": Default(1.0, TUNED, "the mean of the steps as it is"),
        "most_stale": FOREVER,
    },
    "fedat": {
        "number": Default(5, TUNED, "a starting point"),
        "mu": Default(0.0, TUNED, "nodes that know of no proximal term need none"),
        "most_stale": FOREVER,
    },
    "fedasync": {
        "alpha": Default(0.6, TUNED, "a starting point"),
        "exponent": Default(0.5, 0.5),
        "most_stale": FOREVER,
    },
    "fedxgb_bagging": TREES,
    "fedxgb_cyclic": TREES,
    "moments": {},
    "histogram": {"bins": Default(10, NONE, "as NumPy's")},
    "quantiles": {},
    "kmeans": {},
}
ROWS = [(strategy, name, row) for strategy, rows in DEFAULTS.items() for name, row in rows.items()]


def is_the_papers(row):
    return row.ours in row.paper if isinstance(row.paper, tuple) else row.ours == row.paper


@pytest.mark.parametrize("strategy", catalogue())
def test_the_defaults_of_a_strategy_are_those_of_the_table(strategy):
    shared = {name: row.ours for name, row in DEFAULTS["fedavg"].items()}
    settings = {each.name: each.default for each in catalogue()[strategy].settings if not each.required}
    expected = {name: row.ours for name, row in DEFAULTS[strategy].items()}
    assert settings == {name: shared[name] for name in shared if name in settings} | expected


def test_the_table_has_no_other_strategies():
    assert DEFAULTS.keys() == catalogue().keys()


@pytest.mark.parametrize(("strategy", "name", "row"), ROWS, ids=[f"{strategy}-{name}" for strategy, name, _ in ROWS])
def test_a_default_that_is_not_the_papers_has_a_reason(strategy, name, row):
    assert bool(row.why) != is_the_papers(row)


def test_the_page_says_which_defaults_are_not_the_papers():
    differ = {
        (strategy, name, f"{row.ours:g}", f"{row.paper:g}", row.why)
        for strategy, name, row in ROWS
        if isinstance(row.paper, int | float) and not is_the_papers(row)
    }
    table = PAGE.read_text().partition("| strategy | number | here | in the paper |")[2].partition("\n\n")[0]
    found = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\S+) \| (\S+) \| (.*?) \|$", table, re.MULTILINE)
    assert set(found) == differ
