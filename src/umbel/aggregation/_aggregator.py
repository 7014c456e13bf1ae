"""Aggregators: how updates are weighted, and how they become one record."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from umbel.aggregation._fold import Fold, LinearFold
from umbel.aggregation._kinds import mean_of, sum_of
from umbel.aggregation._update import Update, by_examples, canonical, uniform
from umbel.aggregation._weights import plain, plan
from umbel.records import MetricsRecord, ParametersRecord


class Aggregator(NamedTuple):
    """A named pair: ``weigh(metrics) -> weight`` of one update, and the fold that reduces all of them to one record."""

    name: str
    weigh: Callable[[Mapping[str, MetricsRecord]], float]
    reduce: Fold


def weighted_mean(
    weigh: Callable[[Mapping[str, MetricsRecord]], float] = by_examples, *, finite: bool = True
) -> Aggregator:
    """Return the weighted mean, ``sum(w*x) / sum(w)``, element by element: McMahan et al. 2017, arXiv:1602.05629.

    In canonical order, ``acc = acc + w*x`` in two separately rounded operations, then one division by the sum of the
    weights: float32 for floats of up to 32 bits, float64 for the rest. Every array keeps its dtype: narrow floats are
    rounded to nearest even, integers to nearest with ties to even, a bool is true where more than half of the weight
    is. The mean of one update is that update, bit for bit. With K updates each element is within (2K + 2) units of
    rounding (2**-24 in float32) of the mean of the magnitudes. It does not overflow on the way: weights run on a
    scale of powers of two.

    Args:
        weigh: the weight of an update, from its metrics.
        finite: refuse a result with NaN or infinite elements. False passes on those that the updates had.

    >>> from umbel.records import ParametersRecord
    >>> import numpy as np
    >>> one = ParametersRecord.from_numpy({"w": np.array([1.0, 2.0], np.float32)})
    >>> two = ParametersRecord.from_numpy({"w": np.array([5.0, 6.0], np.float32)})
    >>> updates = [Update("site-b", 3, two), Update("site-a", 1, one)]
    >>> aggregate(weighted_mean(), one, updates).to_numpy()["w"]
    array([4., 5.], dtype=float32)

    """
    return Aggregator("weighted_mean", weigh, LinearFold(mean_of, plan, finite=finite))


def total(*, finite: bool = True) -> Aggregator:
    """Return the sum, element by element, without weights: for statistics such as sums and counts.

    Sums of integers are exact; one outside its dtype is an error, and so is a bool. Floats are added as in
    ``weighted_mean``.

    Args:
        finite: refuse a result with NaN or infinite elements. False passes on those that the updates had.

    """
    return Aggregator("total", uniform, LinearFold(sum_of, plain, finite=finite))


def aggregate(aggregator: Aggregator, template: ParametersRecord, updates: Iterable[Update]) -> ParametersRecord:
    """Reduce a whole cohort, in any order, to one record like ``template``.

    Raises:
        AggregationError: as the fold does.

    """
    fold = aggregator.reduce
    return fold.finish(fold.start(template), canonical(updates))
