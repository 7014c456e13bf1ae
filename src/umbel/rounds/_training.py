"""The updates of one round, on their way into one: each accepted as a whole, added in canonical order."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

from umbel.aggregation import Update
from umbel.errors import AggregationError, RoundFailed, UmbelError, UpdateRejected
from umbel.optimizers import Cohort
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._batches import Batches
from umbel.rounds._metrics import MetricMeans, check_weights
from umbel.rounds._state import MODEL, as_records, optimizer_state
from umbel.strategy import Companion, Strategy

# What a reply to a model looks like, given the model.
Answer = Callable[[ParametersRecord], ParametersRecord]
# (model, update) -> what the update is to be on top of the model.
Onto = Callable[[ParametersRecord, ParametersRecord], ParametersRecord]

_HINTS: Final = {MODEL: "reply with the trained model under that name"}


class Contribution(NamedTuple):
    """What one node adds to a round: an update of each record, the model first, and what was measured of it."""

    updates: tuple[Update, ...]
    measured: tuple[float, ...]


class _Record:
    """One record of a round: what trains it, and the updates so far."""

    def __init__(self, part: Companion, state: RecordSet, answer: Answer | None = None) -> None:
        self._name, self._aggregator, self._optimizer = part.name, part.aggregator, part.optimizer
        self.current = state.parameters_records[part.name]
        expected = self.current if answer is None else answer(self.current)
        self._gate, self._check = part.gate, part.gate.against(expected)
        self._kept = optimizer_state(state, self._prefix)
        self._batches = Batches(part.aggregator.reduce, expected)

    @property
    def _prefix(self) -> str:
        return "" if self._name == MODEL else self._name

    def judge(self, node: str, content: RecordSet, sent: ParametersRecord | None = None) -> Update:
        """Return the update of this record, or raise ``UpdateRejected``; ``sent`` is what it is one of, if not ours."""
        record = content.parameters_records.get(self._name)
        if record is None:
            names = ", ".join(map(repr, content.parameters_records)) or "none"
            hint = _HINTS.get(self._name, "the strategy trains it beside the model")
            raise UpdateRejected(
                f"expected a parameters record {self._name!r}, got {names}: {hint}",
                at=f"parameters_records[{self._name!r}]",
            )
        metrics = content.metrics_records
        update = Update(node, _asked("a weight", self._aggregator.weigh, metrics), record, metrics)
        try:
            (self._check if sent is None else self._gate.against(sent))(update)
        except UpdateRejected as error:
            raise UpdateRejected(error.message, at=error.at.replace(f".{MODEL}", f".{self._name}", 1)) from error
        return update

    def measure(self, update: Update) -> tuple[float, ...]:
        """Return what the optimizer wants to know the sums of."""
        return tuple(_finite(name, _asked(name, measure, update, self.current)) for name, measure in self._measures())

    def sums(self, totals: Sequence[float]) -> dict[str, float]:
        """Return the sums by name."""
        return {name: total for (name, _), total in zip(self._measures(), totals, strict=True)}

    def _measures(self) -> Any:
        return self._aggregator.measures.items()

    def add(self, updates: list[Update]) -> None:
        """Add updates, which come in canonical order over all calls."""
        self._batches.add(updates)

    def finish(self, cohort: Cohort) -> Mapping[str, ParametersRecord]:
        """Return the next record and whatever else its optimizer keeps, by record name."""
        try:
            mean = self._batches.finish()
        except AggregationError as error:
            raise RoundFailed(f"the accepted updates do not make a {self._name}: {error}") from error
        kept, following = self._optimizer.update(self._kept, self.current, mean, cohort)
        return {self._name: following, **as_records(kept, self._prefix)}


class Training:
    """One round of training, from replies to the next state."""

    def __init__(self, strategy: Strategy, state: RecordSet, population: int) -> None:
        part = Companion(MODEL, _as_it_is, strategy.aggregator, strategy.optimizer, strategy.gate)
        self._model = _Record(part, state, strategy.answer)
        self._records = [self._model, *(_Record(each, state) for each in strategy.companions)]
        self._accepted, self._population = 0, population
        self._totals = [0.0] * len(strategy.aggregator.measures)
        self.metrics = MetricMeans()

    def judge(self, node: str, content: RecordSet) -> Contribution:
        """Return what a reply contributes, or raise ``UpdateRejected``."""
        updates = tuple(record.judge(node, content) for record in self._records)
        check_weights(content.metrics_records)
        return Contribution(updates, self._model.measure(updates[0]))

    def judge_late(self, node: str, content: RecordSet, sent: ParametersRecord, onto: Onto) -> Contribution:
        """Return what a reply contributes whose model is not this round's: ``onto(model, update)`` makes it fit."""
        update = self._model.judge(node, content, sent)
        check_weights(content.metrics_records)
        update = update._replace(record=onto(self._model.current, update.record))
        return Contribution((update,), self._model.measure(update))

    def add(self, contributions: list[Contribution]) -> None:
        """Add contributions, which come in canonical order over all calls."""
        for place, record in enumerate(self._records):
            record.add([contribution.updates[place] for contribution in contributions])
        for updates, measured in contributions:
            self.metrics.add(updates[0].metrics)
            self._totals = [total + number for total, number in zip(self._totals, measured, strict=True)]
        self._accepted += len(contributions)

    def finish(self) -> Mapping[str, ParametersRecord]:
        """Return the next model, and every other record that the next state has instead of this one's."""
        cohort = Cohort(self._accepted, self._population, self._model.sums(self._totals))
        following: dict[str, ParametersRecord] = {}
        for record in self._records:
            following |= record.finish(cohort)
        return following


def _as_it_is(model: ParametersRecord) -> ParametersRecord:
    return model


def _asked(what: str, function: Callable[..., float], *arguments: object) -> float:
    try:
        return function(*arguments)
    except UmbelError:
        raise
    except Exception as error:  # a function of the user's own meets metrics that a node made up
        raise UpdateRejected(
            f"expected metrics that have {what}, got {type(error).__name__}: {error!s:.200}", at="metrics_records"
        ) from error


def _finite(name: str, number: float) -> float:
    if not isfinite(number):
        raise UpdateRejected(f"expected a finite number, got {number!r} as what the strategy calls {name!r}")
    return number
