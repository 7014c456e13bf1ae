"""The seam of reductions, and the linear ones: sums and means, folded batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from sys import float_info
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Columns, Slot, columns, plain, slots, to_record, view
from umbel.aggregation._memory import Memory
from umbel.aggregation._passes import Batch, add_up, batch, fold, store
from umbel.aggregation._shares import Member, Piece, Room, Share, groups_of, shares_of
from umbel.aggregation._solid import Solids, add_solid, fault_in, groups_in, layout_of, solids_of
from umbel.aggregation._update import Update
from umbel.aggregation._weights import Scale, Step
from umbel.errors import AggregationError
from umbel.records import Array, ParametersRecord
from umbel.records._arena import allocate
from umbel.records._parameters import record_over
from umbel.records._solid import Layout
from umbel.records._threads import cores, side_by_side

_RAW: Final = "raw"
_Table: TypeAlias = Mapping[str, Array]
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


class _Accumulator:
    """The result in the making: its memory, which is taken when the first update comes, and the scale so far."""

    __slots__ = ("columns", "kinds", "last", "layout", "rooms", "scale", "shares", "slots", "spent", "totals", "whole")

    def __init__(self, layout: tuple[Slot, ...], kinds: list[Kind]) -> None:
        self.slots, self.kinds = layout, kinds
        self.totals = {kind.total for kind in kinds}
        self.rooms: list[Room] = []
        self.layout: Layout | None = None
        self.whole: NDArray[Any] = np.empty(0, np.uint8)
        self.shares: list[Share] = []
        self.columns: Columns | None = None
        self.scale = Scale()
        self.last: str | None = None
        self.spent = False

    def open(self, memory: Memory, threads: int, layout: Layout | None, *, kept: bool) -> None:
        """Allocate the result, and sums that outlive a pass if they are ``kept`` for arrays that cannot hold them.

        With a ``layout``, the result is solid.
        """
        self.layout = layout
        if layout is None:
            groups = groups_of(self.slots, self.kinds)
            outs = memory.allocate([(group.kind.view, group.size) for group in groups])
        else:
            groups = groups_in(layout, {slot.dtype: kind for slot, kind in zip(self.slots, self.kinds, strict=True)})
            (self.whole,) = memory.allocate([(self.whole.dtype, layout.size)])
            outs = [np.ndarray(group.size, group.kind.view, self.whole, group.start) for group in groups]
        wanted = [(group.kind.total, group.size) for group in groups if not group.kind.in_place] if kept else []
        totals = iter(allocate(wanted))
        self.rooms = [
            Room(group, out, None if group.kind.in_place else next(totals, None))
            for group, out in zip(groups, outs, strict=True)
        ]
        self.shares = shares_of(self.rooms, threads)
        if any(share.simple for share in self.shares):
            self.columns = columns(self.slots, [kind.view for kind in self.kinds])

    def plain(self, updates: Sequence[Update]) -> list[NDArray[Any]] | None:
        """Return the elements of the only update if nothing is special about it, nor about this sum."""
        return None if self.columns is None or len(updates) > 1 else plain(self.columns, updates[0].record)

    def record(self) -> ParametersRecord:
        """Return the result that is made."""
        if self.layout is not None:
            return record_over(self.layout, memoryview(self.whole).toreadonly(), lasting=True)  # type: ignore[arg-type]  # an array has a buffer
        found = {member.at: room.out[member.part] for room in self.rooms for member in room.group.members}
        return to_record(self.slots, [found[at].view(slot.kind) for at, slot in enumerate(self.slots)])


@dataclass(frozen=True)
class LinearFold:
    """A sum of updates, weighted and then divided or neither, as a fold.

    ``kind_of`` gives the arithmetic of a dtype, ``plan`` the steps that some weights ask for. ``finite`` refuses a
    result with NaN or infinite elements even if the updates had them. At most ``threads`` work on large records, None
    for as many as there are cores. ``memory`` holds what a result that is gone left.
    """

    kind_of: Callable[[np.dtype[Any]], Kind]
    plan: Callable[[Scale, Sequence[float]], tuple[Scale, list[Step]]]
    finite: bool = True
    streaming: bool = True
    threads: int | None = field(default=None, compare=False)
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    @property
    def proves_finite(self) -> bool:
        """Whether a result is proof that every number of every update was finite: NaN and infinity go through sums."""
        return self.finite

    @property
    def exclusive(self) -> bool:
        """Whether nobody else has the memory of a result."""
        return True

    @property
    def checked(self) -> bool:
        """Whether a result is like the template, and finite where it has to be: each array is checked as it is made."""
        return True

    def start(self, template: ParametersRecord) -> _Accumulator:
        """Return an empty accumulator.

        Raises:
            RecordError: if the template declares a dtype that no record can carry.
            AggregationError: if a dtype cannot be reduced in this way.

        """
        layout = slots(template)
        return _Accumulator(layout, [_kind(slot, self.kind_of) for slot in layout])

    def add(self, acc: _Accumulator, updates: Sequence[Update]) -> _Accumulator:
        """Add some updates. One of weight 0 changes nothing.

        Raises:
            AggregationError: if updates are out of order, have no proper weight, or do not fit the template.

        """
        chosen = chosen_of(acc, updates)
        if chosen:
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
        return acc.record()

    def _run(self, acc: _Accumulator, updates: Sequence[Update], *, last: bool) -> None:
        fresh = acc.scale.added == 0
        scale, steps = self.plan(acc.scale, [update.weight for update in updates])
        acc.spent = True  # until every array is done
        if fresh:
            threads = cores() if self.threads is None else self.threads
            acc.open(self.memory, threads, layout_of(acc.slots, updates), kept=not last)
        divisor = scale.divisor if last else None
        batches = {kind: batch(kind, steps, fresh=fresh, divisor=divisor, finite=self.finite) for kind in acc.totals}
        if acc.layout is not None:
            _run_solid(acc, Solids(acc.layout, solids_of(acc.layout, acc.slots, updates), batches))
        else:
            values = None if fresh or last else acc.plain(updates)
            add = partial(_add_all, updates) if values is None else partial(_add_one, updates, values)
            side_by_side([partial(add, batches, share) for share in acc.shares])
        acc.scale, acc.spent = scale, False


_Batches: TypeAlias = Mapping[np.dtype[Any], Batch]


def _run_solid(acc: _Accumulator, solids: Solids) -> None:
    try:
        side_by_side([partial(add_solid, solids, share) for share in acc.shares])
    except AggregationError:
        found = fault_in(solids, groups_of(acc.slots, acc.kinds), acc.rooms)
        if found is None:
            raise
        raise found from None


def _add_all(updates: Sequence[Update], batches: _Batches, share: Share) -> None:
    tables = [dict(update.record.items()) for update in updates]
    with np.errstate(all="ignore"):
        for piece in share.pieces:
            _fold(piece, updates, tables, batches[piece.place.kind.total])


def _fold(piece: Piece, updates: Sequence[Update], tables: Sequence[_Table], batch: Batch) -> None:
    group, place, part, joined = piece
    (first, *_), kind = group.members, place.kind.view
    if joined is not None:
        add_up(place, (_joined(group.members, joined, *each) for each in zip(tables, updates, strict=True)), batch)
        if batch.divisor is not None:
            for member in group.members:
                _require(member.slot, store(place, member.part, batch))
        return
    arrays = [_values(first.slot, kind, table, update) for table, update in zip(tables, updates, strict=True)]
    if part is not None:
        arrays = [array[part] for array in arrays]
    _require(first.slot, fold(place, arrays, batch))


def _joined(members: Sequence[Member], room: NDArray[Any], table: _Table, update: Update) -> NDArray[Any]:
    np.concatenate([_values(slot, room.dtype, table, update) for _, slot, _ in members], out=room)
    return room


def _require(slot: Slot, problem: str) -> None:
    if problem:
        raise AggregationError(problem, at=f"array {slot.name!r}")


def _values(slot: Slot, kind: np.dtype[Any], table: _Table, update: Update) -> NDArray[Any]:
    """Return what ``view`` does, without its detours: almost every array of every update is as it should be."""
    name, dtype, shape, _, _, nbytes = slot
    array = table.get(name)
    if (
        array is not None
        and array.stype == _RAW
        and array.dtype == dtype
        and array.shape == shape
        and len(array.data) == nbytes
    ):
        return np.frombuffer(array.data, kind)
    return view(slot, kind, update)


def _add_one(updates: Sequence[Update], values: Sequence[NDArray[Any]], batches: _Batches, share: Share) -> None:
    """Add one update to those before it: the step of a loop that takes each update as it comes, at half the cost."""
    multiply, add = np.multiply, np.add
    with np.errstate(all="ignore"):
        for dtype, simple in share.simple.items():
            ((rescale, weight),) = batches[dtype].steps
            for at, total, room in simple:
                if rescale is not None:
                    multiply(total, rescale, total)
                add(total, values[at] if weight is None else multiply(values[at], weight, room), total)
        if share.others:
            table = dict(updates[0].record.items())
            for piece in share.others:
                _fold(piece, updates, [table], batches[piece.place.kind.total])


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
