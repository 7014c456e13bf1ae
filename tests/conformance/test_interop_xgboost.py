"""Federated trees with the real XGBoost."""

import json
from functools import partial

import numpy as np
import pytest

import umbel
from umbel import strategy as named
from umbel.aggregation import Update, aggregate, bagged_trees, last_trees
from umbel.app import ClientApp
from umbel.errors import AggregationError, AppError, RecordError, RoundFailed, StrategyError, UpdateRejected
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

xgboost = pytest.importorskip("xgboost")
from umbel.interop.xgboost import first, grow, to_booster, to_record  # noqa: E402 - only if it is there

NODES = 4
RNG = np.random.default_rng(7)
X = RNG.standard_normal((1200, 5))
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] + X[:, 2] > 0)
BINARY = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "base_score": 0.5, "nthread": 1}
MANY = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "eta": 0.3, "base_score": 0.5, "nthread": 1}


def rows(node, y):
    part = slice(node, 1000, NODES)
    return xgboost.DMatrix(X[part], label=y[part])


def app(params, y, *, whole=False, bad=lambda record: record):
    made = ClientApp()

    @made.train()
    def train(message, context):
        model = message.content.parameters_records["model"]
        rounds = message.content.configs_records["config"]["local-rounds"]
        node = context.node_config["partition-id"]
        grown = grow(params, rows(node, y), model, rounds=rounds, whole=whole)
        record = bad(grown) if node == 1 else grown
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": 250})}))

    return made


def accuracy(model, y, binary):
    found = to_booster(model).predict(xgboost.DMatrix(X[1000:]))
    return float(np.mean((found > 0.5 if binary else found.argmax(axis=1)) == y[1000:]))


def document(record):
    return json.loads(bytes(record["trees"].data))


def ensemble(record):
    return document(record)["learner"]["gradient_booster"]["model"]


@pytest.mark.parametrize(("params", "y", "binary"), [(BINARY, CLASSES > 0, True), (MANY, CLASSES, False)])
def test_bagging_learns_what_no_node_knows(params, y, binary):
    history = umbel.simulate(
        app({**params, "eta": 0.3 / NODES}, y),
        named.fedxgb_bagging(local_rounds=2, evaluate_fraction=0),
        first({**params, "eta": 0.3 / NODES}, 5),
        nodes=NODES,
        rounds=10,
    )
    assert accuracy(history.model, y, binary) > 0.93
    model = ensemble(history.model)
    assert len(model["trees"]) == 10 * NODES * 2 * (1 if binary else 3)
    assert [tree["id"] for tree in model["trees"]] == list(range(len(model["trees"])))


@pytest.mark.parametrize(("params", "y", "binary"), [(BINARY, CLASSES > 0, True), (MANY, CLASSES, False)])
def test_cyclic_passes_the_model_from_node_to_node(params, y, binary):
    history = umbel.simulate(
        app(params, y, whole=True),
        named.fedxgb_cyclic(local_rounds=2, evaluate_fraction=0),
        first(params, 5),
        nodes=NODES,
        rounds=12,
    )
    assert accuracy(history.model, y, binary) > 0.9
    assert [report.cohort for report in history.rounds] == [1] * 12
    assert [report.arrivals[0].node for report in history.rounds] == [f"node-{i % NODES}" for i in range(12)]
    # It is the model that XGBoost makes when it is given one node's rows after the other's.
    booster = to_booster(first(params, 5))
    for step in range(12):
        booster = xgboost.train(params, rows(step % NODES, y), 2, xgb_model=booster)
    probe = xgboost.DMatrix(X[1000:])
    assert np.array_equal(to_booster(history.model).predict(probe), booster.predict(probe))


@pytest.mark.parametrize(("params", "y"), [(BINARY, CLASSES > 0), (MANY, CLASSES)])
def test_a_bag_predicts_the_sum_of_its_trees(params, y):
    begin = first(params, 5)
    updates = [Update(f"n{i}", 1.0, grow(params, rows(i, y), begin, rounds=2)) for i in range(NODES)]
    probe = xgboost.DMatrix(X[1000:])

    def margin(record):
        return to_booster(record).predict(probe, output_margin=True)

    bag = aggregate(bagged_trees(), begin, updates)
    empty = margin(begin)
    expected = empty + sum(margin(update.record) - empty for update in updates)
    np.testing.assert_allclose(margin(bag), expected, rtol=1e-5, atol=1e-5)
    again = aggregate(bagged_trees(), bag, [Update("a", 1.0, grow(params, rows(0, y), bag))])
    assert to_booster(again).num_boosted_rounds() == 2 * NODES + 1
    assert aggregate(bagged_trees(), begin, reversed(updates)) == bag


def test_one_seed_is_one_digest_and_a_run_goes_on(tmp_path):
    def run(rounds, **options):
        strategy = named.fedxgb_bagging(evaluate_fraction=0)
        return umbel.simulate(
            app(BINARY, CLASSES > 0), strategy, first(BINARY, 5), nodes=NODES, rounds=rounds, seed=1, **options
        )

    expected = run(5)
    run(2, checkpoint=tmp_path / "run")
    assert run(5, checkpoint=tmp_path / "run", resume=True).digest == expected.digest


def opaque(data):
    return ParametersRecord.from_numpy({"trees": np.frombuffer(data, np.uint8)})


def fresh(count):
    return grow(BINARY, rows(1, CLASSES > 0), first(BINARY, 5), rounds=count)


def other(**params):
    params = {**BINARY, **params}
    return grow(params, rows(1, CLASSES > 0), first(params, 5))


def changed(**changes):
    """A reply whose first tree, or whole ensemble, is changed."""

    def bad(record):
        whole = document(record)
        model = whole["learner"]["gradient_booster"]["model"]
        for name, value in changes.items():
            if name in model["trees"][0]:
                model["trees"][0][name] = value(model["trees"][0][name])
            elif name in model:
                model[name] = value(model[name])
            else:
                whole["learner"]["learner_model_param"][name] = value(None)
        return opaque(json.dumps(whole).encode())

    return bad


HOSTILE = {
    "a cycle": (changed(left_children=lambda old: [0, *old[1:]]), "no tree"),
    "two parents": (changed(right_children=lambda old: [1, *old[1:]]), "no tree"),
    "a child outside": (changed(left_children=lambda old: [9999, *old[1:]]), "no tree"),
    "half a leaf": (changed(left_children=lambda old: [-1, *old[1:]]), "no tree"),
    "a feature outside": (changed(split_indices=lambda old: [5, *old[1:]]), "a feature that is none of 5"),
    "a short array": (changed(base_weights=lambda old: old[1:]), "different lengths"),
    "not a number": (changed(split_conditions=lambda old: ["x", *old[1:]]), "finite numbers"),
    "beyond numbers": (changed(base_weights=lambda old: [1e999, *old[1:]]), "in XGBoost's JSON|finite numbers"),
    "a float as place": (changed(left_children=lambda old: [1.0, *old[1:]]), "whole numbers"),
    "iterations": (changed(iteration_indptr=lambda old: [0, 7]), "do not add up"),
    "classes": (changed(tree_info=lambda old: [3 for _ in old]), "a class that there is not"),
    "more classes": (changed(tree_info=lambda old: [*old, 0]), "classes of"),
    "categories": (changed(categories=lambda old: [1]), "by category"),
    "another score": (changed(base_score=lambda old: "9E-1"), "of the kind"),
    "other features": (changed(num_feature=lambda old: "50"), "of the kind"),
    "no JSON": (lambda r: ParametersRecord.from_numpy({"trees": np.zeros(9, np.uint8)}), "in XGBoost's JSON"),
    "nesting": (
        lambda r: ParametersRecord.from_numpy({"trees": np.full(10**6, ord("["), np.uint8)}),
        "in XGBoost's JSON",
    ),
    "a list": (lambda r: ParametersRecord.from_numpy({"trees": np.frombuffer(b"[1]", np.uint8)}), "in XGBoost's JSON"),
    "nothing": (lambda r: ParametersRecord.from_numpy({"trees": np.zeros(0, np.uint8)}), "in XGBoost's JSON"),
    "another dtype": (lambda r: ParametersRecord.from_numpy({"trees": np.zeros(3)}), "expected dtype uint8"),
    "another rank": (lambda r: ParametersRecord.from_numpy({"trees": np.zeros((3, 3), np.uint8)}), "expected shape"),
    "too many trees": (lambda r: fresh(3), "1 to 2 new trees, got 3: boost as often as the config says"),
    "no tree": (lambda r: first(BINARY, 5), "1 to 2 new trees, got 0"),
    "another objective": (lambda r: other(objective="reg:squarederror"), "of the kind"),
    "another weight of classes": (lambda r: other(scale_pos_weight=2), "of the kind"),
    "parallel trees": (lambda r: other(num_parallel_tree=2), "of the kind"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_trees_that_a_node_made_up_cost_that_node_its_update(name):
    bad, reason = HOSTILE[name]
    strategy = named.fedxgb_bagging(local_rounds=2, evaluate_fraction=0)
    history = umbel.simulate(app(BINARY, CLASSES > 0, bad=bad), strategy, first(BINARY, 5), nodes=NODES, rounds=1)
    assert history.rounds[0].accepted == NODES - 1
    ((node, why),) = history.rounds[0].refused
    assert node == "node-1"
    assert pytest.importorskip("re").search(reason, why), why


@pytest.mark.parametrize("params", [{"eta": 5.0}, {"max_depth": 9}])
def test_how_trees_were_grown_is_not_seen(params):
    strategy = named.fedxgb_bagging(evaluate_fraction=0)
    history = umbel.simulate(
        app(BINARY, CLASSES > 0, bad=lambda record: other(**params)), strategy, first(BINARY, 5), nodes=NODES, rounds=1
    )
    assert history.rounds[0].accepted == NODES


@pytest.mark.parametrize(("params", "y"), [(BINARY, CLASSES > 0), ({**MANY, "num_parallel_tree": 2}, CLASSES)])
def test_a_whole_ensemble_is_no_reply_to_bagging(params, y):
    def run(rounds, **options):
        strategy = named.fedxgb_bagging(evaluate_fraction=0, **options)
        return umbel.simulate(app(params, y, whole=True), strategy, first(params, 5), nodes=NODES, rounds=rounds)

    each = 1 if params is BINARY else 6
    assert len(ensemble(run(1).model)["trees"]) == NODES * each  # nothing was sent, so it is all new
    with pytest.raises(RoundFailed, match=rf"1 to {each} new trees, got {(NODES + 1) * each}: .* the new trees alone"):
        run(2)
    assert len(ensemble(run(2, most=100).model)["trees"]) == NODES * each * (NODES + 2)


def test_the_model_that_goes_round_keeps_its_trees():
    def forget(record):
        return grow(BINARY, rows(1, CLASSES > 0), first(BINARY, 5))

    strategy = named.fedxgb_cyclic(evaluate_fraction=0)
    with pytest.raises(RoundFailed, match="begins with the 1 trees that were sent"):
        umbel.simulate(
            app(BINARY, CLASSES > 0, whole=True, bad=forget), strategy, first(BINARY, 5), nodes=NODES, rounds=4
        )


@pytest.mark.parametrize("column", ["left_children", "split_indices", "parents"])
def test_a_tree_that_was_sent_comes_back_as_it_was(column):
    """To Python, 1 is 1.0 and True; XGBoost would not read it."""
    model = grow(BINARY, rows(0, CLASSES > 0), first(BINARY, 5), rounds=2, whole=True)
    longer = json.loads(bytes(grow(BINARY, rows(1, CLASSES > 0), model, whole=True)["trees"].data))
    tree = longer["learner"]["gradient_booster"]["model"]["trees"][0]
    rule = last_trees()
    for kind in (int, float):
        tree[column] = [kind(value) for value in tree[column]]
        sent = ParametersRecord.from_numpy({"trees": np.frombuffer(json.dumps(longer).encode(), np.uint8)})
        measure = partial(rule.measures["trees"], Update("a", 1.0, sent), model)
        if kind is int:
            assert measure() == 1
        else:
            with pytest.raises(UpdateRejected, match="something else than whole numbers"):
                measure()


def test_what_cannot_be_is_refused():
    begin = first(BINARY, 5)
    with pytest.raises(AppError, match=r"say base_score=0\.5"):
        first({"objective": "binary:logistic"}, 5)
    with pytest.raises(AppError, match="base_score"):
        grow({}, rows(0, CLASSES > 0), begin)
    with pytest.raises(RecordError, match="that XGBoost can read"):
        to_booster(ParametersRecord.from_numpy({"trees": np.zeros(4, np.uint8)}))
    with pytest.raises(StrategyError, match="at least 1, got 0"):
        bagged_trees(most=0)
    with pytest.raises(StrategyError, match="a number of rounds of boosting, at least 1, got 0"):
        named.fedxgb_cyclic(local_rounds=0)
    with pytest.raises(AggregationError, match="begin the run with first"):
        aggregate(bagged_trees(), ParametersRecord.from_numpy({"w": np.zeros(2)}), [Update("a", 1.0, begin)])
    with pytest.raises(AggregationError, match="the one update of a round"):
        aggregate(last_trees(), begin, [Update("a", 1.0, begin), Update("b", 1.0, begin)])
    with pytest.raises(StrategyError, match="aggregator is what makes fedxgb_bagging"):
        named.fedxgb_bagging(aggregator=last_trees())
    assert to_record(to_booster(begin)) == begin


@pytest.mark.parametrize(
    "call", [lambda wrong: first(wrong, 5), lambda wrong: grow(wrong, rows(0, CLASSES > 0), first(BINARY, 5))]
)
def test_what_xgboost_refuses_is_its_reason_alone(call):
    with pytest.raises(AppError, match="got: Unknown objective function") as refused:
        call(BINARY | {"objective": "binary:logistics"})
    assert "Stack trace" not in str(refused.value)
    assert ".cc" not in str(refused.value)
    assert "\n" not in str(refused.value)
