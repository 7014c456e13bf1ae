"""Policies: when a round is over, and what becomes of the nodes that have not answered by then."""

from collections.abc import Callable
from functools import partial
from math import ceil, inf, isfinite, sqrt
from typing import Final, NamedTuple

from umbel.errors import StrategyError

Discount = Callable[[int], float]

_HALF: Final = 0.5
_FACTOR: Final = 2.0


class Deadline(NamedTuple):
    """How long a cohort has: ``factor`` times what the share ``quantile`` of the nodes known so far took at most.

    A second, if that is less. It becomes the messages' time to live, so it runs on the grid's clock; in the first round
    it is ``first`` seconds.
    """

    quantile: float
    factor: float
    first: float | None


class Overlap(NamedTuple):
    """How nodes train while the model moves on: so many at once, and a new model after so many updates.

    ``discount(staleness)`` is what an update counts that was trained from a model so many versions ago; a node that was
    sent one of more than ``most_stale`` is given up. With ``moved``, what counts is how far the node went from the
    model that it was sent; without, where it got to.

    With ``tiers``, nodes are put into so many by how long they take. ``buffer`` of one tier train together and wait for
    one another; what they trained counts as it is.
    """

    concurrency: int
    buffer: int
    discount: Discount
    most_stale: int
    moved: bool
    tiers: int = 0

    @property
    def wanted(self) -> int:
        """How many nodes have to train for every model to have its updates."""
        return self.buffer * max(1, self.tiers)

    def never_full(self, policy: str, asks: str) -> str:
        """Return the sentence about fewer nodes than are wanted; ``asks`` says how many are asked, and what to do."""
        if self.tiers:
            what = f"the tiers would never be full: {policy} lets {self.wanted} nodes train"
            return f"{what}, and {asks}, or take fewer of each tier"
        what = f"the buffer would never be full: {policy} makes a model of {self.wanted} updates"
        return f"{what}, and {asks}, or take a smaller buffer"


class Policy(NamedTuple):
    """When the training phase of a round is over.

    ``enough(cohort)`` is how many accepted updates are enough, None for all that come. With a ``deadline``, nodes have
    so long. With an ``overlap``, nodes train while the model moves on. In any case a round with fewer than
    ``min_updates`` of the strategy fails.
    """

    name: str
    enough: Callable[[int], int] | None = None
    deadline: Deadline | None = None
    overlap: Overlap | None = None


def synchronous() -> Policy:
    """Wait for everyone who was asked, or given up: McMahan et al. 2017, arXiv:1602.05629."""
    return Policy("synchronous()")


def quorum(
    share: float = 1.0,
    *,
    quantile: float | None = None,
    factor: float = _FACTOR,
    first_deadline: float | None = None,
) -> Policy:
    """Wait for a share of the cohort, or until a deadline that is learned: Bonawitz et al. 2019, arXiv:1902.01046.

    To train with n of the updates that come first, ask ``n / share`` nodes: over-selection. Those that come later are
    given up. Which updates come first is not in the seed: the arrivals are in the round's report, and
    ``umbel.engines.Replay`` leads them to the same model. All of this is about training: an evaluation waits for
    every node that evaluates, until its message's time to live is over.

    Args:
        share: which share of the cohort is enough, above 0 and at most 1, rounded up.
        quantile: learn a deadline from what this share of the nodes that answered last took at most, above 0 and at
            most 1; None for no deadline. None that is learned is shorter than a second.
        factor: how many times as long the deadline is, 1 or more; with a quantile or a first deadline.
        first_deadline: seconds for the first round, in which nothing is known; None for no limit.

    Raises:
        StrategyError: for numbers out of range, and a factor of no deadline.

    """
    limits = (quantile is None or 0 < quantile <= 1) and 1 <= factor < inf
    if not (0 < share <= 1 and limits and (first_deadline is None or 0 < first_deadline < inf)):
        numbers = (share, quantile, factor, first_deadline)
        raise StrategyError(
            f"expected shares up to 1, a factor of 1 or more and seconds above 0, got {numbers!r}", at="policy"
        )
    learned = quantile is not None or first_deadline is not None
    if not learned and factor != _FACTOR:
        raise StrategyError(
            f"a factor of {factor!r} stretches a deadline, and there is none: give a quantile to learn one from, or a "
            "first_deadline",
            at="policy",
        )
    deadline = Deadline(1.0 if quantile is None else quantile, factor, first_deadline) if learned else None
    name = f"quorum({share!r}, quantile={quantile!r}, factor={factor!r}, first_deadline={first_deadline!r})"
    return Policy(name, None if share == 1 else partial(_share, share), deadline)


def buffered(*, concurrency: int, buffer: int = 10, exponent: float = 0.5, most_stale: int = 100) -> Policy:
    """Make a new model of every ``buffer`` updates, while nodes go on: FedBuff, Nguyen et al. 2022, arXiv:2106.06639.

    With s the staleness of an update (how many models were made while it was trained), the steps that nodes took from
    the models they were sent, each times ``(1 + s)**-exponent``, are the updates of the next model. There is no
    deadline: a node that never answers holds its place until its message's time to live is over, or ``most_stale``
    gives it up. When everyone was asked and nobody trains any more, fewer than ``buffer`` make a model, but not fewer
    than ``min_updates`` of the strategy.

    Args:
        concurrency: how many nodes train at a time; all of them, if there are no more.
        buffer: K of the paper, at least 1 and at most ``concurrency``.
        exponent: 0 or more; 1/2 in the paper, 0 to count all the same.
        most_stale: give up nodes whose update would be staler than this; 0 or more.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require_overlap(concurrency, buffer, exponent, most_stale)
    name = f"buffered(concurrency={concurrency}, buffer={buffer}, exponent={exponent!r}, most_stale={most_stale})"
    return Policy(name, overlap=Overlap(concurrency, buffer, partial(_polynomial, exponent), most_stale, moved=True))


def mixed(*, concurrency: int, exponent: float = 0.5, most_stale: int = 100) -> Policy:
    """Mix every update into the model as it comes: FedAsync, Xie, Koyejo and Gupta 2019, arXiv:1903.03934.

    With s its staleness, the update of the next model lies ``(1 + s)**-exponent`` of the way from the model to what the
    node trained; how much of that is taken (alpha of the paper) is the learning rate of the server's optimizer.

    Args:
        concurrency: how many nodes train at a time.
        exponent: a of the paper's polynomial discount, 0 or more.
        most_stale: give up nodes whose update would be staler than this; 0 or more.

    Raises:
        StrategyError: for numbers out of range.

    """
    _require_overlap(concurrency, 1, exponent, most_stale)
    name = f"mixed(concurrency={concurrency}, exponent={exponent!r}, most_stale={most_stale})"
    return Policy(name, overlap=Overlap(concurrency, 1, partial(_polynomial, exponent), most_stale, moved=False))


def tiered(count: int, *, number: int = 5, most_stale: int = 100) -> Policy:
    """Wait for nodes of one tier, and never for another: FedAT, Chai et al. 2020, arXiv:2010.05958.

    Nodes are sorted by the seconds that they last took and cut into tiers of one size, anew for each model; those that
    were never asked are first, and those that have not answered yet last. ``count`` nodes of each tier train together.
    When all of them have answered, or are lost, their updates make a model, from which the tier goes on, while the
    others train. How the models of tiers become one is for the optimizer ``umbel.optimizers.across(number)``.

    Args:
        count: how many nodes of each tier train, at least 1.
        number: how many tiers there are, at least 1 (M of the paper); while few nodes are there, fewer, so that each
            has as many as a model needs updates.
        most_stale: give up nodes whose update would be staler than this, in models; 0 or more. A tier waits so long
            for a node that is dead.

    Raises:
        StrategyError: for numbers out of range; in a run that begins with fewer nodes than train together.

    """
    if not (type(count) is type(number) is type(most_stale) is int and min(count, number) >= 1 and most_stale >= 0):
        numbers = (count, number, most_stale)
        raise StrategyError(
            "expected whole numbers, at least 1 node of each tier, at least 1 tier and a staleness of 0 or more, got "
            f"{numbers!r}",
            at="policy",
        )
    name = f"tiered({count}, number={number}, most_stale={most_stale})"
    plan = Overlap(count * number, count, _in_full, most_stale, moved=False, tiers=number)
    return Policy(name, overlap=plan)


def _in_full(staleness: int) -> float:
    del staleness
    return 1.0


def _share(share: float, cohort: int) -> int:
    return max(1, ceil(round(share * cohort, 9)))


def _polynomial(exponent: float, staleness: int) -> float:
    """Return ``(1 + staleness)**-exponent``, rounded so that no power function of any machine can be told."""
    if exponent == _HALF:
        return 1.0 / sqrt(1 + staleness)
    return float(f"{(1 + staleness) ** -exponent:.12g}")


def _require_overlap(concurrency: int, buffer: int, exponent: float, most_stale: int) -> None:
    counts = type(concurrency) is type(buffer) is type(most_stale) is int
    if not (counts and 1 <= buffer <= concurrency and most_stale >= 0 and exponent >= 0 and isfinite(exponent)):
        hint = f": take a buffer of at most {concurrency}" if counts and 1 <= concurrency < buffer else ""
        raise StrategyError(
            "expected a buffer of at least 1 update and at most as many as nodes train at a time, an exponent and a "
            f"staleness of 0 or more, got {concurrency=}, {buffer=}, {exponent=}, {most_stale=}{hint}",
            at="policy",
        )
