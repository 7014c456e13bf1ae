"""A strategy: the parts of a round, each of them replaceable."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import NamedTuple, TypeAlias

from umbel.aggregation import Aggregator, weighted_mean
from umbel.errors import StrategyError
from umbel.gate import Gate
from umbel.optimizers import Optimizer, replace
from umbel.records import RecordSet
from umbel.strategy._selectors import Selector, everyone

Instruct: TypeAlias = Callable[[RecordSet, int], RecordSet]


class Strategy(NamedTuple):
    """How a round goes, as values: who is asked, what they are told, and how their answers become the next model.

    ``select`` chooses the cohort that trains, ``evaluate`` the one that evaluates the new model (None: nobody).
    ``instruct(content, round)`` returns what the cohort is sent, given what it would be sent. ``gate`` decides which
    updates count; the ``aggregator`` makes one of them, from which the ``optimizer`` makes the next model. With
    ``statistics``, every node is asked for sums before the first round, and every instruction carries their total.
    A round with fewer accepted updates than ``min_updates`` fails.

    Make one with ``strategy(...)``, which refuses parts that do not go together.
    """

    name: str
    select: Selector
    instruct: Instruct
    aggregator: Aggregator
    optimizer: Optimizer
    gate: Gate
    evaluate: Selector | None
    statistics: bool
    min_updates: int

    def describe(self) -> dict[str, str]:
        """Return the names of the parts: two strategies that differ in a number differ here."""
        return {
            "name": self.name,
            "select": self.select.name,
            "instruct": _name_of(self.instruct),
            "aggregator": f"{self.aggregator.name} by {_name_of(self.aggregator.weigh)}",
            "optimizer": self.optimizer.name,
            "gate": repr(self.gate),
            "evaluate": "nobody" if self.evaluate is None else self.evaluate.name,
            "statistics": str(self.statistics),
            "min_updates": str(self.min_updates),
        }


def _name_of(function: Callable[..., object]) -> str:
    """Return the name of a function, with what is bound to it; of any other callable, that of its class."""
    if isinstance(function, partial):
        bound = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in function.keywords.items())]
        return f"{_name_of(function.func)}({', '.join(bound)})"
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def as_is(content: RecordSet, round: int) -> RecordSet:  # noqa: A002 - the field's word
    """Send the cohort what the loop has: the model, the statistics, the run's config and the round."""
    del round
    return content


def strategy(  # noqa: PLR0913 - a strategy is its parts, each with a name and a default
    *,
    select: Selector | None = None,
    instruct: Instruct = as_is,
    aggregator: Aggregator | None = None,
    optimizer: Optimizer | None = None,
    gate: Gate | None = None,
    evaluate: Selector | None = None,
    statistics: bool = False,
    min_updates: int = 1,
    name: str = "strategy",
) -> Strategy:
    """Put a strategy together: select x instruct x gate x aggregate x optimize.

    What is left out is FedAvg's: everyone, the model as it is, the mean by examples, which replaces the model; nobody
    evaluates. See ``Strategy`` for what each part does.

    Raises ``StrategyError``, with a sentence, for parts that do not go together.
    """
    whole = Strategy(
        name=name,
        select=everyone() if select is None else select,
        instruct=instruct,
        aggregator=weighted_mean() if aggregator is None else aggregator,
        optimizer=replace() if optimizer is None else optimizer,
        gate=Gate() if gate is None else gate,
        evaluate=evaluate,
        statistics=statistics,
        min_updates=min_updates,
    )
    _require_kinds(whole)
    _require_sense(whole)
    return whole


def _require_kinds(whole: Strategy) -> None:
    for part, kind in (
        ("name", str),
        ("select", Selector),
        ("aggregator", Aggregator),
        ("optimizer", Optimizer),
        ("gate", Gate),
        ("evaluate", Selector | None),
        ("statistics", bool),
        ("min_updates", int),
    ):
        value = getattr(whole, part)
        if not isinstance(value, kind):
            expected = getattr(kind, "__name__", str(kind))
            hint = f": call it, {part}={value.__name__}(...)" if isinstance(value, FunctionType) else ""
            raise StrategyError(f"expected {expected}, got {type(value).__name__} {value!r:.80}{hint}", at=part)
    if not callable(whole.instruct):
        raise StrategyError(f"expected a function (content, round) -> content, got {whole.instruct!r}", at="instruct")


def _require_sense(whole: Strategy) -> None:
    if whole.min_updates < 1:
        raise StrategyError(
            f"a round needs an update to train from, so min_updates is at least 1, not {whole.min_updates}",
            at="min_updates",
        )
    if whole.aggregator.name == "total":
        raise StrategyError(
            "the sum of models is no model: total() is for statistics, train with a mean", at="aggregator"
        )
    if whole.select.most is not None and whole.min_updates > whole.select.most:
        raise StrategyError(
            f"every round would fail: {whole.min_updates} updates are required of a cohort of {whole.select.most}",
            at="min_updates",
        )
