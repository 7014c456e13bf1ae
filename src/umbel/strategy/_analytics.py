"""Analytics: the nodes answer queries with sums, and nobody trains; `umbel.queries` has the nodes' halves.

Messages are of type "query", for which an app has ``@app.query()`` and a site may have a policy of its own. What takes
the place of the model is the answer so far; sums are exact where they are of integers.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil, inf, isfinite
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation import total
from umbel.errors import StrategyError
from umbel.message import MessageType
from umbel.optimizers import Cohort, Optimizer, OptimizerState, replace
from umbel.records import ParametersRecord
from umbel.strategy._fedavg import Maker, Unevaluated, averaged, checked
from umbel.strategy._strategy import Answer, Strategy, tell

_QUERY: Final = str(MessageType.QUERY)
_BEGUN_WITH: Final = {
    **dict.fromkeys(("count", "sum", "squares"), "umbel.queries.no_moments"),
    "counts": "umbel.queries.no_counts",
    **dict.fromkeys(("low", "high"), "umbel.queries.brackets"),
    "centroids": "of clusters and features",
}


def moments(**options: Unpack[Unevaluated]) -> Strategy:
    """Count, sum and sum the squares of every feature (of federated analytics, Elkordy et al. 2023, arXiv:2302.01326).

    One round is enough; a run begins with ``umbel.queries.no_moments``. From its result ``umbel.queries`` has means,
    deviations and standardised rows. Options as in ``fedavg``, without ``evaluate_fraction``.
    """
    return _query(moments, options, replace(), answer=_moments_alone)


@checked
def histogram(*, low: float, high: float, bins: int = 10, **options: Unpack[Unevaluated]) -> Strategy:
    """Count the values of every feature in equal bins (of federated analytics, Elkordy et al. 2023, arXiv:2302.01326).

    One round is enough; a run begins with ``umbel.queries.no_counts``. Nodes are told ``low``, ``high`` and ``bins``.

    Args:
        low: where the first bin begins; what is below has a column of its own.
        high: where the last bin ends; what is not below has a column of its own.
        bins: how many there are, at least 1.
        options: as in ``fedavg``, without ``evaluate_fraction``.

    Raises:
        StrategyError: for bins that are none.

    """
    if not (isfinite(low) and isfinite(high) and low < high and type(bins) is int and bins >= 1):
        raise StrategyError(f"expected bins from a lower to a higher number, got {(low, high, bins)!r}", at="bins")
    told = tell(low=float(low), high=float(high), bins=bins)
    return _query(histogram, options, replace(), answer=partial(_counts_of, bins), instruct=told)


@checked
def quantiles(*, levels: Sequence[float], **options: Unpack[Unevaluated]) -> Strategy:
    """Find quantiles of every feature by bisection (of federated analytics, Elkordy et al. 2023, arXiv:2302.01326).

    A run begins with ``umbel.queries.brackets``; in each round nodes answer how many values are at most
    ``umbel.queries.middle`` of the model, and the brackets become half as wide. The quantile of level p is the least
    number that at least ``p * count`` values do not exceed; after r rounds it is known to ``(high - low) / 2**r``.

    Args:
        levels: p of each quantile, above 0 and at most 1; one number for one.
        options: as in ``fedavg``, without ``evaluate_fraction``.

    Raises:
        StrategyError: for levels out of this range; and in a round, for a quantile outside the first brackets.

    """
    wanted = (levels,) if isinstance(levels, int | float) else tuple(levels)
    if not wanted or not all(0 < level <= 1 for level in wanted):
        raise StrategyError(f"expected levels above 0 and at most 1, got {levels!r:.80}", at="levels")
    step = Optimizer(f"bisect({', '.join(map(repr, wanted))})", _nothing, partial(_bisect, wanted))
    return _query(quantiles, options, step, answer=_counts_below)


def kmeans(**options: Unpack[Unevaluated]) -> Strategy:
    """Move centroids to the means of their rows: Lloyd's k-means (of federated analytics, 2023, arXiv:2302.01326).

    A run begins with the centroids, (clusters, features), as the array "centroids"; nodes answer with
    ``umbel.queries.clusters``. A centroid that no row is nearest to stays where it is. Options as in ``fedavg``,
    without ``evaluate_fraction``.
    """
    return _query(kmeans, options, Optimizer("lloyd()", _nothing, _lloyd), answer=_sums_of_clusters)


def _query(make: Maker, options: Unevaluated, step: Optimizer, answer: Answer | None = None, **parts: Any) -> Strategy:
    given = {"aggregator": total(), "optimizer": step, "phase": _QUERY, "answer": answer, "evaluate": None}
    return averaged(make, options, **given, **parts)


def _nothing(model: ParametersRecord) -> OptimizerState:
    del model
    return {}


def _array(record: ParametersRecord, name: str, kind: Any) -> NDArray[Any]:
    if name not in record:
        begun = f"an array {name!r} ({_BEGUN_WITH[name]})"
        raise StrategyError(f"expected a run that begins with {begun}, got {', '.join(record)}", at="initial")
    return record[name].numpy(copy=False).astype(kind, copy=False)


def _moments_alone(model: ParametersRecord) -> ParametersRecord:
    for name in ("count", "sum", "squares"):
        _array(model, name, np.float64)
    return model


def _counts_of(bins: int, model: ParametersRecord) -> ParametersRecord:
    shape = _array(model, "counts", np.int64).shape
    if shape[-1:] != (bins + 2,):
        raise StrategyError(
            f"expected counts of {bins} bins and of what lies below and above, (features, {bins + 2}), got "
            f"{list(shape)}: begin with umbel.queries.no_counts(features, {bins})",
            at="initial",
        )
    return model


def _counts_below(model: ParametersRecord) -> ParametersRecord:
    *features, levels = _array(model, "low", np.float64).shape
    ends = 2 if "ends" in model else 0
    below = np.zeros((*features, levels + ends), np.int64)
    return ParametersRecord.from_numpy({"below": below, "count": np.zeros(features, np.int64)})


def _bisect(
    levels: tuple[float, ...],
    state: OptimizerState,
    model: ParametersRecord,
    counts: ParametersRecord,
    cohort: Cohort = Cohort(),  # noqa: B008 - a value
    /,
) -> tuple[OptimizerState, ParametersRecord]:
    del cohort
    low, high = (_array(model, name, np.float64) for name in ("low", "high"))
    if low.shape[-1:] != (len(levels),):
        raise StrategyError(f"expected brackets for {len(levels)} levels, got {list(low.shape)}", at="initial")
    found = [[ceil(round(level * count, 9)) for level in levels] for count in counts["count"].numpy().tolist()]
    wanted, below = np.array(found, np.int64).reshape(low.shape), counts["below"].numpy()
    enough = below[..., : len(levels)] >= wanted
    middle = low / 2 + high / 2
    following = {"low": np.where(enough, low, middle), "high": np.where(enough, middle, high)}
    if "ends" in model:
        following["ends"] = _array(model, "ends", np.float64)
        _require_inside(levels, following["ends"], wanted, below)
    return state, ParametersRecord.from_numpy(following)


def _require_inside(
    levels: tuple[float, ...], ends: NDArray[Any], wanted: NDArray[np.int64], below: NDArray[np.int64]
) -> None:
    """Raise ``StrategyError`` if a quantile is outside the brackets that the run began with: it is never found."""
    low = (np.nextafter(ends[:, 0], inf), "below", (below[:, -2:-1] >= wanted) & (wanted > 0))
    high = (ends[:, 1], "above", below[:, -1:] < wanted)
    for end, side, where in (low, high):
        for feature, level in np.argwhere(where).tolist():
            raise StrategyError(
                f"the quantile {levels[level]!r} of feature {feature} lies {side} {end[feature]:g}, outside "
                "its bracket: begin with wider brackets, which cost a round for each doubling",
                at="initial",
            )


def _sums_of_clusters(model: ParametersRecord) -> ParametersRecord:
    shape = _array(model, "centroids", np.float64).shape
    return ParametersRecord.from_numpy({"sums": np.zeros(shape), "counts": np.zeros(shape[:1], np.int64)})


def _lloyd(
    state: OptimizerState,
    model: ParametersRecord,
    found: ParametersRecord,
    cohort: Cohort = Cohort(),  # noqa: B008 - a value
    /,
) -> tuple[OptimizerState, ParametersRecord]:
    del cohort
    counts = found["counts"].numpy()[:, None]
    means = found["sums"].numpy() / np.maximum(counts, 1)
    centroids = np.where(counts > 0, means, _array(model, "centroids", np.float64))
    return state, ParametersRecord.from_numpy({"centroids": centroids})
