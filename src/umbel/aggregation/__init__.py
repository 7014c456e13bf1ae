"""Aggregation: many updates become one record, the same bits in any order, batching and engine.

The arithmetic is elementwise, in canonical order (by node name): ``acc = acc + w*x`` in two separately rounded IEEE
operations, then one division by the sum of the weights, which is added up in float64. Every array keeps its dtype:

- floats of up to 32 bits (float32, float16, bfloat16, float8 and smaller) are accumulated in float32, and narrow ones
  rounded back to nearest, ties to even;
- float64, complex64 and complex128 are accumulated in their own precision;
- integers are accumulated in float64 and rounded to nearest, ties to even; those of 64 bits as differences from the
  first update, which are exact up to 2**53;
- a bool is true where more than half of the weight is: at a tie it is false.

A result that is not finite, or outside its dtype, is an ``AggregationError``, never a number.
"""

from umbel.aggregation._aggregator import Aggregator, aggregate, total, weighted_mean
from umbel.aggregation._distance import squared_distance
from umbel.aggregation._fold import Fold, Measuring, Proving, Screening
from umbel.aggregation._layout import flat
from umbel.aggregation._robust import (
    bulyan,
    centred_clipping,
    clipped_mean,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from umbel.aggregation._trees import bagged_trees, last_trees
from umbel.aggregation._update import Update, by_examples, by_metric, canonical, uniform

__all__ = [
    "Aggregator",
    "Fold",
    "Measuring",
    "Proving",
    "Screening",
    "Update",
    "aggregate",
    "bagged_trees",
    "bulyan",
    "by_examples",
    "by_metric",
    "canonical",
    "centred_clipping",
    "clipped_mean",
    "flat",
    "geometric_median",
    "krum",
    "last_trees",
    "median",
    "multi_krum",
    "squared_distance",
    "total",
    "trimmed_mean",
    "uniform",
    "weighted_mean",
]
