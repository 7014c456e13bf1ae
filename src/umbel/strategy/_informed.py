"""Selectors that remember: what nodes reported when they last took part decides who is asked next.

All are functions of an occasion: how many nodes there are, a seed, and what is known of some of them. What is known is
part of the run's state, so a run that resumes goes on with the same cohorts.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from math import ceil, inf, isfinite, log
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from umbel.errors import StrategyError
from umbel.strategy._selectors import (
    LOST,
    ROUND,
    SECONDS,
    Occasion,
    Selector,
    require_positive,
    sample,
    words,
)

_EXAMPLES: Final = "num-examples"
_HOUR: Final = 3600.0

Numbers = NDArray[np.float64]


def power_of_choice(count: int, *, candidates: int, loss: str = "loss-before") -> Selector:
    """Select those with the highest loss of some candidates: Cho, Wang and Joshi 2020, arXiv:2010.01243.

    ``candidates`` nodes are drawn uniformly, and of these the ``count`` with the highest loss are asked. The loss is
    the one that a node reported when it last took part (the paper's variant without a message more, rpow-d); a node
    that was never asked comes first, and each time that a node is lost halves its loss.

    Args:
        count: how many nodes train, at least 1 (m of the paper).
        candidates: how many are drawn, at least ``count`` (d of the paper); where there are fewer nodes, all are.
        loss: the metric, of the record "metrics"; the loss of the model as a node received it.

    Raises:
        StrategyError: for numbers out of range, and in a round with fewer nodes than ``count``.

    """
    require_positive(count, "count")
    if type(candidates) is not int or candidates < count:
        raise StrategyError(
            f"expected at least as many candidates as the {count} to select, got {candidates!r}", at="candidates"
        )
    name = f"power_of_choice({count}, candidates={candidates}, loss={loss!r})"
    consult = partial(_power_of_choice, count, candidates, loss)
    return Selector(name, partial(_uniform, count), count, consult, (loss,))


def oort(
    count: int, *, loss: str = "loss-before", explore: float = 0.9, least_explore: float = 0.2, preferred: float = 0.5
) -> Selector:
    """Select nodes that are useful and fast: after Oort, Lai et al. 2021, arXiv:2010.06081, Algorithm 1.

    The utility of a node that took part is ``num-examples * loss`` as it last reported them, cut off at the 95th
    percentile and scaled to at most 1, plus ``sqrt(0.1 * ln(round) / its last round)``; it is multiplied with
    ``(T/t)**2`` if the node took t seconds, longer than T. A share of the cohort is drawn from nodes that never took
    part; it begins at ``explore`` and shrinks by 2% a round down to ``least_explore``. The others are drawn by utility
    among those within 95% of the last one that would be in. Unlike in the paper T does not grow by itself.

    Args:
        count: how many nodes train, at least 1.
        loss: the metric, of the record "metrics".
        explore: the first share of nodes that never took part, from 0 to 1.
        least_explore: the least share, from 0 to ``explore``.
        preferred: which share of the known nodes is faster than T, above 0 and at most 1.

    Raises:
        StrategyError: for numbers out of range, and in a round with fewer nodes than ``count``.

    """
    require_positive(count, "count")
    if not (0 <= least_explore <= explore <= 1 and 0 < preferred <= 1):
        numbers = (explore, least_explore, preferred)
        raise StrategyError(f"expected shares from 0 to 1, the least below the first, got {numbers!r}", at="oort")
    name = (
        f"oort({count}, loss={loss!r}, explore={explore!r}, least_explore={least_explore!r}, preferred={preferred!r})"
    )
    consult = partial(_oort, count, loss, (explore, least_explore, preferred))
    return Selector(name, partial(_uniform, count), count, consult, (loss, _EXAMPLES))


def tiers(count: int, *, number: int = 5) -> Selector:
    """Select nodes that are about equally fast: the tiers of TiFL, Chai et al. 2020, arXiv:2001.09249.

    Nodes are sorted by the seconds that they last took and cut into tiers of one size; each round draws a tier, and its
    cohort from it, so that no fast node waits for a slow one. Nodes that never took part are asked first.

    Args:
        count: how many nodes train, at least 1.
        number: how many tiers there are, at least 1; fewer if a tier would have fewer nodes than ``count``.

    Raises:
        StrategyError: for numbers below 1, and in a round with fewer nodes than ``count``.

    """
    require_positive(count, "count")
    require_positive(number, "number")
    return Selector(f"tiers({count}, number={number})", partial(_uniform, count), count, partial(_tiers, count, number))


def during(windows: Mapping[str, tuple[float, float]], select: Selector, *, period: float = 24.0) -> Selector:
    """Select among the nodes whose time it is: those that are free at night, on weekends, or never closed.

    The time is that of the last reply on the grid's clock, which on most is UTC; before the first one, and when it is
    nobody's time, everyone counts as available.

    Args:
        windows: from and until when a node can be asked, in hours within the period, by patterns of node names; the
            first pattern that matches counts. A window that ends before it begins goes over the end of the period. A
            node that no pattern matches can always be asked.
        select: who of these is selected.
        period: after how many hours the windows come again; 168 is a week, whose first day is a Thursday.

    Raises:
        StrategyError: for a period or windows that cannot be.

    """
    spans = tuple((pattern, float(start), float(end)) for pattern, (start, end) in windows.items())
    if not 0 < period < inf or not all(0 <= hour <= period for _, *span in spans for hour in span):
        raise StrategyError(
            f"expected windows within a period of {period!r} hours, got {dict(windows)!r:.80}", at="windows"
        )
    name = f"during({', '.join(map(repr, spans))}, {select.name}, period={period!r})"
    return Selector(name, select.choose, select.most, partial(_during, spans, period, select), select.remembers)


def _uniform(wanted: int, count: int, seed: int) -> Sequence[int]:
    _require_enough(wanted, count)
    return sample(wanted, count, seed)


def _require_enough(wanted: int, count: int) -> None:
    if wanted > count:
        raise StrategyError(
            f"expected at least {wanted} nodes to select from, the grid has {count}: "
            "start more nodes, or lower the number that the strategy asks for",
            at="select",
        )


def _power_of_choice(wanted: int, candidates: int, loss: str, occasion: Occasion) -> Sequence[int]:
    _require_enough(wanted, occasion.size)
    drawn = sample(min(candidates, occasion.size), occasion.size, occasion.seed)
    known = dict(zip(occasion.places.tolist(), _worth(loss, occasion).tolist(), strict=True))
    # What is equally good is in the order of the draw's own words, so that the first by name are not always in.
    lots = words(len(drawn), occasion.seed ^ 1)
    ranked = sorted(zip(drawn, lots, strict=True), key=lambda each: (-known.get(each[0], inf), each[1]))
    return sorted(place for place, _ in ranked[:wanted])


def _worth(loss: str, occasion: Occasion) -> Numbers:
    """Return the losses of the known nodes, halved for each time that a node was lost since it last answered."""
    losses = occasion.columns[loss]
    is_known = np.isfinite(losses)
    lost = np.minimum(occasion.columns[LOST], 60.0)
    most = losses[is_known].max() if is_known.any() else 1.0
    # Whoever answered without a loss is as unknown as whoever was never asked; whoever was asked in vain is not.
    unknown = np.where(lost > 0, most, np.inf)
    worth: Numbers = np.where(is_known, losses, unknown) * np.ldexp(1.0, -lost.astype(np.int64))
    return worth


def _oort(wanted: int, loss: str, shares: tuple[float, float, float], occasion: Occasion) -> Sequence[int]:
    _require_enough(wanted, occasion.size)
    first, least, preferred = shares
    utility = _utility(loss, preferred, occasion)
    explored = {int(place) for place in occasion.places}
    # Powers and logarithms may differ in the last bit from machine to machine; rounded, they do not.
    share = max(least, round(first * 0.98 ** (occasion.round - 1), 9))
    new = min(max(round(share * wanted), wanted - len(explored)), occasion.size - len(explored))
    chosen = _exploit(wanted - new, occasion, utility)
    return sorted([*chosen, *_unexplored(new, explored, occasion)])


def _utility(loss: str, preferred: float, occasion: Occasion) -> Numbers:
    """Return how useful each known node is, from 0 to a little above 1."""
    columns = occasion.columns
    raw = np.maximum(np.nan_to_num(columns[loss] * columns[_EXAMPLES], nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    if not raw.size:
        return raw
    raw = np.minimum(raw, np.sort(raw)[ceil(0.95 * raw.size) - 1])
    scaled = raw / raw.max() if raw.max() > 0 else raw
    age = np.maximum(columns[ROUND], 1.0)
    fresh = scaled + np.sqrt(round(0.1 * log(max(occasion.round, 1)), 9) / age)
    seconds = np.maximum(np.nan_to_num(columns[SECONDS], nan=0.0), 0.0)
    limit = np.sort(seconds)[ceil(preferred * seconds.size) - 1]
    ratio = np.where(seconds > limit, limit / np.maximum(seconds, 1e-300), 1.0)
    useful: Numbers = fresh * ratio * ratio
    useful[columns[LOST] > 0] *= 0.5  # whoever was lost the last time is less likely to be worth the wait
    return useful


def _exploit(wanted: int, occasion: Occasion, utility: Numbers) -> list[int]:
    if wanted <= 0:
        return []
    bar = 0.95 * np.sort(utility)[::-1][wanted - 1]
    good = np.flatnonzero(utility >= bar)
    left = np.maximum(utility[good], 1e-12)
    chosen = []
    for word in words(wanted, occasion.seed ^ 2):
        sums = np.cumsum(left)
        place = min(int(np.searchsorted(sums, (word >> 11) * 2.0**-53 * sums[-1], side="right")), len(left) - 1)
        while left[place] == 0.0:
            place -= 1
        chosen.append(int(occasion.places[good[place]]))
        left[place] = 0.0
    return chosen


def _unexplored(wanted: int, explored: set[int], occasion: Occasion) -> list[int]:
    """Draw positions among those that are not explored, without listing them."""
    known = sorted(explored)
    drawn = sample(wanted, occasion.size - len(known), occasion.seed ^ 3) if wanted > 0 else []
    found, skipped = [], 0
    for place in drawn:  # ascending, and so is what is known
        while skipped < len(known) and known[skipped] <= place + skipped:
            skipped += 1
        found.append(place + skipped)
    return found


def _tiers(wanted: int, number: int, occasion: Occasion) -> Sequence[int]:
    _require_enough(wanted, occasion.size)
    explored = {int(place) for place in occasion.places}
    new = occasion.size - len(explored)
    if new:
        fresh = min(wanted, new)
        return sorted([*_unexplored(fresh, explored, occasion), *_slowest_last(occasion)[: wanted - fresh]])
    order = _slowest_last(occasion)
    number = max(1, min(number, len(order) // wanted))
    (word,) = words(1, occasion.seed ^ 4)
    tier = word * number >> 64
    members = order[len(order) * tier // number : len(order) * (tier + 1) // number]
    return sorted(members[place] for place in sample(wanted, len(members), occasion.seed))


def by_speed(positions: Sequence[int], number: int, least: int, occasion: Occasion) -> list[list[int]]:
    """Return positions in so many tiers of one size, the fastest first; the last are empty rather than all too small.

    Whoever was never asked comes before all others, to be found out, and whoever has not answered yet after them.
    """
    seconds = np.full(occasion.size, -1.0)
    seconds[occasion.places] = np.nan_to_num(occasion.columns[SECONDS], nan=inf)
    places = np.asarray(positions, np.int64)
    order: list[int] = places[np.argsort(seconds[places], kind="stable")].tolist()
    filled = max(1, min(number, len(order) // least))
    tiers = [order[len(order) * tier // filled : len(order) * (tier + 1) // filled] for tier in range(filled)]
    return [*tiers, *([] for _ in range(number - filled))]


def _slowest_last(occasion: Occasion) -> list[int]:
    order = np.argsort(np.nan_to_num(occasion.columns[SECONDS], nan=np.inf), kind="stable")
    return [int(place) for place in occasion.places[order]]


def _during(
    spans: tuple[tuple[str, float, float], ...], period: float, select: Selector, occasion: Occasion
) -> Sequence[int]:
    hour = occasion.now / _HOUR % period
    free = [place for place in range(occasion.size) if _is_free(spans, hour, occasion.name_of(place))]
    if not free:
        return select.positions(occasion)
    return [free[place] for place in select.positions(_among(free, occasion))]


def _is_free(spans: tuple[tuple[str, float, float], ...], hour: float, name: str) -> bool:
    for pattern, start, end in spans:
        if fnmatchcase(name, pattern):
            inside = start <= hour < end if start <= end else hour >= start or hour < end
            return inside or not isfinite(hour)
    return True


def _among(free: list[int], occasion: Occasion) -> Occasion:
    """Return the occasion of the free nodes alone, numbered anew."""
    numbers = {place: number for number, place in enumerate(free)}
    rows = [row for row, place in enumerate(occasion.places.tolist()) if place in numbers]
    places = np.array([numbers[int(occasion.places[row])] for row in rows], np.int64)
    columns: Mapping[str, Any] = {name: column[rows] for name, column in occasion.columns.items()}
    name_of: Callable[[int], str] = lambda place: occasion.name_of(free[place])  # noqa: E731 - a part of a value
    return occasion._replace(size=len(free), places=places, columns=columns, name_of=name_of)
