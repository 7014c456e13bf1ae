"""Analytics: what a node answers to a query, so that sums leave the site and rows do not.

These are the nodes' halves of the strategies ``moments``, ``histogram``, ``quantiles`` and ``kmeans``, as pure
functions of NumPy arrays. ``rows`` are (rows, features), numbers of any kind; NaN is a value that is missing, and
counts nowhere. Answers are sums, in the layout that the strategy expects: put one into the reply as the record "model".

How little a sum says of a row depends on how many rows are in it: a site should refuse to answer for a few.
"""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import StrategyError

__all__ = [
    "below",
    "brackets",
    "clusters",
    "deviation",
    "histogram",
    "mean",
    "middle",
    "moments",
    "no_counts",
    "no_moments",
    "standardised",
]

_Arrays: TypeAlias = Mapping[str, NDArray[Any]]


def moments(rows: ArrayLike) -> dict[str, NDArray[Any]]:
    """Return how many values each feature has, their sum and the sum of their squares.

    >>> {name: array.tolist() for name, array in moments([[1.0, 2.0], [3.0, float("nan")]]).items()}
    {'count': [2, 1], 'sum': [4.0, 2.0], 'squares': [10.0, 4.0]}

    """
    values, known = _known(rows)
    return {
        "count": known.sum(axis=0, dtype=np.int64),
        "sum": values.sum(axis=0),
        "squares": (values * values).sum(axis=0),
    }


def no_moments(features: int) -> dict[str, NDArray[Any]]:
    """Return the moments of no rows: what a run of the strategy ``moments`` begins with."""
    return moments(np.empty((0, features)))


def mean(total: _Arrays) -> NDArray[np.float64]:
    """Return the mean of each feature from its moments; NaN where there is no value.

    >>> mean(moments([[1.0], [3.0]]))
    array([2.])

    """
    with np.errstate(all="ignore"):
        found: NDArray[np.float64] = total["sum"] / total["count"]
    return found


def deviation(total: _Arrays) -> NDArray[np.float64]:
    """Return the standard deviation of each feature from its moments, that of the population.

    >>> deviation(moments([[1.0], [3.0]]))
    array([1.])

    """
    with np.errstate(all="ignore"):
        return np.sqrt(np.maximum(total["squares"] / total["count"] - mean(total) ** 2, 0.0))


def standardised(rows: ArrayLike, total: _Arrays) -> NDArray[np.float64]:
    """Return rows with a mean of 0 and a deviation of 1 over the federation; a feature that is constant becomes 0.

    >>> standardised([[1.0], [3.0]], moments([[1.0], [3.0]])).tolist()
    [[-1.0], [1.0]]

    """
    scale = deviation(total)
    centred = np.asarray(rows, np.float64) - mean(total)
    return np.where(scale > 0, centred / np.where(scale > 0, scale, 1.0), centred * 0.0)


def histogram(rows: ArrayLike, low: float, high: float, bins: int) -> dict[str, NDArray[np.int64]]:
    """Return how many values of each feature are in each of ``bins`` equal bins from ``low`` to ``high``.

    The first column counts what is below ``low``, the last what is at ``high`` or above: (features, bins + 2). A node
    is told the numbers as ``low``, ``high`` and ``bins`` in the config.

    Raises ``StrategyError`` for bins that are none.

    >>> histogram([[-1.0], [0.0], [0.4], [0.6], [1.0]], 0.0, 1.0, 2)["counts"].tolist()
    [[1, 2, 1, 1]]

    """
    _require(isfinite(low) and isfinite(high) and low < high and bins >= 1, f"bins, got {(low, high, bins)!r}")
    values, known = _known(rows)
    # Edges and comparisons are the same on every machine; a division that decides which bin might not be.
    edges = low + (high - low) * np.arange(bins + 1) / bins
    edges[-1] = high
    counts = np.zeros((values.shape[1], bins + 2), np.int64)
    for feature in range(len(counts)):
        places = np.searchsorted(edges, values[known[:, feature], feature], side="right")
        counts[feature] = np.bincount(places, minlength=bins + 2)
    return {"counts": counts}


def no_counts(features: int, bins: int) -> dict[str, NDArray[np.int64]]:
    """Return the histogram of no rows: what a run of the strategy ``histogram`` begins with."""
    return {"counts": np.zeros((features, bins + 2), np.int64)}


def brackets(low: ArrayLike, high: ArrayLike, levels: int) -> dict[str, NDArray[np.float64]]:
    """Return where ``levels`` quantiles of each feature are looked for: what a run of ``quantiles`` begins with.

    The third array, "ends", is what the run asks about beside the middles, so that a quantile outside is noticed.

    Args:
        low: a number that no value of each feature is below, (features,).
        high: a number that no value exceeds, likewise.
        levels: how many quantiles.

    Raises:
        StrategyError: for a low above its high, numbers that are not finite, and levels that are none.

    >>> {name: array.tolist() for name, array in brackets(low=[0.0], high=[8.0], levels=2).items()}
    {'low': [[0.0, 0.0]], 'high': [[8.0, 8.0]], 'ends': [[-5e-324, 8.0]]}

    """
    _require(type(levels) is int and levels >= 1, f"a number of levels, at least 1, got {levels!r:.80}")
    start, end = (np.asarray(values, np.float64).reshape(-1, 1) for values in (low, high))
    _require(start.shape == end.shape, f"a low and a high for each feature, got {start.size} and {end.size}")
    for feature, ends in enumerate(np.hstack([start, end]).tolist()):
        _require(
            -inf < ends[0] <= ends[1] < inf,
            f"a low not above the high of feature {feature}, got {ends[0]} and {ends[1]}",
        )
    repeated = {name: np.repeat(column, levels, axis=1) for name, column in (("low", start), ("high", end))}
    # What is at most the number before a low is below it.
    return {**repeated, "ends": np.hstack([np.nextafter(start, -inf), end])}


def middle(model: _Arrays) -> NDArray[np.float64]:
    """Return the thresholds that a round of ``quantiles`` asks about, (features, levels + 2).

    They are halfway between the brackets; the last two are the ends of the first ones, if the run began with any.
    """
    found: NDArray[np.float64] = model["low"] / 2 + model["high"] / 2
    return np.hstack([found, model["ends"]]) if "ends" in model else found


def below(rows: ArrayLike, thresholds: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """Return how many values of each feature are at most each of its thresholds, (features, levels), and how many are.

    >>> found = below([[1.0], [2.0], [3.0]], np.array([[1.5, 2.0]]))
    >>> found["below"].tolist(), found["count"].tolist()
    ([[1, 2]], [3])

    """
    values, known = _known(rows)
    counted = (values[:, :, None] <= thresholds[None]) & known[:, :, None]
    return {"below": counted.sum(axis=0, dtype=np.int64), "count": known.sum(axis=0, dtype=np.int64)}


def clusters(rows: ArrayLike, centroids: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the sum and the number of the rows that are nearest to each centroid, (clusters, features).

    Of two centroids as near the first counts; rows with missing values are left out.

    >>> found = clusters([[0.0], [1.0], [10.0]], np.array([[0.5], [9.0]]))
    >>> found["sums"].tolist(), found["counts"].tolist()
    ([[1.0], [10.0]], [2, 1])

    """
    values, known = _known(rows)
    whole = values[known.all(axis=1)]
    apart = np.stack([((whole - centroid) ** 2).sum(axis=1) for centroid in centroids], axis=1)
    nearest = apart.argmin(axis=1) if len(whole) else np.zeros(0, np.int64)
    members = [whole[nearest == place] for place in range(len(centroids))]
    return {
        "sums": np.array([rows.sum(axis=0) for rows in members]).reshape(centroids.shape),
        "counts": np.array([len(rows) for rows in members], np.int64),
    }


def _known(rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values, with zeros in place of what is missing, and what is not."""
    values = np.asarray(rows, np.float64)
    _require(values.ndim == 2, f"rows and features, got an array of shape {list(values.shape)}")  # noqa: PLR2004
    known = ~np.isnan(values)
    return np.where(known, values, 0.0), known


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - a condition
    if not condition:
        raise StrategyError(f"expected {what}", at="queries")
