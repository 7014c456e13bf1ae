"""Strategies made of a name and plain values, as they come from a file or over the network."""

import pytest

from umbel import strategy
from umbel.errors import StrategyError
from umbel.strategy import catalogue, fedprox, fixed, named


def test_the_strategy_is_the_one_that_its_function_makes():
    assert named("fedavg").describe() == strategy.fedavg().describe()
    options = {"learning_rate": 1, "beta": 0.5, "fraction": 0.25}
    assert named("fedavgm", options).describe() == strategy.fedavgm(**options).describe()
    assert options == {"learning_rate": 1, "beta": 0.5, "fraction": 0.25}
    assert named("fedbn", {"local": ["a", "b"]}).local == ("a", "b")


def test_when_a_round_is_over_is_said_in_plain_numbers():
    told = {"quorum": 0.5, "deadline_quantile": 0.9, "deadline_factor": 3, "first_deadline": 60}
    policy = strategy.quorum(0.5, quantile=0.9, factor=3, first_deadline=60)
    for name in ("fedavg", "fedadam", "krum", "moments"):
        needed = {"byzantine": 1} if name == "krum" else {}
        assert named(name, told | needed).policy.name == policy.name
    assert named("fedavg").policy.name == "synchronous()"
    defaults = {each.name: each.default for each in catalogue()["fedadam"].settings}
    assert [defaults[each] for each in told] == [1.0, None, 2.0, None]
    assert "quorum" not in {each.name for each in catalogue()["fedbuff"].settings}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedadm", {}, "there is no strategy 'fedadm'; did you mean \"fedadam\""),
        ("\x1b[2J" * 99, {}, r"there is no strategy '\\x1b\[2J.*\(known: fedavg, "),
        ("strategy", {}, "there is no strategy"),
        ("fedadam", {"beta": 0.1}, "fedadam has no setting 'beta'; did you mean \"beta"),
        ("fedavg", {"optimizer": "adam"}, "has no setting 'optimizer'"),
        ("fedavg", {"name": "mine"}, "has no setting 'name'"),
        ("fedavg", {"fraction": "1"}, "expected a number for fraction of fedavg, got '1'"),
        ("fedavg", {"fraction": True}, "expected a number"),
        ("fedavg", {"fraction": float("nan")}, "expected a number .* got nan"),
        ("fedprox", {"mu": float("inf")}, "expected a number .* got inf"),
        ("fedprox", {"mu": 10**5000}, "got a whole number of more than 64 bits"),
        ("diloco", {"local_steps": 2**63}, "got a whole number of more than 64 bits"),
        ("diloco", {"local_steps": 1.0}, "expected a whole number"),
        ("fedavg", {"statistics": 1}, "expected true or false"),
        ("fedbn", {"local": [1]}, "expected a text or a list of texts"),
        ("fedbn", {"local": None}, "expected a text or a list of texts"),
        ("fedavg", {"fraction": 7}, "above 0 and at most 1, got 7 - at strategy fedavg, fraction"),
        ("fedavg", {"quorum": 2}, "shares up to 1, .* at strategy fedavg, policy"),
        ("fedavg", {"deadline_factor": 3}, "a factor of 3 stretches a deadline, and .* at strategy fedavg, policy"),
        ("fedavg", {"deadline_quantile": "all"}, "expected a number for deadline_quantile"),
        ("fedbuff", {"concurrency": 2, "buffer": 1, "quorum": 0.5}, "has no setting 'quorum'"),
        ("qfedavg", {}, "needs q and learning_rate"),
        (
            "fedbuff",
            {"concurrency": 20, "evaluate_fraction": 1},
            "'evaluate_fraction', unlike fedavg .known: concurrency",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, options, message):
    with pytest.raises(StrategyError, match=message) as caught:
        named(name, options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_the_catalogue_says_what_each_takes():
    entry = catalogue()["fedprox"]
    assert (entry.summary, entry.paper) == (
        "Average models that are held near the one they began with",
        "arXiv:1812.06127",
    )
    assert [each.name for each in entry.settings if each.required] == ["mu"]
    assert {each.name: each.default for each in entry.settings}["fraction"] == 1.0


@pytest.mark.parametrize("name", catalogue())
def test_an_option_that_is_none_is_refused_in_python_too(name):
    make = getattr(strategy, name)
    needed = {
        "mu": 1,
        "q": 1,
        "learning_rate": 1,
        "local": "x",
        "byzantine": 0,
        "concurrency": 20,
        "strength": 1,
        "count": 1,
    }
    needed |= {"low": 0, "high": 1, "levels": 0.5}
    given = {each.name: needed[each.name] for each in catalogue()[name].settings if each.required}
    with pytest.raises(
        StrategyError, match=f"strategy {name} has no setting 'min_update'; did you mean \"min_updates\""
    ):
        make(**given, min_update=1)
    with pytest.raises(StrategyError, match=f"strategy {name} has no setting 'zzz' .known: .*min_updates"):
        make(**given, zzz=1)


@pytest.mark.parametrize("name", catalogue())
def test_an_option_that_is_none_is_named_before_one_that_is_missing(name):
    with pytest.raises(StrategyError, match=f"strategy {name} has no setting 'min_update'; did you mean"):
        getattr(strategy, name)(min_update=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strategy.fedavg(fracton=0.5), "fedavg has no setting 'fracton'; did you mean \"fraction\""),
        (lambda: strategy.fedavg(select=None), r"parts are put together in Python, strategy\(select=...\)"),
        (lambda: strategy.fedavg(quorum=0.7), r"no setting 'quorum' in Python: hand over policy=quorum\(...\)"),
        (lambda: strategy.fedadam(max_norm=2.0), r"hand over gate=Gate\(max_norm=...\)"),
        (lambda: strategy.fedavg(clipped=2.0), r"hand over transforms=clipped\(...\)"),
        (lambda: strategy.quantiles(level=0.5), "quantiles has no setting 'level'; did you mean \"levels\""),
        (lambda: strategy.fedadam(learning_rat=1), "no setting 'learning_rat'; did you mean \"learning_rate\""),
        (lambda: strategy.krum(byzantine=1, optimiser=None), 'did you mean "optimizer"'),
        (lambda: strategy.fedbuff(concurrency=20, evaluate_fraction=1.0), "evaluate_fraction is what makes fedbuff"),
        (lambda: strategy.moments(evaluate_fraction=1.0), "evaluate_fraction is what makes moments"),
        (lambda: strategy.fedxgb_cyclic(fraction=0.5), "fraction is what makes fedxgb_cyclic"),
        (lambda: strategy.named("fedxgb_cyclic", {"min_nodes": 2}), "no setting 'min_nodes', unlike fedavg"),
    ],
)
def test_the_nearest_is_one_of_the_strategys_own_too(make, message):
    with pytest.raises(StrategyError, match=message):
        make()


def test_what_is_missing_or_has_no_name_is_for_python_to_say():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'mu'"):
        strategy.fedprox()
    with pytest.raises(TypeError, match="takes 0 positional arguments"):
        strategy.fedavg(0.5)


def test_parts_that_a_named_strategy_leaves_open_can_be_given():
    assert strategy.fedadam(select=strategy.fixed(4)).select.name == "fixed(4)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: fedprox(mu=0.1, select=fixed(3), fraction=0.5),
        lambda: fedprox(mu=0.1, select=fixed(3), min_nodes=7),
        lambda: fedprox(mu=0.1, evaluate=fixed(3), evaluate_fraction=0.5),
    ],
)
def test_a_part_that_is_given_twice_is_refused(make):
    with pytest.raises(StrategyError, match="which is given as well: leave one of them out"):
        make()
