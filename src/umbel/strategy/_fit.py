"""Which parts go together: each says of itself what it needs, and what does not make sense is refused in a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from umbel.aggregation import Aggregator
from umbel.errors import StrategyError
from umbel.optimizers import Optimizer
from umbel.strategy._companion import Companion
from umbel.strategy._policy import Policy
from umbel.strategy._selectors import Selector

# Records that instructions and states have already.
_TAKEN: Final = ("model", "statistics", "optimizer", "nodes", "clock", "flight")

_OF_A_FOLD: Final = ("streaming", "start", "add", "finish")


def require_names(companions: Sequence[Companion]) -> None:
    """Raise ``StrategyError`` for companions of one name, or of one that something else has."""
    names = [companion.name for companion in companions]
    for name in names:
        if name in _TAKEN or not name or "." in name or names.count(name) > 1:
            raise StrategyError(
                f"expected companions with names of their own, not {', '.join(_TAKEN)} and without a dot, got {name!r}",
                at="companions",
            )


def require_fold(aggregator: Aggregator) -> None:
    """Raise ``StrategyError`` for a fold of one's own that has not all of what every fold has."""
    fold = aggregator.reduce
    missing = [name for name in _OF_A_FOLD if not hasattr(fold, name)]
    if missing:
        raise StrategyError(
            f"expected a fold (umbel.aggregation.Fold) as reduce of {aggregator.name}, with {', '.join(_OF_A_FOLD)}, "
            f"got a {type(fold).__name__} without {', '.join(missing)}",
            at="aggregator",
        )


def require_use(aggregator: Aggregator, together: int | None) -> None:
    """Raise ``StrategyError`` for a rule that has nothing to choose from, or cannot take what comes."""
    if together is None:
        return
    if together < aggregator.useful_from:
        raise StrategyError(
            f"{aggregator.name} does no more than average or pass on fewer than {aggregator.useful_from} updates, and "
            f"no more than {together} come together: ask more nodes, take a larger buffer, or use weighted_mean()",
            at="aggregator",
        )
    if aggregator.most is not None and together > aggregator.most:
        raise StrategyError(
            f"{aggregator.name} takes {aggregator.most} update of a round, and {together} can come together: "
            "ask fewer nodes, such as in_turn()",
            at="aggregator",
        )


def require_room(part: Companion) -> None:
    """Raise ``StrategyError`` for arrays that grow where the gate or the optimizer does not let them."""
    opaque = part.aggregator.opaque
    if not opaque:
        return
    names = ", ".join(map(repr, opaque))
    missing = [name for name in opaque if name not in part.gate.any_length]
    if missing or part.gate.max_norm is not None:
        raise StrategyError(
            f"the arrays of {part.aggregator.name} grow, so that updates have another length than the model and no "
            f"distance from it, and this gate would refuse them: Gate(any_length=({names},)) does not",
            at="gate",
        )
    if part.optimizer.by_element:
        raise StrategyError(
            f"{part.optimizer.name} steps from element to element, and the arrays of {part.aggregator.name} grow: use "
            "replace()",
            at="optimizer",
        )


def require_tiers(policy: Policy, optimizer: Optimizer) -> None:
    """Raise ``StrategyError`` unless the tiers that are waited for one by one are those whose models become one."""
    tiers = 0 if policy.overlap is None else policy.overlap.tiers
    if tiers == optimizer.tiers:
        return
    if not optimizer.tiers:
        raise StrategyError(
            f"{policy.name} makes a model for each of {tiers} tiers, and {optimizer.name} does not know them apart: "
            f"use across({tiers})",
            at="optimizer",
        )
    raise StrategyError(
        f"{optimizer.name} wants a policy of {optimizer.tiers} tiers, and {policy.name} has {tiers or 'none'}: use "
        f"tiered(..., number={optimizer.tiers})",
        at="policy",
    )


def require_sums(aggregator: Aggregator, optimizer: Optimizer) -> None:
    """Raise ``StrategyError`` for an optimizer that would miss sums."""
    missing = [name for name in optimizer.needs if name not in aggregator.measures]
    if missing:
        raise StrategyError(
            f"the optimizer {optimizer.name} works with the sums of {', '.join(map(repr, missing))} over a round, "
            f"which the aggregator {aggregator.name} does not measure: use both parts of one strategy",
            at="optimizer",
        )


def require_lengths(part: Companion) -> None:
    """Raise ``StrategyError`` for a gate that lets through what the aggregator cannot take, at the end of the run."""
    free = tuple(name for name in part.gate.any_length if name not in part.aggregator.opaque)
    if free:
        raise StrategyError(
            f"the gate lets {', '.join(map(repr, free))} have any length, and {part.aggregator.name} takes what is as "
            "long as the model's, so that one other update would end the run: leave it out of any_length, or say "
            f"opaque={free!r} of an aggregator of your own",
            at="gate",
        )


def require_told(told: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise ``StrategyError`` for half of an algorithm, whose nodes are not told that there is another."""
    for name, number in optimizer.tells.items():
        if told.get(name) != number:
            came = f"{told[name]!r:.40}" if name in told else "nothing of it"
            raise StrategyError(
                f"{optimizer.name} is the server's half of an algorithm, of whose other half nodes are told {name!r}, "
                f"{number!r}, and instruct tells them {came}: use instruct=tell({name.replace('-', '_')}={number!r}), "
                "or another optimizer",
                at="optimizer",
            )


def require_models(optimizer: Optimizer) -> None:
    """Raise ``StrategyError`` for an optimizer that has no use for models."""
    if optimizer.adds:
        raise StrategyError(
            f"{optimizer.name} adds what comes to what was there, and the mean of trained models is no change of one: "
            "use replace() or sgd(...); it is for companions that are replied as changes, and for answers to queries",
            at="optimizer",
        )


def require_several(select: Selector, policy: Policy) -> None:
    """Raise ``StrategyError`` for a share of one node."""
    if select.most == 1 and policy.enough is not None:
        raise StrategyError(
            f"{policy.name} does not wait for all who are asked, and {select.name} asks one node at a time: leave the "
            "share out, which is of no use, or ask more nodes",
            at="policy",
        )


def require_one_line(aggregator: Aggregator, policy: Policy) -> None:
    """Raise ``StrategyError`` where what grows from node to node would be in several hands at a time."""
    overlap = policy.overlap
    if overlap is not None and overlap.concurrency > 1 and aggregator.most == 1 and aggregator.opaque:
        raise StrategyError(
            f"{aggregator.name} takes what grew from the model of today, and of {overlap.concurrency} nodes that train "
            "at a time all but one have an older one: use concurrency=1, or in_turn() and synchronous()",
            at="policy",
        )
