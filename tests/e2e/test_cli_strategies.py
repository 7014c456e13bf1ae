"""``umbel strategies``, and strategies with their numbers in ``[tool.umbel]``."""

import inspect
import json
import tomllib

import pytest

from umbel import strategy as named
from umbel.strategy import Strategy, catalogue

REQUIRED = {"mu": 0.1, "q": 0.5, "learning_rate": 0.1, "local": "x", "byzantine": 1} | {
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
    assert "all but fedbuff, fedasync also take: quorum = 1.0" in umbel("strategies").stdout


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


@pytest.mark.parametrize("name", [*PLAIN, "fedbuff", "fedasync"])
def test_an_app_names_a_strategy(umbel, site, name):
    filled = {"concurrency": 2, "buffer": 2} if name == "fedbuff" else {}
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
        (table("fedadam", optimizer="adam"), "fedadam has no setting 'optimizer'"),
        (table("fedbn", local="bn.*"), "got 'bn.*'; it has 'w'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(umbel, site, line, expected):
    result = umbel("run", site([("rounds = 4", line)]))
    assert expected in result.stderr, result.output
    assert result.exit_code in (2, 64, 70), result.output
    assert "Traceback" not in result.output
