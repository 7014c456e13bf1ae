"""Aggregation: many updates become one record, the same bits in any order, batching and engine."""

from umbel.aggregation._aggregator import Aggregator, aggregate, total, weighted_mean
from umbel.aggregation._fold import Fold
from umbel.aggregation._layout import flat
from umbel.aggregation._update import Update, by_examples, canonical, uniform

__all__ = [
    "Aggregator",
    "Fold",
    "Update",
    "aggregate",
    "by_examples",
    "canonical",
    "flat",
    "total",
    "uniform",
    "weighted_mean",
]
