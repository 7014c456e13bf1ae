"""Means of metrics: each weighted by the examples that stand beside it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import UpdateRejected
from umbel.records import MetricsRecord
from umbel.rounds._metrics import MetricMeans, check_weights


def means(*nodes, prefix=""):
    total = MetricMeans()
    total.add_all({name: MetricsRecord(record) for name, record in node.items()} for node in nodes)
    return total.result(prefix)


def test_a_mean_is_weighted_by_examples():
    nodes = [{"metrics": {"num-examples": 1, "loss": 2.0}}, {"metrics": {"num-examples": 3, "loss": 6.0}}]
    assert means(*nodes, prefix="train.") == {"train.num-examples": 4, "train.loss": 5.0}


def test_each_record_has_its_own_weight():
    nodes = [
        {"metrics": {"num-examples": 1, "loss": 2.0}, "test": {"num-examples": 9, "auc": 0.5}},
        {"metrics": {"num-examples": 3, "loss": 6.0}, "test": {"num-examples": 1, "auc": 1.0}},
    ]
    assert means(*nodes) == {"num-examples": 4, "test.num-examples": 10, "loss": 5.0, "test.auc": 0.55}


def test_without_examples_every_node_counts_the_same():
    assert means({"metrics": {"loss": 1}}, {"metrics": {"loss": 2}}) == {"loss": 1.5}


def test_a_metric_that_few_nodes_report_is_their_mean():
    nodes = [{"metrics": {"num-examples": 5, "loss": 2.0}}, {"metrics": {"num-examples": 3, "loss": 6.0, "f1": 0.5}}]
    assert means(*nodes)["f1"] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_left_out_with_its_weight(value):
    nodes = [
        {"metrics": {"num-examples": 100, "auc": value, "curve": [1.0, value]}},
        {"metrics": {"num-examples": 3, "auc": 0.5, "curve": [0.5, 1.0]}},
    ]
    assert means(*nodes) == {"num-examples": 103, "auc": 0.5, "curve": [0.5, 1.0]}
    assert means(nodes[0]) == {"num-examples": 100}


def test_lists_are_averaged_element_by_element():
    nodes = [{"metrics": {"num-examples": 1, "c": [1, 2]}}, {"metrics": {"num-examples": 3, "c": [5, 6]}}]
    assert means(*nodes)["c"] == [4.0, 5.0]
    assert means({"metrics": {"c": []}})["c"] == []


@pytest.mark.parametrize("other", [[1.0], [1.0, 2.0, 3.0], [], 1.0])
def test_lists_of_other_lengths_have_no_mean(other):
    nodes = [{"metrics": {"c": [1.0, 2.0]}}, {"metrics": {"c": other}}, {"metrics": {"c": [1.0, 2.0]}}]
    assert means(*nodes) == {}
    assert means(*reversed(nodes)) == {}


def test_a_weight_of_zero_adds_nothing():
    zero, three = {"metrics": {"num-examples": 0, "loss": 9.0}}, {"metrics": {"num-examples": 3, "loss": 1.0}}
    assert means(zero, three) == {"num-examples": 3, "loss": 1.0}
    assert means(zero) == {"num-examples": 0}


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6)), min_size=1, max_size=20),
    st.integers(0, 20),
)
def test_how_nodes_are_batched_changes_nothing(values, cut):
    nodes = [{"metrics": MetricsRecord({"num-examples": weight, "loss": loss})} for weight, loss in values]
    whole, parts = MetricMeans(), MetricMeans()
    whole.add_all(nodes)
    parts.add_all(nodes[:cut])
    parts.add_all(nodes[cut:])
    assert whole.result("") == parts.result("")


@pytest.mark.parametrize("weight", [-1, -0.5, math.nan, math.inf, [1, 2]])
def test_what_is_no_weight_is_refused(weight):
    with pytest.raises(UpdateRejected, match=r"number of examples.*metrics_records\.test"):
        check_weights({"metrics": MetricsRecord(), "test": MetricsRecord({"num-examples": weight})})


COLLIDING = {"a": {"b.c": 1.0}, "a.b": {"c": 3.0}}


@pytest.mark.parametrize(
    "records",
    [COLLIDING, {"metrics": {"a.b": 1.0}, "a": {"b": 2.0}}, {"a": {"b.num-examples": 1}, "a.b": {"num-examples": 1}}],
)
def test_two_metrics_of_one_name_are_refused(records):
    with pytest.raises(UpdateRejected, match=r"two that are called 'a\.b"):
        check_weights({name: MetricsRecord(record) for name, record in records.items()})


def test_a_name_from_different_records_of_two_nodes_has_no_mean():
    nodes = [{name: record} | {"metrics": {"loss": 1.0}} for name, record in COLLIDING.items()]
    assert means(*nodes) == {"loss": 1.0}
