"""``umbel strategies``, and strategies with their numbers in ``[tool.umbel]``."""

import inspect
import json
import re
import tomllib

import pytest

from umbel import aggregation, optimizers, transforms
from umbel import strategy as named
from umbel.strategy import Policy, Selector, Strategy, catalogue

REQUIRED = {"mu": 0.1, "q": 0.5, "learning_rate": 0.1, "local": "x", "byzantine": 1, "count": 1} | {
    "concurrency": 12,
    "strength": 0.1,
    "low": 0.0,
    "high": 1.0,
    "levels": [0.5],
}


def table(name, **changes):
    options = {each.name: REQUIRED[each.name] for each in catalogue()[name].settings if each.required} | changes
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in {"name": name, **options}.items())
    assert tomllib.loads(f"strategy = {{ {pairs} }}")["strategy"]["name"] == name
    return f"strategy = {{ {pairs} }}"


def test_every_strategy_is_listed_with_its_paper(umbel):
    result = umbel("strategies")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name in catalogue():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert "arXiv:" in line
    assert "learning_rate = 0.1, beta1 = 0.9, beta2 = 0.99, tau = 0.001" in result.stdout
    assert "mu (required)" in result.stdout


def test_what_many_take_is_said_of_those_that_take_it(umbel):
    lines = [
        line.partition(" also take: ") for line in umbel("strategies").stdout.splitlines() if " also take: " in line
    ]
    said = {setting: who for who, _, settings in lines for setting in settings.split(", ")}
    shared = catalogue()["fedavg"].settings
    assert said.keys() == set(map(str, shared))
    for setting in shared:
        who, _, without = said[str(setting)].partition(" but ")
        takers = {name for name, entry in catalogue().items() if setting in entry.settings}
        assert who in ("all", "all of them")
        assert takers == catalogue().keys() - set(without.split(", "))
    assert "all but fedbuff, fedasync, fedat also take: quorum = 1.0" in umbel("strategies").stdout


def exported():
    """Every public name that is a part: of the packages of strategies and of what they are made from."""
    made = (Selector, Policy, aggregation.Aggregator, optimizers.Optimizer, transforms.Transform)
    for module in (named, aggregation, optimizers, transforms):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) and inspect.signature(value).return_annotation in made:
                yield f"{module.__name__}.{name}"
    yield from ("umbel.strategy.tell", "umbel.strategy.Companion", "umbel.gate.Gate")
    yield from (f"umbel.aggregation.{name}" for name in ("by_examples", "by_metric", "uniform"))


def test_every_part_is_listed_below_with_one_line(umbel):
    shown = umbel("strategies").stdout
    rows = [re.split("  +", line) for line in shown.partition("\nas  ")[2].splitlines()[1:] if "  umbel." in line]
    assert sorted(f"{where}.{call.partition('(')[0]}" for _, call, where, *_ in rows) == sorted(exported())
    assert all(len(rest) in (1, 2) and rest[-1] and "``" not in rest[-1] for _, _, _, *rest in rows)
    lines = [" ".join(row) for row in rows]
    assert "select fixed(count) umbel.strategy Select the same number of nodes in every round" in "\n".join(lines)
    assert "aggregator krum(byzantine, ...) umbel.aggregation arXiv:1703.02757 The one update that is" in "\n".join(
        lines
    )
    assert "weigh uniform umbel.aggregation 1, whatever the metrics" in "\n".join(lines)
    assert "parts are put together in Python, strategy(select=...)" in shown


def test_parts_as_json(umbel):
    listed = json.loads(umbel("strategies", "--json").stdout)["parts"]
    assert sorted(f"{each['module']}.{each['name']}" for each in listed) == sorted(exported())
    assert all(each["summary"] and each["role"] for each in listed)
    arguments = inspect.signature(named.strategy).parameters
    assert {each["role"] for each in listed} - {"weigh"} <= set(arguments)
    assert json.loads(umbel("strategies", "fedadam", "--json").stdout)["parts"] == []
    (one,) = json.loads(umbel("strategies", "oort", "--json").stdout)["parts"]
    assert (one["call"], one["paper"]) == ("oort(count, ...)", "arXiv:2010.06081")


@pytest.mark.parametrize(
    ("name", "use"),
    [("oort", "strategy(select=oort(count, ...))"), ("by_metric", "weighted_mean(weigh=by_metric(name))")],
)
def test_one_part(umbel, name, use):
    result = umbel("strategies", name)
    assert result.exit_code == 0
    assert f"part      {use}" in result.stdout
    assert "put together in Python" in result.stdout
    assert (
        "fraction" not in umbel("strategies", "krum").stdout.partition("setting")[0]
    )  # a strategy of that name is shown


def test_no_strategy_is_forgotten():
    made = {
        name
        for name, function in vars(named).items()
        if inspect.isfunction(function)
        and name not in ("strategy", "named")
        and inspect.signature(function).return_annotation is Strategy
    }
    assert made == set(catalogue())


def test_the_list_as_json(umbel):
    listed = json.loads(umbel("strategies", "--json").stdout)["strategies"]
    assert [each["name"] for each in listed] == list(catalogue())
    assert all(each["paper"].startswith("arXiv:") and each["summary"] for each in listed)
    (one,) = json.loads(umbel("strategies", "fedprox", "--json").stdout)["strategies"]
    assert one["settings"][0] == {"name": "mu", "required": True}
    assert {"name": "fraction", "required": False, "default": 1.0} in one["settings"]


def test_one_strategy(umbel):
    result = umbel("strategies", "diloco")
    assert result.exit_code == 0
    assert "arXiv:2311.08105" in result.stdout
    assert "local_steps = 500" in result.stdout


def test_an_unknown_one_is_met_with_the_nearest(umbel):
    result = umbel("strategies", "fedadm")
    assert result.exit_code == 2
    assert 'did you mean "fedadam"?' in result.stderr


@pytest.mark.parametrize("name", catalogue())
def test_a_default_that_is_shown_is_the_default(name):
    required = {each.name: REQUIRED[each.name] for each in catalogue()[name].settings if each.required}
    shown = {each.name: each.default for each in catalogue()[name].settings if not each.required}
    assert named.named(name, required).describe() == named.named(name, required | shown).describe()


PLAIN = ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedprox", "diloco", "feddyn", "fedmedian", "rfa", "ditto"]


@pytest.mark.parametrize("name", [*PLAIN, "fedbuff", "fedasync", "fedat"])
def test_an_app_names_a_strategy(umbel, site, name):
    filled = {"fedbuff": {"concurrency": 2, "buffer": 2}, "fedat": {"count": 1, "number": 2}}.get(name, {})
    result = umbel("run", site([("rounds = 4", f"rounds = 1\n{table(name, fraction=0.5, **filled)}")]))
    assert result.exit_code == 0, result.output
    assert f"{name} over 4 nodes" in result.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (table("fedadam", learning_rat=1), 'did you mean "learning_rate"?'),
        (table("fedadam", learning_rate="x"), "expected a number for learning_rate of fedadam, got 'x'"),
        (table("fedadam", learning_rate=True), "expected a number for learning_rate"),
        (table("diloco", local_steps=1.5), "expected a whole number for local_steps of diloco, got 1.5"),
        (table("fedadam", statistics=1), "expected true or false for statistics"),
        (table("fedbn", local=5), "expected a text or a list of texts for local of fedbn, got 5"),
        (table("fedbn", local=["a", 1]), "a text or a list of texts"),
        (table("fedadam", beta1=1), "beta1 from 0 to below 1, got 1"),
        ('strategy = "fedprox"', "the strategy fedprox needs mu; umbel strategies fedprox says what it takes"),
        ('strategy = { name = "qfedavg" }', "needs q and learning_rate"),
        (table("fedadam", optimizer="adam"), "fedadam has no setting 'optimizer': parts are put together in Python"),
        (table("fedavg", select="oort"), "no setting 'select': parts are put together in Python, strategy(select=...)"),
        (table("fedbn", local="bn.*"), "got 'bn.*'; it has 'w'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(umbel, site, line, expected):
    result = umbel("run", site([("rounds = 4", line)]))
    assert expected in result.stderr, result.output
    assert result.exit_code in (2, 64, 70), result.output
    assert "Traceback" not in result.output
