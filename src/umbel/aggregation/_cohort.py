"""Folds that have to see all updates of a round: they keep references, and work when the last one is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from umbel.aggregation._choices import one_after_the_other
from umbel.aggregation._distances import Distances, distances
from umbel.aggregation._fold import chosen_of, require_all
from umbel.aggregation._kinds import Kind, mean_of
from umbel.aggregation._layout import slots, to_record
from umbel.aggregation._linear import LinearFold
from umbel.aggregation._memory import Memory
from umbel.aggregation._rules import nearest_mean
from umbel.aggregation._stacked import Block, Piece, Place, columns_for, dealt, stacked
from umbel.aggregation._update import Update
from umbel.aggregation._weights import plan
from umbel.errors import AggregationError
from umbel.records import ParametersRecord
from umbel.records._threads import cores, side_by_side

Rule = Callable[[Block, Block], None]
# (distances, weights) -> the share of the model, then that of each update.
Choice = Callable[[Distances, Sequence[float]], list[float]]

_MODEL: Final = ""  # sorts before the name of every node
_NOT_SEEN: Final = "expected updates whose elements are known to be finite"
# Fewer elements, of all updates together, are done before another thread has begun.
_LEAST: Final = 2**20


class _Kept:
    """The updates so far, as references, and the template, whose values are those of the model."""

    __slots__ = ("last", "spent", "template", "updates")

    def __init__(self, template: ParametersRecord) -> None:
        self.template = template
        self.updates: list[Update] = []
        self.last: str | None = None
        self.spent = False


@dataclass(frozen=True)
class CohortFold:
    """A reduction of a whole cohort as a fold: ``reduce(template, updates)`` is a function of all of them."""

    reduce: Callable[[ParametersRecord, list[Update]], ParametersRecord]
    streaming: bool = False
    checked: ClassVar[bool] = True

    @property
    def exclusive(self) -> bool:
        """Whether nobody else has the memory of a result, as far as ``reduce`` says."""
        return getattr(self.reduce, "exclusive", False)

    @property
    def proves_finite(self) -> bool:
        """Whether ``proven`` is there: whether ``reduce`` sees on its way what is not finite."""
        return isinstance(self.reduce, ByElement | ByDistance | Bulyan)

    def start(self, template: ParametersRecord) -> _Kept:
        """Return an empty accumulator. The values of the template are the model that the updates began with.

        Raises:
            RecordError: if the template declares a dtype that no record can carry.

        """
        slots(template)
        return _Kept(template)

    def add(self, acc: _Kept, updates: Sequence[Update]) -> _Kept:
        """Keep references to some more updates. One of weight 0 is left out.

        Raises:
            AggregationError: if updates are out of order or have no proper weight.

        """
        acc.updates += chosen_of(acc, updates)
        return acc

    def finish(self, acc: _Kept, updates: Sequence[Update] = ()) -> ParametersRecord:
        """Return the result.

        Raises:
            AggregationError: if there is no update with a weight above 0, the updates do not fit the template, or the
                result has elements that are not finite; and as ``add`` does.

        """
        self.add(acc, updates)
        acc.spent = True
        if not acc.updates:
            raise AggregationError("expected at least one update with a weight above 0, got none")
        return self.reduce(acc.template, acc.updates)

    def proven(self, template: ParametersRecord, updates: Sequence[Update]) -> ParametersRecord:
        """Return the result of updates that have neither NaN nor infinity, with weights above 0.

        Raises:
            AggregationError: if one may have, or none; and as ``finish`` does.

        """
        if not isinstance(self.reduce, ByElement | ByDistance | Bulyan):
            raise AggregationError(_NOT_SEEN)
        require_all(_Kept(template), updates)
        return replace(self.reduce, strict=True)(template, list(updates))


@dataclass(frozen=True)
class ByElement:
    """A reduction that applies a rule to the values of all updates of each element; weights do not matter.

    At most ``threads`` work on large records, None for as many as there are cores. One that is ``strict`` raises
    ``AggregationError`` if an update has NaN or infinite elements.
    """

    rule: Rule
    finite: bool = True
    strict: bool = False
    exclusive: ClassVar[bool] = True
    threads: int | None = field(default=None, compare=False)
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    def __call__(self, template: ParametersRecord, updates: list[Update]) -> ParametersRecord:
        """Return the result; that of one update is this update, bit for bit."""
        if len(updates) == 1:
            finite = self.finite or self.strict
            return _mean(template, updates, finite=finite, threads=self.threads, memory=self.memory)
        layout = slots(template)
        kinds = [_by_element(mean_of(slot.kind)) for slot in layout]
        outs = self.memory.allocate(
            [(kind.view, slot.nbytes // kind.view.itemsize) for slot, kind in zip(layout, kinds, strict=True)]
        )
        places = [Place(*each) for each in zip(layout, kinds, outs, strict=True)]
        columns = columns_for(len(updates))
        shares = dealt(places, self._useful(sum(place.size for place in places) * len(updates)), columns)
        side_by_side([partial(self._run, share, updates, columns) for share in shares])
        return to_record(layout, [out.view(slot.kind) for slot, out in zip(layout, outs, strict=True)])

    def _useful(self, elements: int) -> int:
        return max(1, min(cores() if self.threads is None else self.threads, elements // _LEAST))

    def _run(self, places: list[Place], updates: list[Update], columns: int) -> None:
        with np.errstate(all="ignore"):
            for rows, pieces in stacked(places, updates, columns):
                total = np.empty(rows.shape[1], rows.dtype)
                if _put_last(rows) and self.strict:
                    raise AggregationError(_NOT_SEEN)
                self.rule(rows, total)
                self._store(total, pieces)

    def _store(self, total: Block, pieces: list[Piece]) -> None:
        for place, out, part in pieces:
            problem = "" if out is None else place.kind.store(total[part], out, 1.0, self.finite)
            if problem:
                raise AggregationError(problem, at=f"array {place.slot.name!r}")


def _by_element(kind: Kind) -> Kind:
    """Return the arithmetic for rules, which put 64-bit integers in order as they are."""
    return kind if kind.begin is None else kind._replace(total=kind.view, load=None, begin=None, store=_store_as_is)


def _store_as_is(total: Block, out: Block, divisor: float, finite: bool) -> str:  # noqa: FBT001 - the signature of all kinds
    del divisor, finite
    np.copyto(out, total)
    return ""


def _put_last(rows: Block) -> bool:
    """Take what is no number for more than any number, so that a rule treats it as the outlier that it is.

    Return whether there is any, or an infinite one.
    """
    if rows.dtype.kind != "f" or np.isfinite(rows).all():
        return False
    rows[np.isnan(rows)] = np.inf
    return True


@dataclass(frozen=True)
class ByDistance:
    """A reduction to a mean of the model and the updates, with shares that are chosen by their distances.

    ``strict`` is as in ``ByElement``.
    """

    choose: Choice
    finite: bool = True
    strict: bool = False
    exclusive: ClassVar[bool] = True
    threads: int | None = field(default=None, compare=False)
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    def __call__(self, template: ParametersRecord, updates: list[Update]) -> ParametersRecord:
        """Return the result."""
        far = _distances(template, updates, self.threads, strict=self.strict)
        shares = self.choose(far, [update.weight for update in updates])
        whole = [Update(_MODEL, 1.0, template), *updates]
        parts = [update._replace(weight=share) for update, share in zip(whole, shares, strict=True)]
        return _mean(template, parts, finite=self.finite, threads=self.threads, memory=self.memory)


@dataclass(frozen=True)
class Bulyan:
    """Krum again and again, then for each element the mean of the chosen values that are nearest to their median."""

    byzantine: int
    finite: bool = True
    strict: bool = False
    exclusive: ClassVar[bool] = True
    threads: int | None = field(default=None, compare=False)
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    def __call__(self, template: ParametersRecord, updates: list[Update]) -> ParametersRecord:
        """Return the result."""
        chosen = one_after_the_other(self.byzantine, _distances(template, updates, self.threads, strict=self.strict))
        nearest = partial(nearest_mean, len(chosen) - 2 * self.byzantine)
        rule = ByElement(nearest, self.finite, threads=self.threads, memory=self.memory)
        return rule(template, [updates[place] for place in chosen])


def _distances(template: ParametersRecord, updates: list[Update], threads: int | None, *, strict: bool) -> Distances:
    """Return the distances; those of an update that is not finite are not, which ``strict`` does not bear."""
    far = distances(template, updates, threads)
    if strict and len(far.alive) < len(updates):
        raise AggregationError(_NOT_SEEN)
    return far


def _mean(template: ParametersRecord, updates: list[Update], **options: Any) -> ParametersRecord:
    fold = LinearFold(mean_of, plan, **options)
    return fold.finish(fold.start(template), updates)
