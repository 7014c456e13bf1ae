"""Which updates count how much, judged by their distances from the model and from each other.

A choice is a function ``(distances, weights) -> shares``: how much of the result is the model, and how much each of
the updates. All of these rules have a result that lies between the points that they are given, so shares are all there
is to find, and finding them costs nothing beside the distances, however many steps it takes.
"""

from collections.abc import Sequence
from math import fsum, inf
from typing import Final

import numpy as np

from umbel.aggregation._distances import Distances, Matrix
from umbel.errors import AggregationError

_CLOSE: Final = 1e-12
_HALF: Final = 0.5


def nearest_to_others(byzantine: int, count: int | None, far: Distances, weights: Sequence[float]) -> list[float]:
    """Share the result among the ``count`` updates that are nearest to their neighbours: Krum and Multi-Krum."""
    wanted = len(weights) - byzantine if count is None else min(count, len(weights))
    chosen = set(_by_score(far.others, byzantine)[:wanted])
    return [0.0, *(weight if place in chosen else 0.0 for place, weight in enumerate(weights))]


def one_after_the_other(byzantine: int, far: Distances) -> list[int]:
    """Return the updates that Krum chooses, each taken out before it chooses the next: Bulyan's first half."""
    if len(far.alive) < len(far.model) - byzantine:
        raise _too_many_lost(far.others)
    left = list(range(len(far.model)))
    chosen = []
    for _ in range(len(far.model) - 2 * byzantine):
        best = left[_by_score(far.others[np.ix_(left, left)], byzantine)[0]]
        chosen.append(best)
        left.remove(best)
    return sorted(chosen)


def _by_score(squared: Matrix, byzantine: int) -> list[int]:
    """Return the updates by the sum of the squared distances from as many neighbours as are surely honest.

    Of two with the same sum, the first in canonical order comes first.
    """
    count = len(squared)
    apart = squared.copy()
    np.fill_diagonal(apart, np.inf)
    neighbours = min(max(1, count - byzantine - 2), count - 1)
    if neighbours == 0:
        return list(range(count))
    apart.sort(axis=1)
    scores = np.add.accumulate(apart[:, :neighbours], axis=1)[:, -1]
    order = [int(place) for place in np.argsort(scores, kind="stable")]
    if not np.isfinite(scores[order[0]]):
        raise _too_many_lost(squared)
    return [place for place in order if np.isfinite(scores[place])]


def least_distant(smooth: float, iterations: int, far: Distances, weights: Sequence[float]) -> list[float]:
    """Share the result so that the weighted sum of its distances from the updates is least: the geometric median.

    Weiszfeld's iteration, with distances of at least ``smooth``, from the mean of the half that is nearest to the
    update with the least sum of distances: a point that no minority can move far.
    """
    alive = far.alive
    if not alive:
        raise _too_many_lost(far.others)
    squared = far.others[np.ix_(alive, alive)]
    parts = np.array([weights[place] for place in alive])
    shares = _central(squared, parts)
    for _ in range(iterations):
        pull = parts / np.maximum(np.sqrt(_from_point(squared, shares)), smooth)
        following = pull / fsum(pull.tolist())
        moved = float(np.abs(following - shares).max())
        shares = following
        if moved <= _CLOSE:
            break
    found = [0.0] * (len(weights) + 1)
    for place, share in zip(alive, shares.tolist(), strict=True):
        found[place + 1] = share
    return found


def _central(squared: Matrix, parts: Matrix) -> Matrix:
    sums = _times(np.sqrt(squared), parts)
    order = np.argsort(squared[int(np.argmin(sums))], kind="stable")
    total, reached = fsum(parts.tolist()), 0.0
    shares = np.zeros(len(parts))
    for place in order.tolist():
        shares[place] = parts[place]
        reached += parts[place]
        if reached >= _HALF * total:
            break
    return shares / reached


def _from_point(squared: Matrix, shares: Matrix) -> Matrix:
    """Return the squared distance of each point from the one that has these shares, which add up to 1, of them."""
    mixed = _times(squared, shares)
    return np.maximum(mixed - _HALF * fsum((mixed * shares).tolist()), 0.0)


def _times(matrix: Matrix, vector: Matrix) -> Matrix:
    """Return the product of a symmetric matrix and a vector, added up in one order whatever the machine."""
    total = np.zeros(len(vector))
    for row, factor in zip(matrix, vector.tolist(), strict=True):
        total += row * factor
    return total


def clipped(bound: float | None, quantile: float, far: Distances, weights: Sequence[float]) -> list[float]:
    """Draw every update that is further than a bound from the model towards it, as far as the bound.

    Without a bound, it is what the share ``quantile`` of the weight is within.
    """
    return _clip(_with_model(far), [1.0, *([0.0] * len(weights))], bound, quantile, weights)


def centred(radius: float | None, iterations: int, far: Distances, weights: Sequence[float]) -> list[float]:
    """Move from the model to the mean of what is clipped around the last point, several times."""
    shares = [1.0, *([0.0] * len(weights))]
    for _ in range(iterations):
        shares = _clip(_with_model(far), shares, radius, _HALF, weights)
    return shares


def _with_model(far: Distances) -> Matrix:
    """Return the squared distances of the model and the updates from each other, the model first."""
    whole = np.zeros((len(far.model) + 1, len(far.model) + 1))
    whole[0, 1:] = whole[1:, 0] = far.model
    whole[1:, 1:] = far.others
    return whole


def _clip(
    squared: Matrix, shares: Sequence[float], bound: float | None, quantile: float, weights: Sequence[float]
) -> list[float]:
    """Return the shares of the mean of all updates, each drawn to within the bound of the point that has ``shares``."""
    alive = np.isfinite(squared[0])
    point = np.array(shares)
    lengths = np.full(len(point), np.inf)
    lengths[alive] = np.sqrt(_from_point(squared[np.ix_(alive, alive)], point[alive]))
    total = fsum(weights)
    parts = [weight / total for weight in weights]
    reach = _quantile(lengths[1:].tolist(), parts, quantile) if bound is None else bound
    if reach == inf:
        raise _too_many_lost(squared[1:, 1:])
    kept = [
        part * (1.0 if length <= reach else reach / length) for part, length in zip(parts, lengths[1:], strict=True)
    ]
    rest = max(0.0, 1.0 - fsum(kept)) if any(length > reach for length in lengths[1:]) else 0.0
    return [rest * share + extra for share, extra in zip(shares, [0.0, *kept], strict=True)]


def _quantile(lengths: Sequence[float], parts: Sequence[float], quantile: float) -> float:
    """Return the least length that at least the share ``quantile`` of the weight does not exceed."""
    reached = 0.0
    for length, part in sorted(zip(lengths, parts, strict=True)):
        reached += part
        if reached >= quantile - _CLOSE:
            return length
    return max(lengths)


def _too_many_lost(squared: Matrix) -> AggregationError:
    return AggregationError(
        f"expected enough updates with finite elements to compare, got {len(squared)} that are too far apart; let the "
        "gate refuse what is not finite (Gate(finite=True))"
    )
