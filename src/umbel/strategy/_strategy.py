"""A strategy: the parts of a round, each of them replaceable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeAlias

from umbel.aggregation import Aggregator, weighted_mean
from umbel.errors import StrategyError
from umbel.gate import Gate
from umbel.message import MessageType
from umbel.optimizers import Optimizer, replace
from umbel.records import ConfigsRecord, ParametersRecord, RecordSet
from umbel.strategy._companion import Companion, aggregator_name, function_name
from umbel.strategy._fit import (
    require_fold,
    require_lengths,
    require_models,
    require_names,
    require_one_line,
    require_room,
    require_several,
    require_sums,
    require_tiers,
    require_told,
    require_use,
)
from umbel.strategy._policy import Overlap, Policy, synchronous
from umbel.strategy._selectors import Selector, everyone
from umbel.transforms import Transform
from umbel.transforms._transform import require_order

Instruct: TypeAlias = Callable[[RecordSet, int], RecordSet]

# What a reply to a model looks like, given the model.
Answer: TypeAlias = Callable[[ParametersRecord], ParametersRecord]

_TRAIN: Final = str(MessageType.TRAIN)
_QUERY: Final = str(MessageType.QUERY)
# How a function of one's own becomes a part.
_OF_A_FUNCTION: Final = {
    "select": 'Selector("{0}", {1})',
    "evaluate": 'Selector("{0}", {1})',
    "aggregator": "weighted_mean({1})",
    "optimizer": 'elementwise("{0}", {1})',
}


class Strategy(NamedTuple):
    """How a round goes, as values: who is asked, what they are told, and how their answers become the next model.

    ``select`` chooses the cohort that trains, ``evaluate`` the one that evaluates the new model (None: nobody).
    ``instruct(content, round)`` returns what the cohort is sent, given what it would be sent. ``gate`` decides which
    updates count; the ``aggregator`` makes one of them, from which the ``optimizer`` makes the next model. With
    ``statistics``, every node is asked for sums before the first round, and every instruction carries their total.
    A round with fewer accepted updates than ``min_updates`` fails. ``companions`` are records that are trained beside
    the model; arrays whose names match a pattern of ``local`` stay on the nodes and are no part of the server's model.
    ``policy`` says when the training phase of a round is over; ``phase`` is the type of its messages, "query" for
    what trains nothing. ``answer(model)`` is a record like those that are replied to a model, if these are not like it.
    ``transforms`` are what nodes do to their models before they reply, in order, and what is undone before the gate.

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
    companions: tuple[Companion, ...] = ()
    local: tuple[str, ...] = ()
    policy: Policy = synchronous()
    phase: str = _TRAIN
    answer: Answer | None = None
    transforms: tuple[Transform, ...] = ()

    def describe(self) -> dict[str, str]:
        """Return the names of the parts: two strategies that differ in a number differ here."""
        described = {
            "name": self.name,
            "select": self.select.name,
            "instruct": function_name(self.instruct),
            "aggregator": aggregator_name(self.aggregator),
            "optimizer": self.optimizer.name,
            "gate": repr(self.gate),
            "evaluate": "nobody" if self.evaluate is None else self.evaluate.name,
            "statistics": str(self.statistics),
            "min_updates": str(self.min_updates),
        }
        if self.companions:
            described["companions"] = "; ".join(companion.describe() for companion in self.companions)
        if self.local:
            described["local"] = ", ".join(map(repr, self.local))
        if self.policy != synchronous():
            described["policy"] = self.policy.name
        if self.phase != _TRAIN:
            described["phase"] = self.phase
        if self.answer is not None:
            described["answer"] = function_name(self.answer)
        if self.transforms:
            described["transforms"] = ", ".join(each.name for each in self.transforms)
        return described


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
    companions: Companion | Sequence[Companion] = (),
    local: Sequence[str] = (),
    policy: Policy | None = None,
    phase: str = _TRAIN,
    answer: Answer | None = None,
    transforms: Transform | Sequence[Transform] = (),
    name: str = "strategy",
) -> Strategy:
    """Put a strategy together: select x instruct x transforms x gate x aggregate x optimize.

    What is left out is FedAvg's: everyone, the model as it is, the mean by examples, which replaces the model; nobody
    evaluates. See ``Strategy`` for what each part does. A round requires at least as many updates as its aggregators
    take, whatever ``min_updates`` says.

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
        companions=(companions,) if isinstance(companions, Companion) else tuple(companions),
        local=(local,) if isinstance(local, str) else tuple(local),
        policy=synchronous() if policy is None else policy,
        phase=str(phase),
        answer=answer,
        transforms=(transforms,) if isinstance(transforms, Transform) else tuple(transforms),
    )
    _require_kinds(whole)
    aggregators = [whole.aggregator, *(companion.aggregator for companion in whole.companions)]
    whole = whole._replace(min_updates=max(min_updates, *(each.least for each in aggregators)))
    _require_sense(whole, min_updates)
    return whole


def tell(**values: bool | float | str | list[str]) -> Instruct:
    """Return the instruction that adds values to the config that a cohort is sent; "_" in a name becomes "-"."""
    return partial(_tell, tuple((name.replace("_", "-"), value) for name, value in values.items()))


def _tell(
    values: tuple[tuple[str, bool | float | str | list[str]], ...],
    content: RecordSet,
    round: int,  # noqa: A002 - the field's word
) -> RecordSet:
    del round
    told = RecordSet(content.parameters_records, content.metrics_records, content.configs_records)
    told.configs_records["config"] = ConfigsRecord({**content.configs_records["config"], **dict(values)})
    return told


def _told(instruct: Instruct) -> Mapping[str, Any] | None:
    """Return what an instruction adds to the config, or None for one of somebody's own, of which nobody knows."""
    if instruct is as_is:
        return {}
    return dict(instruct.args[0]) if isinstance(instruct, partial) and instruct.func is _tell else None


def _require_kinds(whole: Strategy) -> None:
    for part, value, kind in _kinds(whole):
        if not isinstance(value, kind):
            expected = getattr(kind, "__name__", str(kind))
            came = f"{type(value).__name__} {value!r:.80}{_hint(part, value)}"
            raise StrategyError(f"expected {expected}, got {came}", at=part)
    require_order(whole.transforms)
    if not callable(whole.instruct):
        raise StrategyError(f"expected a function (content, round) -> content, got {whole.instruct!r}", at="instruct")


def _hint(part: str, value: object) -> str:
    """Say how what was given becomes a part."""
    if isinstance(value, Strategy):
        return f": it is a whole strategy, whose part is {part}={value.name}(...).{part}"
    if isinstance(value, partial) and part in _OF_A_FUNCTION:
        return f": make one of it, {part}={_OF_A_FUNCTION[part].format('mine', '...')}"
    if not isinstance(value, FunctionType):
        return ""
    name = value.__name__
    if part not in _OF_A_FUNCTION or value.__module__.startswith("umbel."):
        return f": call it, {part}={name}(...)"
    title, function = (name, name) if name.isidentifier() else ("mine", "lambda ...")
    made = _OF_A_FUNCTION[part].format(title, function)
    return f": make one of it, {part}={made}, or call it if it makes one"


def _kinds(whole: Strategy) -> Iterator[tuple[str, Any, Any]]:
    yield "name", whole.name, str
    yield "select", whole.select, Selector
    yield "aggregator", whole.aggregator, Aggregator
    yield "optimizer", whole.optimizer, Optimizer
    yield "gate", whole.gate, Gate
    yield "evaluate", whole.evaluate, Selector | None
    yield "statistics", whole.statistics, bool
    yield "min_updates", whole.min_updates, int
    yield "policy", whole.policy, Policy
    yield from (("companions", companion, Companion) for companion in whole.companions)
    yield from (("local", pattern, str) for pattern in whole.local)


def _require_sense(whole: Strategy, min_updates: int) -> None:
    if min_updates < 1:
        raise StrategyError(
            f"a round needs an update to train from, so min_updates is at least 1, not {min_updates}",
            at="min_updates",
        )
    if whole.phase not in (_TRAIN, _QUERY):
        raise StrategyError(f"expected messages of type {_TRAIN!r} or {_QUERY!r}, got {whole.phase!r:.80}", at="phase")
    if whole.aggregator.name == "total" and whole.phase == _TRAIN:
        raise StrategyError(
            "the sum of models is no model: total() is for statistics, train with a mean", at="aggregator"
        )
    if whole.select.most is not None and whole.min_updates > whole.select.most:
        raise StrategyError(
            f"every round would fail: {whole.min_updates} updates are required of a cohort of {whole.select.most}",
            at="min_updates",
        )
    if whole.transforms and (whole.phase != _TRAIN or whole.answer is not None):
        raise StrategyError(
            "transforms work on the difference of a trained model from the one that was sent, and answers to queries "
            "are no models",
            at="transforms",
        )
    if whole.transforms and whole.aggregator.opaque:
        raise StrategyError(
            f"transforms work on numbers, and what {whole.aggregator.name} takes is bytes, which have no difference",
            at="transforms",
        )
    if whole.policy.overlap is not None:
        _require_overlap(whole, whole.policy.overlap)
    if whole.phase == _QUERY:
        _require_query(whole)
    require_names(whole.companions)
    _require_together(whole)


def _require_together(whole: Strategy) -> None:
    """Raise ``StrategyError`` for two parts that do not go together."""
    together = _most_together(whole)
    for part in (Companion("model", _itself, whole.aggregator, whole.optimizer, whole.gate), *whole.companions):
        require_fold(part.aggregator)
        require_sums(whole.aggregator, part.optimizer)
        require_tiers(whole.policy, part.optimizer)
        require_use(part.aggregator, together)
        require_room(part)
        require_lengths(part)
    require_one_line(whole.aggregator, whole.policy)
    require_several(whole.select, whole.policy)
    if (told := _told(whole.instruct)) is not None:
        require_told(told, whole.optimizer)
    if whole.phase == _TRAIN and whole.answer is None:
        require_models(whole.optimizer)


def _require_overlap(whole: Strategy, overlap: Overlap) -> None:
    if whole.min_updates > overlap.buffer:
        where = "a tier" if overlap.tiers else "a buffer"
        raise StrategyError(
            f"every round would fail: {whole.min_updates} updates are required of {where} of {overlap.buffer}",
            at="min_updates",
        )
    if whole.select.most is not None and whole.select.most < overlap.wanted:
        asks = f"{whole.select.name} asks no more than {whole.select.most} for each model: ask more nodes"
        raise StrategyError(overlap.never_full(whole.policy.name, asks), at="policy")
    if whole.companions or whole.answer is not None:
        raise StrategyError(
            "records beside the model belong to one version of it, and nodes that train while it moves on have "
            "several: use a policy that waits",
            at="companions",
        )
    if whole.phase == _QUERY:
        raise StrategyError(
            "what nodes count does not move with the model: a query needs a policy that waits for all who are asked",
            at="policy",
        )
    if whole.evaluate is not None:
        raise StrategyError(
            "nodes evaluate between two rounds, and rounds that overlap have no between: evaluate=None, and measure "
            "each new model where the run is (evaluate of simulate)",
            at="evaluate",
        )


def _require_query(whole: Strategy) -> None:
    if whole.companions:
        raise StrategyError(
            "a query trains nothing, and companions are trained beside the model: let the nodes answer with one record "
            "that holds all of it, and say in answer what it looks like",
            at="companions",
        )
    if whole.optimizer.trains:
        raise StrategyError(
            f"a query trains nothing, and {whole.optimizer.name} takes the answers for models that nodes trained: "
            'use replace() or an optimizer of your own, or phase="train"',
            at="optimizer",
        )


def _most_together(whole: Strategy) -> int | None:
    """Return how many updates can come together at most, or None if that depends on how many nodes there are."""
    policy, most = whole.policy, whole.select.most
    if policy.overlap is not None:
        return policy.overlap.buffer
    if most is None or policy.enough is None:
        return most
    return min(most, max(policy.enough(most), whole.min_updates))


def _itself(model: ParametersRecord) -> ParametersRecord:
    return model
