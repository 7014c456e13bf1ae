"""Statistics before training: sums over all nodes of whatever arrays they answer a query with.

What the arrays are is between the apps; the loop adds them up. Sums, sums of squares and counts are enough to
standardise features, and no row leaves a site.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from umbel.aggregation import Update, total
from umbel.errors import AggregationError, RoundFailed, UpdateRejected
from umbel.gate import Gate
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._events import UpdateRefused
from umbel.rounds._gather import Question
from umbel.rounds._state import STATISTICS

_Layout: TypeAlias = tuple[tuple[str, str, tuple[int, ...]], ...]
_MOST_LAYOUTS: Final = 8


def judge_statistics(node: str, content: RecordSet) -> Update:
    """Return what a node's reply adds to the statistics, or raise ``UpdateRejected``."""
    record = content.parameters_records.get(STATISTICS)
    if record is None:
        names = ", ".join(map(repr, content.parameters_records)) or "none"
        raise UpdateRejected(
            f"expected a parameters record {STATISTICS!r} in the reply, got {names}", at="parameters_records"
        )
    update = Update(node, 1.0, record)
    Gate().check(record, update)
    total().reduce.start(record)  # refuses what has no sum, such as bools, while it is known whose it is
    return update


class Totals:
    """Running sums, one for each layout (names, dtypes, shapes) that a node answered with.

    Nothing says beforehand what the arrays look like, and the first node to answer has no right to decide it. So each
    layout is added up by itself, and in the end the one that most nodes agree on counts. There are only so many sums at
    a time, whatever nodes invent: a further layout takes the place of the one with the fewest nodes.
    """

    def __init__(self) -> None:
        self._reduce = total().reduce
        self._sums: dict[_Layout, Any] = {}
        self._nodes: dict[_Layout, list[str]] = {}
        self._dropped: list[str] = []

    def add(self, updates: list[Update]) -> None:
        """Add updates, which come in canonical order over all calls."""
        for update in updates:
            layout = _layout(update.record)
            if layout not in self._sums:
                self._make_room()
                self._sums[layout] = self._reduce.start(update.record)
            self._sums[layout] = self._reduce.add(self._sums[layout], [update])
            self._nodes.setdefault(layout, []).append(update.node)

    def _make_room(self) -> None:
        if len(self._sums) == _MOST_LAYOUTS:
            least = min(self._sums, key=lambda layout: len(self._nodes[layout]))
            del self._sums[least]
            self._dropped += self._nodes.pop(least)

    def finish(self, question: Question) -> tuple[ParametersRecord, int, list[UpdateRefused]]:
        """Return the sums, how many nodes are in them, and the nodes that answered with another layout."""
        if not self._nodes:
            return ParametersRecord(), 0, []
        chosen = max(self._nodes, key=lambda layout: len(self._nodes[layout]))
        record = self._finish(chosen)
        return record, len(self._nodes[chosen]), list(self._refused(question, chosen))

    def _finish(self, layout: _Layout) -> ParametersRecord:
        try:
            return self._reduce.finish(self._sums[layout])
        except AggregationError as error:
            raise RoundFailed(f"the statistics of the nodes have no sum: {error}") from error

    def _refused(self, question: Question, chosen: _Layout) -> Iterator[UpdateRefused]:
        for layout, nodes in self._nodes.items():
            if layout != chosen:
                reason = f"expected statistics as from most nodes, {_text(chosen)}, got {_text(layout)}"
                yield from (UpdateRefused(question.round, question.phase, node, reason, 0) for node in nodes)
        reason = (
            f"expected statistics as from most nodes, {_text(chosen)}, got those of few nodes while more than "
            f"{_MOST_LAYOUTS} layouts came"
        )
        yield from (UpdateRefused(question.round, question.phase, node, reason, 0) for node in self._dropped)


def _layout(record: ParametersRecord) -> _Layout:
    return tuple(sorted((name, array.dtype, tuple(array.shape)) for name, array in record.items()))


def _text(layout: _Layout) -> str:
    return ", ".join(f"{name}: {dtype}{list(shape)}" for name, dtype, shape in layout) or "no arrays"
