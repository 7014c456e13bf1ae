"""Strategies: values whose parts are named, and that refuse what makes no sense in a sentence."""

from functools import partial

import pytest

from umbel.aggregation import total, uniform, weighted_mean
from umbel.errors import StrategyError
from umbel.gate import Gate
from umbel.optimizers import momentum, replace
from umbel.records import ParametersRecord
from umbel.strategy import (
    Companion,
    buffered,
    everyone,
    fedadam,
    fedavg,
    fedbuff,
    fixed,
    krum,
    moments,
    strategy,
)


def zeros(model):
    del model
    return ParametersRecord()


def lion(cohort, x, mean, m):
    return x, m


def by_sqrt(metrics):
    return 1.0


def test_a_strategy_is_fedavg_by_default():
    whole = strategy()
    assert whole.describe() == {
        "name": "strategy",
        "select": "everyone()",
        "instruct": "as_is",
        "aggregator": "weighted_mean by by_examples",
        "optimizer": "replace()",
        "gate": repr(Gate()),
        "evaluate": "nobody",
        "statistics": "False",
        "min_updates": "1",
    }


def test_parts_go_together_freely():
    whole = strategy(
        select=fixed(4),
        aggregator=weighted_mean(uniform),
        optimizer=momentum(beta=0.5),
        gate=Gate(max_norm=2.0),
        evaluate=everyone(),
        statistics=True,
        min_updates=4,
        name="mine",
    )
    assert whole.describe() | {"gate": ""} == {
        "name": "mine",
        "select": "fixed(4)",
        "instruct": "as_is",
        "aggregator": "weighted_mean by uniform",
        "optimizer": "momentum(learning_rate=1.0, beta=0.5)",
        "gate": "",
        "evaluate": "everyone()",
        "statistics": "True",
        "min_updates": "4",
    }


def test_fedavg_passes_its_numbers_on():
    whole = fedavg(fraction=0.1, min_nodes=2, min_updates=2, evaluate_fraction=0.5, optimizer=momentum())
    assert whole.select.name == "fraction(0.1, min_nodes=2)"
    assert whole.evaluate.name == "fraction(0.5, min_nodes=1)"
    assert whole.optimizer.name == momentum().name
    assert whole.min_updates == 2
    assert fedavg().select.name == fedavg().evaluate.name == "everyone()"
    assert fedavg(evaluate_fraction=0).evaluate is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"select": 0.1}, "expected Selector, got float"),
        ({"select": everyone}, r"call it, select=everyone\(\.\.\.\)"),
        ({"optimizer": momentum}, r"call it, optimizer=momentum\(\.\.\.\)"),
        (
            {"optimizer": lion},
            r"make one of it, optimizer=elementwise\(\"lion\", lion\), or call it if it makes one - at opt",
        ),
        ({"aggregator": by_sqrt}, r"make one of it, aggregator=weighted_mean\(by_sqrt\), or call it"),
        (
            {"select": lambda count, seed: [0]},
            r"make one of it, select=Selector\(\"mine\", lambda \.\.\.\), or call it",
        ),
        ({"evaluate": by_sqrt}, r"make one of it, evaluate=Selector\(\"by_sqrt\", by_sqrt\), or call it"),
        ({"gate": by_sqrt}, r"call it, gate=by_sqrt\(\.\.\.\)"),
        (
            {"aggregator": krum(byzantine=1)},
            r"it is a whole strategy, whose part is aggregator=krum\(\.\.\.\).aggregator",
        ),
        ({"aggregator": "mean"}, "expected Aggregator, got str"),
        ({"gate": False}, "expected Gate, got bool"),
        ({"evaluate": 1.0}, "got float"),
        ({"statistics": 1}, "expected bool, got int"),
        ({"name": 5}, "expected str, got int"),
        ({"min_updates": 1.5}, "expected int, got float"),
        ({"instruct": {}}, r"function \(content, round\)"),
        ({"min_updates": 0}, "min_updates is at least 1"),
        ({"min_updates": 5, "select": fixed(4)}, "every round would fail: 5 updates are required of a cohort of 4"),
        ({"aggregator": total()}, "the sum of models is no model"),
        ({"phase": "query", "policy": buffered(concurrency=4, buffer=2)}, "a query needs a policy that waits"),
        *(
            ({"companions": [Companion(name, zeros, weighted_mean(), replace())]}, "with names of their own")
            for name in ("model", "nodes", "clock", "flight", "a.b", "")
        ),
    ],
)
def test_senseless_parts_are_refused_in_a_sentence(parts, message):
    with pytest.raises(StrategyError, match=message):
        strategy(**parts)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"fraction": 0}, "above 0 and at most 1"),
        ({"fraction": 1.5}, "above 0 and at most 1"),
        ({"evaluate_fraction": -1}, "from 0 to 1"),
        ({"evaluate_fraction": 2}, "above 0 and at most 1"),
        ({"min_nodes": 0}, "whole number of nodes"),
        ({"min_updates": 0}, "at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    with pytest.raises(StrategyError, match=message):
        fedavg(**numbers)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (partial(fedbuff, concurrency=4, buffer=2), {"evaluate_fraction": 1.0}),
        (moments, {"evaluate_fraction": 0.5}),
        (fedadam, {"optimizer": replace()}),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(make, option):
    with pytest.raises(StrategyError, match="is what makes"):
        make(**option)


def test_a_strategy_is_frozen():
    with pytest.raises(AttributeError):
        fedavg().optimizer = replace()


def test_parts_without_a_name_of_their_own_are_described():
    class Weigh:
        def __call__(self, metrics):
            return 1.0

    def sent(share, content, number, *, key):
        return content

    whole = strategy(instruct=partial(sent, 0.5, key="a"), aggregator=weighted_mean(Weigh()))
    assert whole.describe()["instruct"].endswith("sent(0.5, key='a')")
    assert whole.describe()["aggregator"].endswith("Weigh")
