"""Aggregators: how updates are weighted, and how they become one record."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from umbel.aggregation._fold import Fold
from umbel.aggregation._kinds import mean_of, sum_of
from umbel.aggregation._linear import LinearFold
from umbel.aggregation._update import Update, by_examples, canonical, uniform
from umbel.aggregation._weights import plain, plan
from umbel.records import MetricsRecord, ParametersRecord


class Aggregator(NamedTuple):
    """A named pair: ``weigh(metrics) -> weight`` of one update, and the fold that reduces all of them to one record.

    ``measures`` are functions ``(update, model) -> number`` of accepted updates. Their sums over a round go to the
    server optimizer by name, for algorithms that need more than a mean. ``least`` is how many updates the rule takes,
    ``most`` how many at most, and ``useful_from`` from how many on it does more than to pass them on or average them.
    Arrays named in ``opaque`` grow: updates of them, and the result, have another first size than the model.
    """

    name: str
    weigh: Callable[[Mapping[str, MetricsRecord]], float]
    reduce: Fold
    measures: Mapping[str, Callable[[Update, ParametersRecord], float]] = MappingProxyType({})
    least: int = 1
    most: int | None = None
    useful_from: int = 1
    opaque: tuple[str, ...] = ()


def weighted_mean(
    weigh: Callable[[Mapping[str, MetricsRecord]], float] = by_examples,
    *,
    finite: bool = True,
    threads: int | None = None,
) -> Aggregator:
    """Return the weighted mean, ``sum(w*x) / sum(w)``, element by element: McMahan et al. 2017, arXiv:1602.05629.

    The mean of one update is that update, bit for bit; the mean of equal 64-bit integers is that integer. With K
    updates an element of a float array is within (K + 3) units of rounding (2**-24 for floats of up to 32 bits, 2**-53
    for float64) of the exact mean, relative to the mean of the magnitudes, before it is rounded to a narrower dtype.
    Weights run on a scale of powers of two, so that nothing overflows on the way if the mean does not, as long as they
    are within a factor of 2**100 of each other. An update of weight 0 is left out.

    The memory of one large result that nobody holds any more is kept, and used for the next.

    Args:
        weigh: the weight of an update, from its metrics.
        finite: refuse a result with NaN or infinite elements. False passes on those that the updates had.
        threads: how many work on a large model at most; None for as many as there are cores, up to four. The bits are
            the same with any number.

    >>> from umbel.records import ParametersRecord
    >>> import numpy as np
    >>> one = ParametersRecord.from_numpy({"w": np.array([1.0, 2.0], np.float32)})
    >>> two = ParametersRecord.from_numpy({"w": np.array([5.0, 6.0], np.float32)})
    >>> updates = [Update("site-b", 3, two), Update("site-a", 1, one)]
    >>> aggregate(weighted_mean(), one, updates).to_numpy()["w"]
    array([4., 5.], dtype=float32)

    """
    return Aggregator("weighted_mean", weigh, LinearFold(mean_of, plan, finite=finite, threads=threads))


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
