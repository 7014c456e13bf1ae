"""The linear reductions: sums and means, folded batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.aggregation._arrays import Batches, Squares, Table, add_all
from umbel.aggregation._distance import distances_of
from umbel.aggregation._fold import chosen_of, require_all
from umbel.aggregation._kinds import Kind
from umbel.aggregation._layout import Slot, slots, to_record
from umbel.aggregation._memory import Memory
from umbel.aggregation._passes import batch
from umbel.aggregation._screened import Screen, screened_dtype
from umbel.aggregation._shares import Room, Share, groups_of, shares_of
from umbel.aggregation._solid import Solids, add_solid, fault_in, groups_in, layout_of, solids_of
from umbel.aggregation._update import Update
from umbel.aggregation._weights import Scale, Step
from umbel.errors import AggregationError
from umbel.records import ParametersRecord
from umbel.records._arena import allocate
from umbel.records._parameters import record_over
from umbel.records._solid import Layout
from umbel.records._threads import cores, side_by_side


class _Accumulator:
    """The result in the making: its memory, which is taken when the first update comes, and the scale so far."""

    __slots__ = (
        "_shares",
        "_sums",
        "kinds",
        "last",
        "layout",
        "rest",
        "rooms",
        "scale",
        "screen",
        "slots",
        "spent",
        "threads",
        "totals",
        "whole",
    )

    def __init__(self, layout: tuple[Slot, ...], kinds: list[Kind]) -> None:
        self.slots, self.kinds = layout, kinds
        self.totals = {kind.total for kind in kinds}
        self.rooms: list[Room] = []
        self.layout: Layout | None = None
        self.whole: NDArray[Any] = np.empty(0, np.uint8)
        self.threads = 1
        self.screen: Screen | None = None
        self.rest: list[Share] = []
        self._shares: list[Share] | None = None
        self._sums: list[NDArray[Any]] | None = None
        self.scale = Scale()
        self.last: str | None = None
        self.spent = False

    def open(self, memory: Memory, threads: int, layout: Layout | None, *, kept: bool) -> None:
        """Allocate the result, and sums that outlive a pass if they are ``kept`` for arrays that cannot hold them.

        With a ``layout``, the result is solid.
        """
        self.layout, self.threads = layout, threads
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
        dtype = screened_dtype(self.slots, self.kinds) if kept else None
        if dtype is not None:
            self.screen = Screen(self.slots, self.kinds, self.sums, dtype)
        if self.screen is not None:  # whose loop adds what it takes, and nothing else
            rest = [room for room in self.rooms if not self.screen.takes(room.group.kind)]
            self.rest = shares_of(rest, threads) if rest else []

    @property
    def shares(self) -> list[Share]:
        """The work of a pass over all arrays."""
        if self._shares is None:
            self._shares = shares_of(self.rooms, self.threads)
        return self._shares

    @property
    def sums(self) -> list[NDArray[Any]]:
        """The result array by array, as the dtypes that elements are taken as."""
        if self._sums is None:
            self._sums = self._cut()
        return self._sums

    def record(self) -> ParametersRecord:
        """Return the result that is made."""
        if self.layout is not None:
            return record_over(self.layout, memoryview(self.whole).toreadonly(), lasting=True)  # type: ignore[arg-type]  # an array has a buffer
        return to_record(self.slots, [out.view(slot.kind) for out, slot in zip(self.sums, self.slots, strict=True)])

    def _cut(self) -> list[NDArray[Any]]:
        if self.layout is not None:
            rows = zip(self.slots, self.kinds, self.layout.rows, strict=True)
            return [
                np.ndarray(slot.nbytes // kind.view.itemsize, kind.view, self.whole, row.start)
                for slot, kind, row in rows
            ]
        found = {member.at: room.out[member.part] for room in self.rooms for member in room.group.members}
        return [found[at] for at in range(len(self.slots))]


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

    def proven(self, template: ParametersRecord, updates: Sequence[Update]) -> ParametersRecord:
        """Return the result of updates; where the fold ``proves_finite``, it is the proof."""
        return self.finish(self.start(template), updates)

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

    def screened(self, acc: _Accumulator, update: Update) -> bool:
        """Add an update if all its numbers are finite, and if that can be seen on the way; say whether it was added.

        Raises:
            AggregationError: as ``add`` does; the accumulator is as it was then.

        """
        before = acc.last
        chosen, acc.last = chosen_of(acc, [update]), before  # until it is added
        if not chosen or not self.finite or (not acc.rooms and screened_dtype(acc.slots, acc.kinds) is None):
            return False
        self._open(acc, chosen, kept=True)
        if acc.screen is None:
            return False
        fresh = acc.scale.added == 0
        scale, steps = self.plan(acc.scale, [update.weight])
        if not acc.screen.add(update.record, steps[0], fresh=fresh):
            return False
        if acc.rest:
            acc.spent = True  # until every array is done
            _add_up(acc, acc.rest, chosen, self._batches(acc, steps, fresh=fresh))
            acc.spent = False
        acc.last, acc.scale = update.node, scale
        return True

    def finish(self, acc: _Accumulator, updates: Sequence[Update] = ()) -> ParametersRecord:
        """Return the result.

        Raises:
            AggregationError: if there is no update with a weight above 0, or the result has elements that are not
                finite or outside their dtype; and as ``add`` does.

        """
        chosen = chosen_of(acc, updates)
        if not chosen and acc.scale.added == 0:
            raise AggregationError("expected at least one update with a weight above 0, got none")
        if chosen or acc.screen is None or not self.finite:
            self._run(acc, chosen, last=True)
        else:
            self._divide(acc, acc.screen)
        acc.spent = True
        return acc.record()

    def measured(
        self, template: ParametersRecord, updates: Sequence[Update]
    ) -> tuple[ParametersRecord, Sequence[float]]:
        """Return the result of updates, and the squared distance of each from the template, in one pass over memory.

        Both have the bits that ``finish`` and ``squared_distance`` give them. Weights are above 0.

        Raises:
            AggregationError: as ``finish`` does.

        """
        acc = self.start(template)
        require_all(acc, updates)
        found = self._run(acc, updates, last=True, model=dict(template.items()))
        acc.spent = True
        with np.errstate(all="ignore"):
            return acc.record(), distances_of(template, [update.record for update in updates], found)

    def _run(
        self, acc: _Accumulator, updates: Sequence[Update], *, last: bool, model: Table | None = None
    ) -> list[Squares]:
        fresh = acc.scale.added == 0
        scale, steps = self.plan(acc.scale, [update.weight for update in updates])
        acc.spent = True  # until every array is done
        self._open(acc, updates, kept=not last, measured=model is not None)
        divisor = scale.divisor if last else None
        batches = self._batches(acc, steps, divisor, fresh=fresh)
        found = _add_up(acc, acc.shares, updates, batches, model)
        acc.scale, acc.spent = scale, False
        return [squares for share in found for squares in share]

    def _open(self, acc: _Accumulator, updates: Sequence[Update], *, kept: bool, measured: bool = False) -> None:
        """Take memory for the result, which an update that was refused after all may have done already."""
        if acc.rooms:
            return
        # Parts that are measured begin where arrays do, runs of solid updates do not.
        layout = None if measured else layout_of(acc.slots, updates)
        acc.open(self.memory, cores() if self.threads is None else self.threads, layout, kept=kept)

    def _divide(self, acc: _Accumulator, screen: Screen) -> None:
        """Make the result of the sums as they are."""
        acc.spent = True  # until every array is done
        batches, shares = self._batches(acc, [], acc.scale.divisor), acc.rest
        if not screen.divide(acc.scale.divisor):
            # Now there is an error: what is divided already is divided by 1, by whoever can say which array it is in.
            batches = {**batches, screen.dtype: self._batches(acc, [], 1.0)[screen.dtype]}
            shares = acc.shares
        if shares:
            _add_up(acc, shares, [], batches)

    def _batches(
        self, acc: _Accumulator, steps: Sequence[Step], divisor: float | None = None, *, fresh: bool = False
    ) -> Batches:
        return {kind: batch(kind, steps, fresh=fresh, divisor=divisor, finite=self.finite) for kind in acc.totals}


def _add_up(
    acc: _Accumulator, shares: Sequence[Share], updates: Sequence[Update], batches: Batches, model: Table | None = None
) -> list[list[Squares]]:
    if acc.layout is None:
        return side_by_side([partial(add_all, updates, batches, share, model=model) for share in shares])
    _run_solid(acc, shares, Solids(acc.layout, solids_of(acc.layout, acc.slots, updates), batches))
    return []


def _run_solid(acc: _Accumulator, shares: Sequence[Share], solids: Solids) -> None:
    try:
        side_by_side([partial(add_solid, solids, share) for share in shares])
    except AggregationError:
        found = fault_in(solids, groups_of(acc.slots, acc.kinds), acc.rooms)
        if found is None:
            raise
        raise found from None


def _kind(slot: Slot, kind_of: Callable[[np.dtype[Any]], Kind]) -> Kind:
    try:
        return kind_of(slot.kind)
    except AggregationError as error:
        raise AggregationError(error.message, at=f"array {slot.name!r}") from error
