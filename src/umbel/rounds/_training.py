"""The updates of one round, on their way into one: each accepted as a whole, added in canonical order."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import isfinite, sqrt
from typing import Final

from umbel.aggregation import Aggregator, Measuring, Proving, Update
from umbel.aggregation._fold import can_prove
from umbel.errors import AggregationError, RoundFailed, UmbelError, UpdateRejected
from umbel.gate import Gate, Verdict
from umbel.optimizers import Cohort
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._metrics import MetricMeans, check_weights
from umbel.rounds._state import MODEL, as_records, optimizer_state
from umbel.rounds._waiting import Contribution, Waiting, can_wait
from umbel.strategy import Companion, Strategy
from umbel.transforms import Transform, undone

# What a reply to a model looks like, given the model.
Answer = Callable[[ParametersRecord], ParametersRecord]
# (model, update) -> what the update is to be on top of the model.
Onto = Callable[[ParametersRecord, ParametersRecord], ParametersRecord]

_HINTS: Final = {MODEL: "reply with the trained model under that name"}


class _Record:
    """One record of a round: what trains it, and the updates so far."""

    def __init__(
        self,
        part: Companion,
        state: RecordSet,
        answer: Answer | None = None,
        transforms: Sequence[Transform] = (),
        *,
        may_wait: bool,
        alone: bool = False,
    ) -> None:
        self._name, self._aggregator, self._optimizer = part.name, part.aggregator, part.optimizer
        self.current = state.parameters_records[part.name]
        self._transforms = transforms
        self._expected = self.current if answer is None else answer(self.current)
        self._gate, self._check = part.gate, part.gate.against(self._expected)
        unproven = replace(part.gate, finite=False, max_norm=None).against(self._expected)
        self._proving = _proving(part.aggregator, part.gate) if may_wait else None
        self._check_layout = None if self._proving is None else unproven
        # Of several records, all of an update count or none.
        is_screened = alone and self._proving is not None and part.gate.max_norm is None
        fold = part.aggregator.reduce
        self._screen = getattr(fold, "screened", None) if is_screened else None
        own = Gate(finite=part.gate.finite, any_length=part.gate.any_length)
        self._check_result = None if getattr(fold, "checked", False) else own.against(self._expected)
        self._kept = optimizer_state(state, self._prefix)
        self._sum = fold.start(self._expected)
        self._measures = tuple(part.aggregator.measures.items())

    @property
    def _prefix(self) -> str:
        return "" if self._name == MODEL else self._name

    def judge(self, node: str, content: RecordSet) -> tuple[Update, bool]:
        """Return the update of this record, and whether its numbers are unproven, or raise ``UpdateRejected``."""
        update = self._found(node, content, self.current)
        late = None if self._screen is None and not can_wait(update) else self._check_layout
        try:
            self._checked(late or self._check, update)
        except UpdateRejected:
            self.check(update)  # numbers that are not finite may come before what is wrong
            raise
        return update, late is not None

    def judge_late(self, node: str, content: RecordSet, sent: ParametersRecord) -> Update:
        """Return the update of a record that was sent before, or raise ``UpdateRejected``."""
        update = self._found(node, content, sent)
        self._checked(self._gate.against(sent), update)
        return update

    def _found(self, node: str, content: RecordSet, sent: ParametersRecord) -> Update:
        record = content.parameters_records.get(self._name)
        if record is None:
            names = ", ".join(map(repr, content.parameters_records)) or "none"
            hint = _HINTS.get(self._name, "the strategy trains it beside the model")
            raise UpdateRejected(
                f"expected a parameters record {self._name!r}, got {names}: {hint}",
                at=f"parameters_records[{self._name!r}]",
            )
        if self._transforms:
            record = undone(content, self._transforms, sent)
        metrics = content.metrics_records
        return Update(node, _asked("a weight", self._aggregator.weigh, metrics), record, metrics)

    def check(self, update: Update) -> None:
        """Raise ``UpdateRejected`` unless the whole gate lets the update pass."""
        self._checked(self._check, update)

    def _checked(self, check: Callable[[Update], Verdict], update: Update) -> None:
        try:
            check(update)
        except UpdateRejected as error:
            raise UpdateRejected(error.message, at=error.at.replace(f".{MODEL}", f".{self._name}", 1)) from error

    def measure(self, update: Update) -> tuple[float, ...]:
        """Return what the optimizer wants to know the sums of."""
        return tuple(_finite(name, _asked(name, measure, update, self.current)) for name, measure in self._measures)

    def sums(self, totals: Sequence[float]) -> dict[str, float]:
        """Return the sums by name."""
        return {name: total for (name, _), total in zip(self._measures, totals, strict=True)}

    def add(self, updates: Sequence[Update]) -> None:
        """Add updates, which come in canonical order over all calls."""
        fold = self._aggregator.reduce
        # A fold that goes through all updates at the end needs them as they are now: a node may use its memory again.
        kept = updates if fold.streaming else [update._replace(record=deepcopy(update.record)) for update in updates]
        self._sum = fold.add(self._sum, kept)

    def screened(self, update: Update) -> bool:
        """Add an update if a look at its numbers on the way shows that all are finite; say whether it was added."""
        return self._screen is not None and self._screen(self._sum, update)

    def proven(self, updates: Sequence[Update]) -> ParametersRecord:
        """Return what all of these updates make, or raise ``AggregationError``: then some may be to blame."""
        fold, proving, bound = self._aggregator.reduce, self._proving, self._gate.max_norm
        if proving is None:  # nobody's numbers wait for a proof
            return self._sound(fold.finish(fold.start(self._expected), updates))
        if bound is None or not isinstance(proving, Measuring):
            return self._sound(proving.proven(self._expected, updates))
        result, squares = proving.measured(self._expected, updates)
        if len(squares) != len(updates) or not all(square >= 0 and sqrt(square) <= bound for square in squares):
            raise AggregationError(f"expected a norm of at most {bound!r} from the model of each", at=self._name)
        return self._sound(result)

    def reduce(self, updates: Sequence[Update]) -> ParametersRecord:
        """Return what all updates make, the last of which come now."""
        fold = self._aggregator.reduce
        try:
            if fold.streaming:
                return self._sound(fold.finish(self._sum, updates))
            self.add(updates)
            return self._sound(fold.finish(self._sum))
        except AggregationError as error:
            raise RoundFailed(f"the accepted updates do not make a {self._name}: {error}") from error

    def _sound(self, result: ParametersRecord) -> ParametersRecord:
        """Return what a fold made, or raise ``AggregationError``: one of the user's own may make anything."""
        if self._check_result is None:
            return result
        made = f"its aggregator {self._aggregator.name!r} made something else than a record like the one before"
        try:
            self._checked(self._check_result, Update("", 1.0, result))
        except UpdateRejected as error:
            raise AggregationError(f"{made}: {error.message}", at=error.at) from error
        if [*result] != [*self._expected]:
            names = ", ".join(map(repr, self._expected))
            raise AggregationError(f"{made}: expected the arrays in the order {names:.200}", at=self._name)
        return result

    def finish(self, mean: ParametersRecord, cohort: Cohort) -> Mapping[str, ParametersRecord]:
        """Return the next record and whatever else its optimizer keeps, by record name; it uses the mean up."""
        is_ours = getattr(self._aggregator.reduce, "exclusive", False)
        step = self._optimizer.consume if is_ours else self._optimizer.update
        kept, following = step(self._kept, self.current, mean, cohort)
        return {self._name: following, **as_records(kept, self._prefix)}


def _proving(aggregator: Aggregator, gate: Gate) -> Proving | None:
    """Return the fold if what it makes proves that its numbers may count, and nobody looks at them before.

    A fold may see on its way whether they are finite, and measure how far they are from the model.
    """
    fold = aggregator.reduce
    if not gate.finite or aggregator.measures or not can_prove(fold):
        return None
    return fold if gate.max_norm is None or isinstance(fold, Measuring) else None


class Training:
    """One round of training, from replies to the next state."""

    def __init__(self, strategy: Strategy, state: RecordSet, population: int) -> None:
        part = Companion(MODEL, _as_it_is, strategy.aggregator, strategy.optimizer, strategy.gate)
        # Whoever waits for the first few has to know at once which of them count.
        may_wait = strategy.policy.enough is None
        alone = not strategy.companions
        self._model = _Record(part, state, strategy.answer, strategy.transforms, may_wait=may_wait, alone=alone)
        self._records = [self._model, *(_Record(each, state, may_wait=may_wait) for each in strategy.companions)]
        self.accepted, self._population = 0, population
        #: Whose updates these are, where tiers do not wait for one another.
        self.tier = 0
        self._totals = [0.0] * len(strategy.aggregator.measures)
        self._waiting = Waiting()
        self._means: list[ParametersRecord] = []
        self._refused: list[tuple[str, str]] = []
        self.metrics = MetricMeans()

    def judge(self, node: str, content: RecordSet) -> Contribution:
        """Return what a reply contributes, or raise ``UpdateRejected``."""
        updates: list[Update] = []
        unproven = False
        try:
            for record in self._records:
                update, is_unproven = record.judge(node, content)
                updates.append(update)
                unproven |= is_unproven
            check_weights(content.metrics_records)
            return Contribution(tuple(updates), self._model.measure(updates[0]), unproven)
        except UpdateRejected:
            # Of all that is wrong, a node is told what comes first, whether or not it would have been looked at now.
            for record, update in zip(self._records, updates, strict=False):
                record.check(update)
            raise

    def judge_late(self, node: str, content: RecordSet, sent: ParametersRecord, onto: Onto) -> Contribution:
        """Return what a reply contributes whose model is not this round's: ``onto(model, update)`` makes it fit."""
        update = self._model.judge_late(node, content, sent)
        check_weights(content.metrics_records)
        update = update._replace(record=onto(self._model.current, update.record))
        return Contribution((update,), self._model.measure(update))

    def add(self, contributions: list[Contribution]) -> None:
        """Add contributions, which come in canonical order over all calls; those that can wait do."""
        for contribution in contributions:
            waits = all(map(can_wait, contribution.updates))
            if waits and self._waiting.put(contribution):
                continue
            before = self._waiting.take()
            if before:
                self._add(self._passed(before))
            if not (waits and self._waiting.put(contribution)):
                self._add_at_once(contribution)

    def settle(self) -> list[tuple[str, str]]:
        """Bring what waits into the sums; return the nodes whose updates do not count after all, with the reasons."""
        waiting = self._waiting.take()
        if not self.accepted and any(contribution.unproven for contribution in waiting):
            try:
                self._means = [record.proven(_updates(waiting, place)) for place, record in enumerate(self._records)]
            except UmbelError:
                waiting = self._passed(waiting)
        else:
            waiting = self._passed(waiting)
        if not self._means and (waiting or self.accepted):
            self._means = [record.reduce(_updates(waiting, place)) for place, record in enumerate(self._records)]
        self._account(waiting)
        return self._refused

    def finish(self) -> Mapping[str, ParametersRecord]:
        """Return the next model, and every other record that the next state has instead of this one's."""
        cohort = Cohort(self.accepted, self._population, self._model.sums(self._totals), self.tier)
        following: dict[str, ParametersRecord] = {}
        for record, mean in zip(self._records, self._means, strict=True):
            following |= record.finish(mean, cohort)
        return following

    def _passed(self, contributions: Sequence[Contribution]) -> list[Contribution]:
        """Return those whose numbers are finite; the others are refused."""
        passed = []
        for contribution in contributions:
            try:
                if contribution.unproven:
                    for record, update in zip(self._records, contribution.updates, strict=True):
                        record.check(update)
                passed.append(contribution)
            except UpdateRejected as error:
                self._refused.append((contribution.node, str(error)))
        return passed

    def _add_at_once(self, contribution: Contribution) -> None:
        if contribution.unproven and self._model.screened(contribution.updates[0]):
            self._account([contribution])
        else:
            self._add(self._passed([contribution]))

    def _add(self, contributions: Sequence[Contribution]) -> None:
        if contributions:
            for place, record in enumerate(self._records):
                record.add(_updates(contributions, place))
            self._account(contributions)

    def _account(self, contributions: Sequence[Contribution]) -> None:
        for updates, measured, _ in contributions:
            self.metrics.add(updates[0].metrics)
            self._totals = [total + number for total, number in zip(self._totals, measured, strict=True)]
        self.accepted += len(contributions)


def _as_it_is(model: ParametersRecord) -> ParametersRecord:
    return model


def _updates(contributions: Sequence[Contribution], place: int) -> list[Update]:
    """Return the updates of one record."""
    return [contribution.updates[place] for contribution in contributions]


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
