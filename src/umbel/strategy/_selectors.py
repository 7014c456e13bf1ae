"""Selectors choose the cohort of a round by position, so that a population of any size is never listed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from umbel.errors import StrategyError

_DOMAIN: Final = b"umbel cohort 1\0"
_MOST: Final = 1e100  # sums of weights stay finite

# Columns of what is remembered of a node, beside metrics.
ROUND: Final = "round"
LOST: Final = "lost"
SECONDS: Final = "seconds"


class Occasion(NamedTuple):
    """What a selector that remembers has to go by: a phase of a round, and what is known of some nodes.

    There are ``size`` nodes; ``seed`` and positions are those of ``Selector.choose``. ``places`` are the positions of
    the nodes that were asked before and are there, ascending; ``columns`` hold a number for each of them: "round", when
    it was last asked; "lost", how often since its last reply; and what it last replied: "seconds", how long that took,
    and the metrics that the selector remembers, NaN for what it did not report. ``now`` is the time of the last reply
    on the grid's clock, NaN before the first; ``name_of(position)`` is a node's name.
    """

    size: int
    seed: int
    round: int
    places: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    now: float
    name_of: Callable[[int], str]


class Selector(NamedTuple):
    """A named way to choose a cohort.

    ``choose(count, seed)`` returns positions, Python's or NumPy's integers, among ``count`` nodes sorted by name. They
    are taken in ascending order, and each once. ``seed`` (0 <= seed < 2**63) stands for the run, the round and the
    phase. It is pure: the same arguments give the same cohort anywhere.
    ``most`` is the largest number it ever chooses, if that does not depend on ``count``.

    A selector with ``consult`` remembers: it is asked in place of ``choose``, with an occasion, and the run's state
    keeps, of every node that was asked, when that was, how long it took, and the metrics named in ``remembers``.
    """

    name: str
    choose: Callable[[int, int], Sequence[int]]
    most: int | None = None
    consult: Callable[[Occasion], Sequence[int]] | None = None
    remembers: tuple[str, ...] = ()

    def positions(self, occasion: Occasion) -> Sequence[int]:
        """Return who is chosen on an occasion."""
        if self.consult is None:
            return self.choose(occasion.size, occasion.seed)
        return self.consult(occasion)


def everyone() -> Selector:
    """Select every node in every round."""
    return Selector("everyone()", _everyone)


def fraction(share: float, *, min_nodes: int = 1) -> Selector:
    """Select a share of the nodes, rounded to the nearest number of nodes and at least ``min_nodes``.

    Each round draws anew, uniformly and without replacement (C in McMahan et al. 2017, arXiv:1602.05629).
    Raises ``StrategyError`` for a share outside (0, 1] or ``min_nodes`` below 1, and in a round with fewer nodes.
    """
    if not 0 < share <= 1:
        raise StrategyError(f"expected a fraction of the nodes above 0 and at most 1, got {share!r}", at="fraction")
    require_positive(min_nodes, "min_nodes")
    return Selector(f"fraction({share!r}, min_nodes={min_nodes})", partial(_fraction, share, min_nodes))


def fixed(count: int) -> Selector:
    """Select the same number of nodes in every round, drawn anew, uniformly and without replacement.

    Raises ``StrategyError`` for a number below 1, and in a round with fewer nodes than that.
    """
    require_positive(count, "count")
    return Selector(f"fixed({count})", partial(_fixed, count), most=count)


def weighted(count: int, weights: Sequence[float]) -> Selector:
    """Select ``count`` nodes in every round, drawn anew, one after the other, each in proportion to its weight.

    Args:
        count: how many nodes, at least 1.
        weights: one for each node in the order of node names, 0 or more; a node of weight 0 is never selected.

    Raises ``StrategyError`` for a number below 1, weights that are none, or fewer than ``count`` above 0; and in a
    round whose number of nodes is not that of the weights.
    """
    require_positive(count, "count")
    exact = tuple(float(weight) for weight in weights)
    if not all(0 <= weight <= _MOST for weight in exact) or sum(weight > 0 for weight in exact) < count:
        raise StrategyError(
            f"expected weights from 0 to {_MOST:g}, at least {count} of them above 0, got {weights!r:.80}", at="weights"
        )
    named = blake3(np.array(exact, "<f8").tobytes()).hexdigest()[:16]
    return Selector(f"weighted({count}, {len(exact)} weights {named})", partial(_weighted, count, exact), most=count)


def in_turn(count: int = 1) -> Selector:
    """Select ``count`` nodes in each round, one after the other by name, and then from the first on again.

    Raises ``StrategyError`` for a number below 1, and in a round with fewer nodes than that.
    """
    require_positive(count, "count")
    return Selector(f"in_turn({count})", partial(_fixed, count), count, partial(_in_turn, count))


def _in_turn(count: int, occasion: Occasion) -> Sequence[int]:
    _fixed(count, occasion.size, occasion.seed)  # as many must be there
    start = (occasion.round - 1) * count
    return sorted((start + place) % occasion.size for place in range(count))


def _everyone(count: int, seed: int) -> Sequence[int]:
    del seed
    return range(count)


def _fraction(share: float, min_nodes: int, count: int, seed: int) -> Sequence[int]:
    return _fixed(max(min_nodes, round(share * count)), count, seed)


def _fixed(wanted: int, count: int, seed: int) -> Sequence[int]:
    if wanted > count:
        raise StrategyError(
            f"expected at least {wanted} nodes to select from, the grid has {count}: "
            "start more nodes, or lower the number that the strategy asks for",
            at="select",
        )
    return range(count) if wanted == count else sample(wanted, count, seed)


def _weighted(wanted: int, weights: tuple[float, ...], count: int, seed: int) -> Sequence[int]:
    if len(weights) != count:
        raise StrategyError(f"expected as many weights as nodes, {count}, got {len(weights)}", at="weights")
    left = np.array(weights)
    chosen: list[int] = []
    for word in words(wanted, seed):
        sums = np.cumsum(left)  # one after the other, so the same on every machine
        position = int(np.searchsorted(sums, (word >> 11) * 2.0**-53 * sums[-1], side="right"))
        chosen.append(position)
        left[position] = 0.0
    return sorted(chosen)


def sample(wanted: int, count: int, seed: int) -> list[int]:
    """Draw without replacement (Floyd's method): ``wanted`` steps and as much memory, whatever ``count`` is.

    The randomness is the output stream of BLAKE3, because a library's generators may change from version to version.
    A 64-bit word scaled to a range below 2**31 is uniform to within 2**-33.
    """
    chosen: set[int] = set()
    for top, word in zip(range(count - wanted, count), words(wanted, seed), strict=True):
        position = word * (top + 1) >> 64
        chosen.add(top if position in chosen else position)
    return sorted(chosen)


def words(wanted: int, seed: int) -> list[int]:
    """Return random 64-bit words, the same for a seed anywhere."""
    stream = blake3(_DOMAIN + seed.to_bytes(8, "little")).digest(8 * wanted)
    words: list[int] = np.frombuffer(stream, "<u8").tolist()
    return words


def require_positive(value: int, name: str) -> None:
    """Raise ``StrategyError`` for what is no number of nodes."""
    if type(value) is not int or value < 1:
        raise StrategyError(f"expected a whole number of nodes, at least 1, got {value!r}", at=name)
