"""Aggregators that a minority of bad updates cannot move far.

Each says how many bad updates ``f`` of ``K`` it bears. All see the whole round at once: memory holds a block of every
update, and the updates themselves where they came as files are pages of those files.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import inf

from umbel.aggregation._aggregator import Aggregator
from umbel.aggregation._choices import centred, clipped, least_distant, nearest_to_others
from umbel.aggregation._cohort import Bulyan, ByDistance, ByElement, CohortFold
from umbel.aggregation._rules import inner_mean, middle, trimmed
from umbel.aggregation._update import uniform
from umbel.errors import StrategyError
from umbel.records import MetricsRecord

Weigh = Callable[[Mapping[str, MetricsRecord]], float]


def median(*, finite: bool = True) -> Aggregator:
    """Return the median, element by element: Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option I.

    Of an even number of values it is the mean of the two in the middle. The parts of complex numbers are taken by
    themselves; a bool is true where more than half are. Every update counts the same. As long as f < K/2 updates are
    bad, each element lies between honest ones.

    Args:
        finite: refuse a result with NaN or infinite elements. A NaN in an update counts as more than any number.

    """
    return Aggregator("median", uniform, CohortFold(ByElement(middle, finite)), useful_from=3)


def trimmed_mean(*, share: float = 0.2, finite: bool = True) -> Aggregator:
    """Return the mean without the outermost, element by element: Yin et al. 2018, arXiv:1803.01498, option II.

    Of the K values of an element, ``floor(share * K)`` are left out at each end. Every update counts the same. As long
    as no more than these are bad, each element lies between honest ones.

    Args:
        share: beta of the paper, from 0 to below 1/2.
        finite: as in ``median``.

    Raises:
        StrategyError: for a share out of this range.

    """
    _require("share", share, 0 <= share < 1 / 2, "a share of the updates from 0 to below 1/2")
    return Aggregator(
        f"trimmed_mean(share={share!r})",
        uniform,
        CohortFold(ByElement(partial(inner_mean, share), finite)),
        useful_from=_first_trimmed(share),
    )


def krum(*, byzantine: int, finite: bool = True) -> Aggregator:
    """Return the one update that is nearest to its neighbours: Krum, Blanchard et al. 2017, arXiv:1703.02757.

    The score of an update is the sum of its squared distances from the ``K - f - 2`` updates nearest to it; the least
    wins, and of two the first by node name. It takes ``K >= 2*f + 3`` updates.

    Args:
        byzantine: f, how many updates may be bad.
        finite: as in ``median``.

    Raises:
        StrategyError: for a number below 0.

    """
    _require_count("byzantine", byzantine, 0)
    reduce = ByDistance(partial(nearest_to_others, byzantine, 1), finite)
    least = _for_krum(byzantine)
    return Aggregator(
        f"krum(byzantine={byzantine})", uniform, CohortFold(reduce), least=least, useful_from=max(least, 3)
    )


def multi_krum(*, byzantine: int, count: int | None = None, weigh: Weigh = uniform, finite: bool = True) -> Aggregator:
    """Return the mean of the updates with the best scores of ``krum``: Multi-Krum, arXiv:1703.02757.

    Args:
        byzantine: f, how many updates may be bad.
        count: m, how many updates are averaged; None for all but f.
        weigh: with which weight; whoever may be bad should not say how much it counts.
        finite: as in ``median``.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require_count("byzantine", byzantine, 0)
    if count is not None:
        _require_count("count", count, 1)
    reduce = ByDistance(partial(nearest_to_others, byzantine, count), finite)
    name = f"multi_krum(byzantine={byzantine}, count={count})"
    least = max(_for_krum(byzantine), count or 1)
    return Aggregator(name, weigh, CohortFold(reduce), least=least, useful_from=max(least, 3))


def bulyan(*, byzantine: int, finite: bool = True) -> Aggregator:
    """Return Bulyan over Krum: El Mhamdi et al. 2018, arXiv:1802.07927.

    Krum chooses an update, which is taken out, until there are ``K - 2*f``; then each element is the mean of the
    ``K - 4*f`` chosen values that are nearest to their median. It takes ``K >= 4*f + 3`` updates. Unlike with Krum, a
    bad update cannot hide a large change of one element in an otherwise ordinary update.

    Args:
        byzantine: f, how many updates may be bad.
        finite: as in ``median``.

    Raises:
        StrategyError: for a number below 0.

    """
    _require_count("byzantine", byzantine, 0)
    least = 4 * byzantine + 3 if byzantine else 1
    fold = CohortFold(Bulyan(byzantine, finite))
    return Aggregator(f"bulyan(byzantine={byzantine})", uniform, fold, least=least, useful_from=max(least, 3))


def geometric_median(
    *, smooth: float = 1e-6, iterations: int = 200, weigh: Weigh = uniform, finite: bool = True
) -> Aggregator:
    """Return the point with the least sum of distances: RFA, Pillutla et al. 2022, arXiv:1912.13445.

    It is found by the smoothed Weiszfeld algorithm, whose steps are taken among the distances of the updates, so that
    more of them cost nothing; the paper takes 3. It bears f < K/2, in weight.

    Args:
        smooth: nu of the paper, above 0: distances below it count as it.
        iterations: how many steps at most, 1 or more; it ends by itself when nothing moves any more.
        weigh: with which weight an update counts; whoever may be bad should not say how much it counts.
        finite: as in ``median``.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require("smooth", smooth, 0 < smooth < inf, "a distance above 0")
    _require_count("iterations", iterations, 1)
    reduce = ByDistance(partial(least_distant, smooth, iterations), finite)
    name = f"geometric_median(smooth={smooth!r}, iterations={iterations})"
    return Aggregator(name, weigh, CohortFold(reduce), useful_from=2)


def clipped_mean(
    *, bound: float | None = None, quantile: float = 0.5, weigh: Weigh = uniform, finite: bool = True
) -> Aggregator:
    """Return the mean of updates that are drawn towards the model until they are within a bound of it.

    A bound that is given is that of Sun et al. 2019, arXiv:1911.07963. One that is learned is the quantile of the
    distances in this round, which Andrew et al. 2021, arXiv:1905.03871, follow over rounds. With f < K/2 bad updates
    and the median, none of them moves the model further than the honest ones do.

    Args:
        bound: largest Euclidean distance from the model, above 0; None to learn it.
        quantile: which share of the weight a learned bound covers, above 0 and at most 1.
        weigh: with which weight an update counts.
        finite: as in ``median``.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require("bound", bound, bound is None or 0 < bound < inf, "a distance above 0")
    _require("quantile", quantile, 0 < quantile <= 1, "a share above 0 and at most 1")
    reduce = ByDistance(partial(clipped, bound, quantile), finite)
    rule = f"quantile={quantile!r}" if bound is None else f"bound={bound!r}"
    # A bound that is learned from one update alone is that update's own distance.
    return Aggregator(f"clipped_mean({rule})", weigh, CohortFold(reduce), useful_from=2 if bound is None else 1)


def centred_clipping(
    *, radius: float | None = None, iterations: int = 3, weigh: Weigh = uniform, finite: bool = True
) -> Aggregator:
    """Return the mean of updates clipped around it, in some iterations: Karimireddy et al. 2021, arXiv:2012.10333.

    With v the last point, at first the model, the next is ``v + mean((x - v) * min(1, radius / |x - v|))``. A radius
    that is learned is the median of the distances from the point, in weight, anew in each iteration. It bears f < K/2.

    Args:
        radius: tau of the paper, above 0; None to learn it.
        iterations: how many, 1 or more. The paper takes 1 from the point of the round before, where here the model is.
        weigh: with which weight an update counts.
        finite: as in ``median``.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require("radius", radius, radius is None or 0 < radius < inf, "a distance above 0")
    _require_count("iterations", iterations, 1)
    reduce = ByDistance(partial(centred, radius, iterations), finite)
    name = f"centred_clipping(radius={radius!r}, iterations={iterations})"
    return Aggregator(name, weigh, CohortFold(reduce), useful_from=2 if radius is None else 1)


def _first_trimmed(share: float) -> int:
    """Return from how many updates on there is one to leave out; a share of 0 asks for none."""
    if not share:
        return 1
    nearly = int(min(1 / share, 2.0**53))
    return nearly if trimmed(share, nearly) else nearly + 1


def _for_krum(byzantine: int) -> int:
    return 2 * byzantine + 3 if byzantine else 1


def _require(name: str, value: object, condition: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not condition:
        raise StrategyError(f"expected {what}, got {value!r}", at=name)


def _require_count(name: str, value: int, least: int) -> None:
    _require(name, value, type(value) is int and value >= least, f"a whole number, {least} or more")
