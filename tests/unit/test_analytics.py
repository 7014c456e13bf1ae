"""Analytics: the federation's answer is that of all rows in one place."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import drift, queries
from umbel import strategy as named
from umbel.aggregation import total
from umbel.app import ClientApp
from umbel.errors import RoundFailed, StrategyError
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds import NodeLost, UpdateRefused
from umbel.strategy import buffered, strategy

RNG = np.random.default_rng(4)
ROWS = RNG.gamma(2.0, size=(601, 3)) * [1.0, 10.0, 100.0]
ROWS[RNG.random(ROWS.shape) < 0.05] = np.nan
CUTS = [0, 1, 60, 90, 300, 480, 601]  # one site has a single row
SITES = [ROWS[start:end] for start, end in pairwise(CUTS)]


def app(answer):
    made = ClientApp()

    @made.query()
    def query(message, context):
        model = message.content.parameters_records["model"].to_numpy()
        config = message.content.configs_records["config"]
        found = answer(SITES[context.node_config["partition-id"]], model, config)
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(found)}))

    return made


def run(whole, answer, initial, rounds=1):
    return umbel.simulate(app(answer), whole, initial, nodes=len(SITES), rounds=rounds)


def column(feature):
    return ROWS[~np.isnan(ROWS[:, feature]), feature]


def test_moments_and_what_follows_from_them():
    history = run(named.moments(), lambda rows, model, config: queries.moments(rows), queries.no_moments(3))
    found = history.model.to_numpy()
    assert found["count"].tolist() == (~np.isnan(ROWS)).sum(axis=0).tolist()
    np.testing.assert_allclose(queries.mean(found), np.nanmean(ROWS, axis=0), rtol=1e-12)
    np.testing.assert_allclose(queries.deviation(found), np.nanstd(ROWS, axis=0), rtol=1e-12)
    whole = queries.standardised(ROWS, found)
    np.testing.assert_allclose(np.nanmean(whole, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(whole, axis=0), 1, rtol=1e-12)
    assert np.array_equal(np.isnan(whole), np.isnan(ROWS))
    assert next(iter(history.rounds[0].seconds)) == "query"


def test_a_feature_that_is_constant_or_missing():
    found = queries.moments([[5.0, np.nan], [5.0, np.nan]])
    assert queries.standardised([[5.0, 1.0]], found)[0][0] == 0.0
    assert np.isnan(queries.mean(found)[1])


def test_histogram():
    def answer(rows, model, config):
        return queries.histogram(rows, config["low"], config["high"], config["bins"])

    found = run(named.histogram(low=0, high=50, bins=20), answer, queries.no_counts(3, 20)).model.to_numpy()["counts"]
    edges = np.linspace(0, 50, 21)
    for feature, counts in enumerate(found):
        values = column(feature)
        expected = np.histogram(values[values < 50], edges)[0]
        assert counts[1:-1].tolist() == expected.tolist()
        assert counts[0] == 0
        assert counts[-1] == (values >= 50).sum()
        assert counts.sum() == values.size


@given(st.lists(st.floats(-3, 3), max_size=30), st.integers(1, 7))
def test_a_histogram_counts_every_value_once(values, bins):
    rows = np.array(values).reshape(-1, 1)
    counts = queries.histogram(rows, -1.0, 1.0, bins)["counts"][0]
    assert counts.sum() == len(values)
    assert counts[0] == sum(value < -1 for value in values)
    assert counts[-1] == sum(value >= 1 for value in values)


def test_quantiles():
    levels = [0.05, 0.5, 0.9, 1.0]

    def answer(rows, model, config):
        return queries.below(rows, queries.middle(model))

    first = queries.brackets([-1.0, -1.0, -1.0], [2000.0] * 3, len(levels))
    found = run(named.quantiles(levels=levels), answer, first, rounds=60).model.to_numpy()
    for feature in range(3):
        expected = np.quantile(column(feature), levels, method="inverted_cdf")
        assert (found["low"][feature] <= expected).all()
        np.testing.assert_allclose(found["high"][feature], expected, rtol=1e-12)
    few = run(named.quantiles(levels=levels), answer, first, rounds=5).model.to_numpy()
    assert few["high"] - few["low"] == pytest.approx(np.full((3, 4), 2001 / 2**5))


def test_a_quantile_outside_its_bracket_is_named():
    def ask(low, high, levels=(0.5,)):
        first = queries.brackets(low, high, len(levels))
        return run(
            named.quantiles(levels=levels),
            lambda rows, model, config: queries.below(rows, queries.middle(model)),
            first,
        )

    least, most = np.nanmin(ROWS, axis=0), np.nanmax(ROWS, axis=0)
    ask(least, most, levels=(1e-6, 1.0))  # the least value is where a bracket begins, the greatest where one ends
    with pytest.raises(StrategyError, match=r"the quantile 0.5 of feature 1 lies above 5, outside its bracket"):
        ask([-1, -1, -1], [2000, 5, 5])
    with pytest.raises(StrategyError, match=r"the quantile 0.1 of feature 2 lies below 300, outside its bracket"):
        ask([-1, -1, 300], [2000] * 3, levels=(1.0, 0.1))
    with pytest.raises(StrategyError, match=r"the quantile 1.0 of feature 0 lies above"):
        ask(least, most * [0.99, 1, 1], levels=(1.0,))


def test_a_feature_without_values_is_in_any_bracket():
    def answer(rows, model, config):
        return queries.below(rows * [1, np.nan, 1], queries.middle(model))

    first = queries.brackets([-1, -1, -1], [2000] * 3, 1)
    assert run(named.quantiles(levels=0.5), answer, first).rounds[0].accepted == len(SITES)


def test_brackets_by_hand_have_no_ends():
    first = {name: array for name, array in queries.brackets([0.0], [1.0], 1).items() if name != "ends"}
    found = run(
        named.quantiles(levels=0.5),
        lambda rows, model, config: queries.below(rows[:, :1] + 9, queries.middle(model)),
        first,
    )
    assert found.model.to_numpy()["low"].tolist() == [[0.5]]


def plain_lloyd(rows, centroids, steps):
    for _ in range(steps):
        nearest = ((rows[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
        means = [rows[nearest == k].mean(axis=0) if (nearest == k).any() else c for k, c in enumerate(centroids)]
        centroids = np.array(means)
    return centroids


def test_kmeans_is_lloyds():
    def answer(rows, model, config):
        return queries.clusters(rows, model["centroids"])

    whole = ROWS[~np.isnan(ROWS).any(axis=1)]
    first = np.r_[whole[:4], [[1e6, 1e6, 1e6]]]  # nobody is near the last
    found = run(named.kmeans(), answer, {"centroids": first}, rounds=12).model.to_numpy()["centroids"]
    np.testing.assert_allclose(found, plain_lloyd(whole, first, 12), rtol=1e-10)
    assert found[-1].tolist() == [1e6] * 3


def test_a_site_may_refuse_and_the_others_answer():
    def answer(rows, model, config):
        if len(rows) < 2:
            raise ValueError("too few rows to answer")
        return queries.moments(rows)

    history = run(named.moments(), answer, queries.no_moments(3))
    assert "too few rows to answer" in dict(history.rounds[0].lost)["node-0"]
    assert history.model.to_numpy()["count"].sum() == (~np.isnan(ROWS[1:])).sum()


def test_answers_of_another_layout_are_refused():
    def answer(rows, model, config):
        return {"centroids": model["centroids"]}

    with pytest.raises(RoundFailed, match="missing 'sums', 'counts', unexpected 'centroids'"):
        run(named.kmeans(), answer, {"centroids": np.zeros((2, 3))})


def test_an_app_that_trains_alone_does_not_answer():
    made = ClientApp()
    made.train()(lambda message, context: message.create_reply(RecordSet()))
    with pytest.raises(RoundFailed, match="no handler for messages of type 'query'"):
        umbel.simulate(made, named.moments(), queries.no_moments(3), nodes=2, rounds=1)


def test_metrics_of_a_query_say_so():
    made = ClientApp()

    @made.query()
    def query(message, context):
        record = ParametersRecord.from_numpy(queries.no_moments(1))
        return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"rows": 3})}))

    history = umbel.simulate(made, named.moments(), queries.no_moments(1), nodes=2, rounds=1)
    assert history.rounds[0].metrics == {"query.rows": 3.0}
    assert history.rounds[0].accepted == 2


def test_what_cannot_be_is_refused():
    for make, message in (
        (lambda: named.histogram(low=1, high=0), "from a lower to a higher number"),
        (lambda: named.histogram(low=0, high=1, bins=0), "from a lower to a higher number"),
        (lambda: named.quantiles(levels=[]), "levels above 0"),
        (lambda: named.quantiles(levels=[0.0]), "levels above 0"),
        (lambda: named.named("quantiles", {"levels": ["a"]}), "a number or a list of numbers"),
        (lambda: queries.moments([1.0]), r"rows and features, got an array of shape \[1\]"),
        (lambda: queries.histogram([[1.0]], 0, 0, 3), "expected bins"),
        (lambda: queries.brackets([5, 5], [6, 1], 1), "a low not above the high of feature 1, got 5.0 and 1.0"),
        (lambda: queries.brackets([0], [np.inf], 1), "a low not above the high of feature 0"),
        (lambda: queries.brackets([0], [1, 1], 1), "a low and a high for each feature, got 1 and 2"),
        (lambda: queries.brackets([0], [1], 0.5), "a number of levels, at least 1, got 0.5"),
        (lambda: strategy(aggregator=total()), "the sum of models is no model"),
        (lambda: strategy(phase="evaluate"), "of type 'train' or 'query'"),
        (
            lambda: named.moments(policy=buffered(concurrency=3, buffer=2), aggregator=total()),
            "aggregator is what makes",
        ),
        (lambda: named.kmeans(policy=buffered(concurrency=3, buffer=2)), "have several"),
    ):
        with pytest.raises(StrategyError, match=message):
            make()
    assert named.named("quantiles", {"levels": 0.5}).describe() == named.quantiles(levels=[0.5]).describe()
    with pytest.raises(StrategyError, match=r"begins with an array 'low' \(umbel.queries.brackets\), got count"):
        run(named.quantiles(levels=[0.5]), lambda *_: {}, queries.no_moments(1))
    with pytest.raises(StrategyError, match="brackets for 2 levels"):
        run(
            named.quantiles(levels=[0.1, 0.5]),
            lambda rows, model, config: queries.below(rows, queries.middle(model)),
            queries.brackets([0.0] * 3, [1.0] * 3, 1),
        )


@pytest.mark.parametrize(
    ("whole", "initial", "message"),
    [
        (named.moments(), {"w": np.zeros(3)}, r"an array 'count' \(umbel.queries.no_moments\), got w"),
        (named.histogram(low=0, high=1), queries.no_moments(3), r"an array 'counts' \(umbel.queries.no_counts\), got"),
        (named.histogram(low=0, high=1), queries.no_counts(3, 9), r"\(features, 12\), got \[3, 11\]"),
        (named.kmeans(), {"w": np.zeros(3)}, r"an array 'centroids' \(of clusters and features\), got w"),
    ],
)
def test_a_query_that_begins_with_something_else_asks_nobody(whole, initial, message):
    events = []
    with pytest.raises(StrategyError, match=message):
        umbel.simulate(app(None), whole, initial, nodes=2, rounds=1, on_event=events.append)
    assert not any(isinstance(event, NodeLost | UpdateRefused) for event in events)


def test_ditto_keeps_a_model_of_its_own():
    centres = np.linspace(-1, 1, 4)
    made = ClientApp()

    @made.train()
    def train(message, context):
        received = message.content.parameters_records["model"].to_numpy()
        strength = message.content.configs_records["config"]["ditto-strength"]
        centre = centres[context.node_config["partition-id"]]
        kept = context.state.parameters_records.get("personal")
        own = received if kept is None else kept.to_numpy()
        for _ in range(50):
            step = drift.proximal({"w": own["w"] - centre}, own, received, strength)
            own = {"w": own["w"] - 0.1 * step["w"]}
        context.state.parameters_records["personal"] = ParametersRecord.from_numpy(own)
        trained = {"w": received["w"] - 0.5 * (received["w"] - centre)}
        metrics = MetricsRecord({"num-examples": 1, "own": float(own["w"][0])})
        return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(trained)}, {"metrics": metrics}))

    def own(strength):
        whole = named.ditto(strength=strength, evaluate_fraction=0)
        history = umbel.simulate(made, whole, {"w": np.zeros(1)}, nodes=4, rounds=20)
        return history.model["w"].numpy()[0], history.metrics["train.own"][-1]

    # With F_k(v) = (v - c_k)**2 / 2 the personal model is (c_k + strength * w) / (1 + strength), w the mean, here 0.
    assert own(0.0)[0] == pytest.approx(0, abs=1e-6)
    assert own(1.0)[1] == pytest.approx(0, abs=1e-3)
    with pytest.raises(StrategyError, match="0 or more, got -1"):
        named.ditto(strength=-1)
