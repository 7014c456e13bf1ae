"""The seam of reductions, and the linear ones: sums and means, folded batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, allocate, slots, to_record, views
from umbel.aggregation._passes import Batch, Scratch, batch, run
from umbel.aggregation._update import Update
from umbel.aggregation._weights import Scale, Step
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


class _Room(NamedTuple):
    """Where one array is accumulated."""

    slot: Slot
    kind: Kind
    out: NDArray[Any]
    total: NDArray[Any] | None  # None as long as no sum has to outlive a pass


class _Accumulator:
    """The result in the making, sums in wider dtypes where needed, and the scale of the weights so far."""

    __slots__ = ("last", "rooms", "scale", "scratch", "spent")

    def __init__(self, rooms: list[_Room]) -> None:
        self.rooms = rooms
        most = max((min(room.out.size, room.kind.block) * room.kind.total.itemsize for room in rooms), default=0)
        buffers = np.empty(most, np.uint8), np.empty(most, np.uint8)
        kinds = {room.kind.total for room in rooms}
        self.scratch = {
            kind: Scratch(*(buffer[: most // kind.itemsize * kind.itemsize].view(kind) for buffer in buffers))
            for kind in kinds
        }
        self.scale = Scale()
        self.last: str | None = None
        self.spent = False


@dataclass(frozen=True)
class LinearFold:
    """A sum of updates, weighted and then divided or neither, as a fold.

    ``kind_of`` gives the arithmetic of a dtype, ``plan`` the steps that some weights ask for. ``finite`` refuses a
    result with NaN or infinite elements even if the updates had them.
    """

    kind_of: Callable[[np.dtype[Any]], Kind]
    plan: Callable[[Scale, Sequence[float]], tuple[Scale, list[Step]]]
    finite: bool = True
    streaming: bool = True

    def start(self, template: ParametersRecord) -> _Accumulator:
        """Return an empty accumulator.

        Raises:
            RecordError: if the template declares a dtype that no record can carry.
            AggregationError: if a dtype cannot be reduced in this way.

        """
        layout = slots(template)
        kinds = [_kind(slot, self.kind_of) for slot in layout]
        sizes = [slot.size * slot.kind.itemsize // kind.view.itemsize for slot, kind in zip(layout, kinds, strict=True)]
        outs = allocate([(kind.view, size) for kind, size in zip(kinds, sizes, strict=True)])
        rooms = zip(layout, kinds, outs, strict=True)
        return _Accumulator([_Room(slot, kind, out, out if kind.in_place else None) for slot, kind, out in rooms])

    def add(self, acc: _Accumulator, updates: Sequence[Update]) -> _Accumulator:
        """Add some updates. One of weight 0 changes nothing.

        Raises:
            AggregationError: if updates are out of order, have no proper weight, or do not fit the template.

        """
        chosen = _chosen(acc, updates)
        if chosen:
            if acc.scale.added == 0:
                _keep_totals(acc)
            self._run(acc, chosen, last=False)
        return acc

    def finish(self, acc: _Accumulator, updates: Sequence[Update] = ()) -> ParametersRecord:
        """Return the result.

        Raises:
            AggregationError: if there is no update with a weight above 0, or the result has elements that are not
                finite or outside their dtype; and as ``add`` does.

        """
        chosen = _chosen(acc, updates)
        if not chosen and acc.scale.added == 0:
            raise AggregationError("expected at least one update with a weight above 0, got none")
        self._run(acc, chosen, last=True)
        acc.spent = True
        return to_record([room.slot for room in acc.rooms], [room.out.view(room.slot.kind) for room in acc.rooms])

    def _run(self, acc: _Accumulator, updates: Sequence[Update], *, last: bool) -> None:
        fresh = acc.scale.added == 0
        scale, steps = self.plan(acc.scale, [update.weight for update in updates])
        divisor = scale.divisor if last else None
        batches = {kind: batch(kind, steps, fresh=fresh, divisor=divisor, finite=self.finite) for kind in acc.scratch}
        acc.spent = True  # until every array is done
        with np.errstate(all="ignore"):
            for room in acc.rooms:
                if room.out.size:
                    _reduce(acc, room, updates, batches[room.kind.total])
        acc.scale, acc.spent = scale, False


def _kind(slot: Slot, kind_of: Callable[[np.dtype[Any]], Kind]) -> Kind:
    try:
        return kind_of(slot.kind)
    except AggregationError as error:
        raise AggregationError(error.message, at=f"array {slot.name!r}") from error


def _keep_totals(acc: _Accumulator) -> None:
    totals = iter(allocate([(room.kind.total, room.out.size) for room in acc.rooms if room.total is None]))
    acc.rooms = [room if room.total is not None else room._replace(total=next(totals)) for room in acc.rooms]


def _chosen(acc: _Accumulator, updates: Sequence[Update]) -> list[Update]:
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
        if isinstance(update.weight, bool) or not 0 <= update.weight < inf:
            raise AggregationError(f"expected a weight of 0 or more, got {update.weight!r} from node {update.node!r}")
    acc.last = last
    return [update for update in updates if update.weight]


def _reduce(acc: _Accumulator, room: _Room, updates: Sequence[Update], batch: Batch) -> None:
    kind = room.kind
    arrays = views(room.slot, updates)
    if kind.view is not room.slot.kind:
        arrays = [array.view(kind.view) for array in arrays]
    problem = run(kind, room.total, room.out, arrays, batch, acc.scratch[kind.total])
    if problem:
        raise AggregationError(
            f"{problem}; refuse updates that are not finite (Gate(finite=True)), or send a wider dtype",
            at=f"array {room.slot.name!r}",
        )
