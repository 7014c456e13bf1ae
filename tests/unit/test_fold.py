"""Folds: order, weights, layouts and life cycle; and the small parts around them."""

import dataclasses

import numpy as np
import pytest

from umbel.aggregation import Update, aggregate, by_examples, canonical, flat, total, uniform, weighted_mean
from umbel.errors import AggregationError, Mismatch, RecordError, UpdateRejected
from umbel.records import Array, MetricsRecord, ParametersRecord, array_from_numpy

MEAN = weighted_mean()
SUM = total()


def record(dtype, *values):
    return ParametersRecord.from_numpy(
        {"w": np.array(values, np.float64 if "complex" not in dtype else None).astype(dtype)}
    )


def cohort(records, weights=None):
    weights = weights or [1.0] * len(records)
    return [Update(f"node-{i}", weight, r) for i, (r, weight) in enumerate(zip(records, weights, strict=True))]


def combine(aggregator, records, weights=None):
    return aggregate(aggregator, records[0], cohort(records, weights))["w"].numpy()


class TestFold:
    def test_says_that_batches_may_be_released(self):
        assert MEAN.reduce.streaming
        assert SUM.reduce.streaming

    def test_is_a_value(self):
        assert weighted_mean() == weighted_mean()
        assert weighted_mean(uniform) != weighted_mean()
        with pytest.raises(dataclasses.FrozenInstanceError):
            MEAN.reduce.finite = False

    @pytest.mark.parametrize("second", ["node-0", "node-00", "a"])
    def test_refuses_updates_out_of_order_or_twice(self, second):
        one, fold = record("float32", 1), MEAN.reduce
        acc = fold.add(fold.start(one), [Update("node-0", 1, one)])
        updates = [Update(second, 1, one)]
        if second == "node-00":
            fold.add(acc, updates)
        else:
            with pytest.raises(AggregationError, match=r"ascending order of node names.*canonical"):
                fold.add(acc, updates)

    @pytest.mark.parametrize("weight", [-1, -1e-300, np.nan, np.inf, True, 10**400])
    def test_refuses_what_is_no_weight(self, weight):
        with pytest.raises(AggregationError, match="expected a weight of 0 or more"):
            combine(MEAN, [record("float32", 1)], [weight])

    @pytest.mark.parametrize("weights", [[], [0.0], [0, 0]])
    def test_refuses_a_cohort_without_weight(self, weights):
        one = record("float32", 1)
        with pytest.raises(AggregationError, match="at least one update with a weight above 0"):
            aggregate(MEAN, one, cohort([one] * len(weights), weights))

    def test_refuses_weights_whose_sum_overflows(self):
        with pytest.raises(AggregationError, match="finite sum of weights"):
            combine(MEAN, [record("float32", 1)] * 2, [1.7e308, 1.7e308])

    @pytest.mark.parametrize(
        ("other", "came"),
        [
            ({"v": np.zeros(2, np.float32)}, "got none"),
            ({"w": np.zeros(2, np.float64)}, r"got float64 \[2\]"),
            ({"w": np.zeros((2, 1), np.float32)}, r"got float32 \[2, 1\]"),
            ({"w": np.zeros(1, np.float32)}, r"got float32 \[1\]"),
        ],
    )
    def test_refuses_an_update_of_another_layout(self, other, came):
        template = record("float32", 1, 2)
        updates = cohort([template, ParametersRecord.from_numpy(other)])
        with pytest.raises(AggregationError, match=rf"expected float32 \[2\] from node 'node-1', {came}.*array 'w'"):
            aggregate(MEAN, template, updates)

    def test_refuses_a_payload_that_lies(self):
        template = record("float32", 1, 2)
        lie = ParametersRecord({"w": Array("float32", [2], "raw", b"123")})
        with pytest.raises(AggregationError, match=r"node 'node-1'.*ends after 3.*array 'w'"):
            aggregate(MEAN, template, cohort([template, lie]))

    def test_refuses_a_template_of_unknown_dtype(self):
        with pytest.raises(RecordError, match="float99"):
            MEAN.reduce.start(ParametersRecord({"w": Array("float99", [1], "raw", b"1")}))

    def test_does_not_go_on_after_finish_or_an_error(self):
        one, fold = record("float32", 1), MEAN.reduce
        acc = fold.start(one)
        fold.finish(acc, cohort([one]))
        for verb in (fold.add, fold.finish):
            with pytest.raises(AggregationError, match="begin another with start"):
                verb(acc, [Update("z", 1, one)])
        acc = fold.start(one)
        with pytest.raises(AggregationError, match="got none"):
            fold.add(acc, [Update("a", 1, one), Update("b", 1, ParametersRecord())])
        with pytest.raises(AggregationError, match="begin another with start"):
            fold.finish(acc)

    def test_changes_no_input(self):
        records = [record("float32", 1, 2), record("float32", 3, 4)]
        before = [bytes(r["w"].data) for r in records]
        fold = MEAN.reduce
        acc = fold.add(fold.start(records[0]), cohort(records)[:1])
        fold.finish(acc, cohort(records)[1:])
        assert [bytes(r["w"].data) for r in records] == before

    def test_does_not_look_at_the_values_of_the_template(self):
        template = ParametersRecord({"w": Array("float32", [2], "raw", b"")})
        assert aggregate(MEAN, template, cohort([record("float32", 1, 2)]))["w"].numpy().tolist() == [1, 2]


class TestWeights:
    def test_by_examples(self):
        assert by_examples({"metrics": MetricsRecord({"num-examples": 60})}) == 60
        assert by_examples({"metrics": MetricsRecord({"num-examples": 2.5})}) == 2.5

    @pytest.mark.parametrize(
        ("metrics", "came"),
        [
            ({}, "nothing"),
            ({"other": MetricsRecord({"num-examples": 1})}, "nothing"),
            ({"metrics": MetricsRecord({"examples": 1})}, "nothing"),
            ({"metrics": MetricsRecord({"num-examples": [1, 2]})}, "a list"),
        ],
    )
    def test_by_examples_says_what_is_missing(self, metrics, came):
        with pytest.raises(UpdateRejected, match=f"expected the number of examples.*got {came}.*'num-examples'"):
            by_examples(metrics)

    def test_uniform(self):
        assert uniform({}) == uniform({"metrics": MetricsRecord({"num-examples": 60})}) == 1.0

    def test_canonical_is_by_node_name(self):
        one = record("float32", 1)
        updates = [Update(name, 1, one) for name in ("b", "a10", "a2", "ä", "Z")]
        assert [update.node for update in canonical(updates)] == ["Z", "a10", "a2", "b", "ä"]

    def test_an_update_has_no_metrics_by_default(self):
        assert dict(Update("a", 1, record("float32", 1)).metrics) == {}


class TestFlat:
    def test_is_a_view_where_possible(self):
        array = record("float32", 1, 2)["w"]
        assert np.shares_memory(flat(array), array.numpy(copy=False))
        assert not flat(array).flags.writeable

    @pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
    @pytest.mark.parametrize("stype", ["raw", "numpy.ndarray"])
    def test_is_in_row_major_order(self, shape, stype):
        values = np.arange(np.prod(shape, dtype=int), dtype=">i2").reshape(shape, order="F")
        elements = flat(array_from_numpy(np.asfortranarray(values), stype))
        assert elements.tolist() == values.ravel().tolist()
        assert elements.dtype == np.int16

    def test_refuses_shapes_whose_product_only_seems_right(self):
        with pytest.raises(RecordError):
            flat(Array("int8", [-2, -3], "raw", b"123456"))

    def test_refuses_a_payload_that_lies(self):
        with pytest.raises(Mismatch):
            flat(Array("int8", [2], "numpy.ndarray", array_from_numpy(np.zeros(3, np.int8)).data))
