"""The seam of reductions: what every fold does, what some can do besides, and in which order updates come."""

from collections.abc import Sequence
from sys import float_info
from typing import Any, Final, Protocol, TypeGuard, runtime_checkable

from umbel.aggregation._update import Update
from umbel.errors import AggregationError
from umbel.records import ParametersRecord

_SPENT: Final = "this accumulator is finished, or was left half done by an error; begin another with start()"


class Fold(Protocol):
    """A reduction of many updates to one record, by three verbs.

    Updates come in canonical order, strictly ascending by node name, in as many batches as suits the caller: the bits
    of the result do not depend on how they are cut. ``streaming`` says whether a batch may be let go of once it has
    been added; a reduction that has to see all updates at once keeps references instead, and works in ``finish``.

    An accumulator belongs to the fold. ``add`` may change it in place, so only what ``add`` returned last is of use,
    and nothing is after ``finish`` or an error.

    A fold may also say that it is ``exclusive``: nobody else has the memory of a result, so the next model may take it.
    And that its results are ``checked``: like the template, and finite where they have to be. Those of any other are
    looked through in each round.
    """

    @property
    def streaming(self) -> bool:
        """Whether the fold needs nothing of a batch any more when ``add`` returns."""

    def start(self, template: ParametersRecord) -> Any:
        """Return an empty accumulator for records with the names, dtypes and shapes of ``template``."""

    def add(self, acc: Any, updates: Sequence[Update]) -> Any:
        """Return the accumulator with some more updates in it."""

    def finish(self, acc: Any, updates: Sequence[Update] = ()) -> ParametersRecord:
        """Return the result: raw arrays with the names, order, dtypes and shapes of the template.

        The last batch may come along. It is then added and finished in one pass over memory, with the same bits.
        """


@runtime_checkable
class Proving(Fold, Protocol):
    """A fold that sees in its pass what is not finite: updates that may wait for one another are spared another one.

    ``proves_finite`` says whether this one does.
    """

    @property
    def proves_finite(self) -> bool:
        """Whether ``proven`` may be asked."""

    def proven(self, template: ParametersRecord, updates: Sequence[Update]) -> ParametersRecord:
        """Return the result of updates, or raise ``AggregationError`` unless all their elements are finite.

        It may raise that of others, too: whoever asks then looks at each.
        """


def can_prove(fold: Fold) -> TypeGuard[Proving]:
    """Say whether a fold is a ``Proving`` one that may be asked; each round does, and protocols are slow to look at."""
    return bool(getattr(fold, "proves_finite", False)) and hasattr(fold, "proven")


@runtime_checkable
class Measuring(Proving, Protocol):
    """A fold that finds norms in its pass, too."""

    def measured(
        self, template: ParametersRecord, updates: Sequence[Update]
    ) -> tuple[ParametersRecord, Sequence[float]]:
        """Return the result of updates, and the squared distance of each from the template."""


@runtime_checkable
class Screening(Fold, Protocol):
    """A fold that looks for NaN and infinity while it adds: updates that cannot wait are spared a look before."""

    def screened(self, acc: Any, update: Update) -> bool:
        """Add an update if all its numbers are finite; False if that was not done, for whatever reason.

        The accumulator is as it was then, and the update may still be added.
        """


class Progress(Protocol):
    """What every accumulator knows of the updates that went into it."""

    last: str | None
    spent: bool


def require_all(acc: Progress, updates: Sequence[Update]) -> None:
    """Raise ``AggregationError`` unless there are updates, each of which counts and is in order."""
    if not updates or len(chosen_of(acc, updates)) < len(updates):
        raise AggregationError("expected updates with weights above 0, got one of 0, or none")


def chosen_of(acc: Progress, updates: Sequence[Update]) -> list[Update]:
    """Return the updates that count, once all are known to be in order and to have a weight."""
    if acc.spent:
        raise AggregationError(_SPENT)
    last = acc.last
    for update in updates:
        if last is not None and update.node <= last:
            raise AggregationError(
                f"expected updates in strictly ascending order of node names, got {update.node!r} after {last!r}; "
                "sort the cohort with canonical(...), and give each node one update"
            )
        last = update.node
        if isinstance(update.weight, bool) or not 0 <= update.weight <= float_info.max:
            raise AggregationError(f"expected a weight of 0 or more, got {update.weight!r} from node {update.node!r}")
    acc.last = last
    return [update for update in updates if update.weight]
