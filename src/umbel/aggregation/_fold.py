"""The seam of reductions, and the linear ones: sums and means, folded batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import float_info
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, slots, to_record, view
from umbel.aggregation._memory import Memory, allocate
from umbel.aggregation._passes import Batch, Place, batch, fold
from umbel.aggregation._update import Update
from umbel.aggregation._weights import Scale, Step
from umbel.errors import AggregationError
from umbel.records import ParametersRecord

_RAW: Final = "raw"
_SPENT: Final = "this accumulator is finished, or was left half done by an error; begin another with start()"


class Fold(Protocol):
    """A reduction of many updates to one record, by three verbs.

    Updates come in canonical order, strictly ascending by node name, in as many batches as suits the caller: the bits
    of the result do not depend on how they are cut. ``streaming`` says whether a batch may be let go of once it has
    been added; a reduction that has to see all updates at once keeps references instead, and works in ``finish``.

    An accumulator belongs to the fold. ``add`` may change it in place, so only what ``add`` returned last is of use,
    and nothing is after ``finish`` or an error.
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


class _Accumulator:
    """The result in the making: flat arrays, where those with elements are accumulated, and the scale so far."""

    __slots__ = ("last", "others", "outs", "places", "scale", "simple", "slots", "spent", "totals")

    def __init__(self, layout: tuple[Slot, ...], kinds: list[Kind], memory: Memory) -> None:
        sizes = [slot.nbytes // kind.view.itemsize for slot, kind in zip(layout, kinds, strict=True)]
        self.outs = memory.allocate([(kind.view, size) for kind, size in zip(kinds, sizes, strict=True)])
        self.slots = layout
        rooms = list(zip(layout, kinds, self.outs, strict=True))
        most = max((min(out.size, kind.block) * kind.total.itemsize for _, kind, out in rooms), default=0)
        work, product = np.empty(most, np.uint8), np.empty(most, np.uint8)
        self.places = [(slot, _place(kind, out, work, product)) for slot, kind, out in rooms if out.size]
        self.totals = {place.kind.total for _, place in self.places}
        self.simple: dict[np.dtype[Any], list[tuple[Slot, NDArray[Any], NDArray[Any]]]] = {}
        for slot, place in self.places:
            if _is_simple(place):
                self.simple.setdefault(place.kind.total, []).append((slot, place.out, place.product))
        self.others: list[tuple[Slot, Place]] = []
        self.scale = Scale()
        self.last: str | None = None
        self.spent = False

    def keep_totals(self) -> None:
        """Allocate sums that outlive a pass, for arrays whose result cannot be their own accumulator."""
        wanted = [(place.kind.total, place.out.size) for _, place in self.places if place.total is None]
        totals = iter(allocate(wanted))
        self.places = [
            (slot, place if place.total is not None else place._replace(total=next(totals)))
            for slot, place in self.places
        ]
        self.others = [(slot, place) for slot, place in self.places if not _is_simple(place)]


def _is_simple(place: Place) -> bool:
    """Say whether adding an update is one multiplication and one addition over the whole array."""
    return place.total is place.out and place.kind.load is None and place.out.size <= place.product.size


def _place(kind: Kind, out: NDArray[Any], work: NDArray[np.uint8], product: NDArray[np.uint8]) -> Place:
    size = min(out.size, kind.block) * kind.total.itemsize
    total = out if kind.in_place else None
    return Place(kind, out, total, work[:size].view(kind.total), product[:size].view(kind.total))


@dataclass(frozen=True)
class LinearFold:
    """A sum of updates, weighted and then divided or neither, as a fold.

    ``kind_of`` gives the arithmetic of a dtype, ``plan`` the steps that some weights ask for. ``finite`` refuses a
    result with NaN or infinite elements even if the updates had them. ``memory`` holds what a result that is gone left.
    """

    kind_of: Callable[[np.dtype[Any]], Kind]
    plan: Callable[[Scale, Sequence[float]], tuple[Scale, list[Step]]]
    finite: bool = True
    streaming: bool = True
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    def start(self, template: ParametersRecord) -> _Accumulator:
        """Return an empty accumulator.

        Raises:
            RecordError: if the template declares a dtype that no record can carry.
            AggregationError: if a dtype cannot be reduced in this way.

        """
        layout = slots(template)
        return _Accumulator(layout, [_kind(slot, self.kind_of) for slot in layout], self.memory)

    def add(self, acc: _Accumulator, updates: Sequence[Update]) -> _Accumulator:
        """Add some updates. One of weight 0 changes nothing.

        Raises:
            AggregationError: if updates are out of order, have no proper weight, or do not fit the template.

        """
        chosen = chosen_of(acc, updates)
        if chosen:
            if acc.scale.added == 0:
                acc.keep_totals()
            self._run(acc, chosen, last=False)
        return acc

    def finish(self, acc: _Accumulator, updates: Sequence[Update] = ()) -> ParametersRecord:
        """Return the result.

        Raises:
            AggregationError: if there is no update with a weight above 0, or the result has elements that are not
                finite or outside their dtype; and as ``add`` does.

        """
        chosen = chosen_of(acc, updates)
        if not chosen and acc.scale.added == 0:
            raise AggregationError("expected at least one update with a weight above 0, got none")
        self._run(acc, chosen, last=True)
        acc.spent = True
        return to_record(acc.slots, [out.view(slot.kind) for slot, out in zip(acc.slots, acc.outs, strict=True)])

    def _run(self, acc: _Accumulator, updates: Sequence[Update], *, last: bool) -> None:
        fresh = acc.scale.added == 0
        scale, steps = self.plan(acc.scale, [update.weight for update in updates])
        divisor = scale.divisor if last else None
        batches = {kind: batch(kind, steps, fresh=fresh, divisor=divisor, finite=self.finite) for kind in acc.totals}
        acc.spent = True  # until every array is done
        with np.errstate(all="ignore"):
            if len(updates) == 1 and not fresh and not last:
                _add_one(acc, updates[0], batches)
            else:
                _add_all(acc, updates, batches)
        acc.scale, acc.spent = scale, False


def _add_all(acc: _Accumulator, updates: Sequence[Update], batches: Mapping[np.dtype[Any], Batch]) -> None:
    for slot, place in acc.places:
        arrays = [view(slot, place.kind.view, update) for update in updates]
        problem = fold(place, arrays, batches[place.kind.total])
        if problem:
            raise _unfit(slot, problem)


def _add_one(acc: _Accumulator, update: Update, batches: Mapping[np.dtype[Any], Batch]) -> None:
    """Add one update to those before it: the step of a loop that takes each update as it comes, at half the cost."""
    multiply, add, frombuffer = np.multiply, np.add, np.frombuffer
    arrays = dict(update.record.items())
    for dtype, simple in acc.simple.items():
        ((rescale, weight),) = batches[dtype].steps
        for slot, total, room in simple:
            name, declared, shape, _, _, nbytes = slot
            array = arrays.get(name)
            if array is None or (array.dtype, array.stype, len(array.data)) != (declared, _RAW, nbytes):
                values = view(slot, dtype, update)
            else:
                values = frombuffer(array.data, dtype) if array.shape == shape else view(slot, dtype, update)
            if rescale is not None:
                multiply(total, rescale, total)
            add(total, values if weight is None else multiply(values, weight, room), total)
    for slot, place in acc.others:
        fold(place, [view(slot, place.kind.view, update)], batches[place.kind.total])


def _kind(slot: Slot, kind_of: Callable[[np.dtype[Any]], Kind]) -> Kind:
    try:
        return kind_of(slot.kind)
    except AggregationError as error:
        raise AggregationError(error.message, at=f"array {slot.name!r}") from error


class Progress(Protocol):
    """What every accumulator knows of the updates that went into it."""

    last: str | None
    spent: bool


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


def _unfit(slot: Slot, problem: str) -> AggregationError:
    return AggregationError(problem, at=f"array {slot.name!r}")
