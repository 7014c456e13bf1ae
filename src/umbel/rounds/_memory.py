"""What the run remembers of its nodes, for selectors and deadlines that go by it.

One row for each node that was asked: when, how often it has been lost since its last reply, and what that reply was. It
is a record of the run's state, so a checkpoint has it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil, nan
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from umbel.grid import Node
from umbel.history import Arrival
from umbel.message import DEFAULT_TTL
from umbel.records import MetricsRecord, ParametersRecord, RecordSet
from umbel.rounds._events import UpdateAccepted, UpdateRefused
from umbel.rounds._gather import Outcome
from umbel.strategy import Deadline, Occasion, Strategy

NODES: Final = "nodes"
CLOCK: Final = "clock"

_T = TypeVar("_T")
_NAMES: Final = "names"
_ROUND: Final = "round"
_LOST: Final = "lost"
_SECONDS: Final = "seconds"
_NOW: Final = "now"
# Seconds. What is learned from nodes that answer in a moment is the noise of schedulers: in the next round, all may be
# later than that. It is the same on a virtual clock, so that a strategy means the same on any grid.
_LEAST_DEADLINE: Final = 1.0


class Memory:
    """What is remembered of nodes, as it grows; ``records`` is what the state has of it.

    A strategy none of whose parts goes by it remembers nothing. ``is_timed`` says whether its results depend on when
    replies come.
    """

    def __init__(self, strategy: Strategy, state: RecordSet) -> None:
        selectors = [each for each in (strategy.select, strategy.evaluate) if each is not None]
        asking = [each for each in selectors if each.consult is not None]
        policy = strategy.policy
        self._by_speed = policy.overlap is not None and policy.overlap.tiers > 0
        self.is_kept = bool(asking) or policy.deadline is not None or self._by_speed
        self.is_timed = self.is_kept or policy.enough is not None or policy.overlap is not None
        own = (_ROUND, _LOST, _SECONDS)
        self._columns = tuple(dict.fromkeys([*own, *(name for each in asking for name in each.remembers)]))
        self._metrics = self._columns[len(own) :]
        self._rows: dict[str, list[float]] = dict(_rows(state.parameters_records.get(NODES), self._columns))
        self._reported: dict[str, list[float]] = {}
        self._seconds: dict[str, float] = {}
        self._before: dict[str, list[float]] = {}
        self._places: tuple[Sequence[Node], dict[str, int]] | None = None
        clock = state.parameters_records.get(CLOCK)
        self.now = nan if clock is None else float(clock[_NOW].numpy()[0])
        self.arrivals: list[Arrival] = []

    def asked(self, node: str, number: int) -> None:
        """Take note that a node was asked, where nodes that have not answered yet count as slow."""
        if self._by_speed and node not in self._rows:
            self._rows[node] = [float(number), 0.0, *[nan] * (len(self._columns) - 2)]

    def arrived(self, arrival: Arrival) -> None:
        """Take note of when a reply came."""
        self.now = arrival.at if not self.now > arrival.at else self.now
        self._seconds[arrival.node] = arrival.seconds
        self.arrivals.append(arrival)

    def lost(self, arrival: Arrival) -> None:
        """Take note that a node will not answer, where another is asked in its place."""
        self.arrivals.append(arrival._replace(lost=True))

    def listening(self, judge: Callable[[str, RecordSet], _T]) -> Callable[[str, RecordSet], _T]:
        """Return ``judge``, which then leaves behind what an accepted reply says of its node."""
        if not self.is_kept:
            return judge

        def judged(node: str, content: RecordSet) -> _T:
            item = judge(node, content)
            plain = content.metrics_records.get("metrics", MetricsRecord())
            self._reported[node] = [_number(plain.get(name)) for name in self._metrics]
            return item

        return judged

    def watch(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Remember what became of each node, and pass it on."""
        return map(self._remembered, outcomes) if self.is_kept else iter(outcomes)

    def _remembered(self, outcome: Outcome) -> Outcome:
        row = self._rows.setdefault(outcome.node, [nan] * len(self._columns))
        if isinstance(outcome, UpdateRefused):  # perhaps after all: then nothing of what it said is remembered
            row[:] = self._before.pop(outcome.node, row)
        row[0] = float(outcome.round)
        if isinstance(outcome, UpdateAccepted):
            self._before[outcome.node] = [*row]
            row[1:] = [0.0, self._seconds[outcome.node], *self._reported.pop(outcome.node)]
        else:
            row[1] = 1.0 if row[1] != row[1] else row[1] + 1.0  # NaN, the first time
        return outcome

    def occasion(self, nodes: Sequence[Node], seed: int, number: int) -> Occasion:
        """Return what a selector goes by in a phase of a round."""
        places = self._placed(nodes)
        order = sorted((place, name) for name, place in places.items())
        table = np.array([self._rows[name] for _, name in order]).reshape(len(order), len(self._columns))
        columns = {name: table[:, place] for place, name in enumerate(self._columns)}
        positions = np.array([place for place, _ in order], np.int64)
        return Occasion(len(nodes), seed, number, positions, columns, self.now, lambda place: nodes[place].name)

    def _placed(self, nodes: Sequence[Node]) -> dict[str, int]:
        """Return the positions of the nodes that are known and there; a population that stays is searched once."""
        if self._places is None or self._places[0] is not nodes:
            self._places = (nodes, {})
        places = self._places[1]
        for name in self._rows.keys() - places.keys():
            place = bisect_left(nodes, name, key=lambda node: node.name)
            if place < len(nodes) and nodes[place].name == name:
                places[name] = place
        return places

    def time_to_live(self, deadline: Deadline | None) -> float:
        """Return how long a cohort has, in seconds."""
        if deadline is None:
            return DEFAULT_TTL
        known = sorted(row[2] for row in self._rows.values() if row[2] > 0)
        if not known:
            return DEFAULT_TTL if deadline.first is None else deadline.first
        learned = deadline.factor * known[ceil(deadline.quantile * len(known)) - 1]
        return min(DEFAULT_TTL, max(_LEAST_DEADLINE, learned))

    def records(self) -> Mapping[str, ParametersRecord]:
        """Return what the state keeps."""
        if not self.is_kept:
            return {}
        self._before.clear()
        names = sorted(self._rows)
        table = np.array([self._rows[name] for name in names]).reshape(len(names), len(self._columns))
        text = np.frombuffer("\n".join(names).encode(), np.uint8)
        arrays: dict[str, NDArray[np.generic]] = {_NAMES: text}
        arrays |= {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(self._columns)}
        return {NODES: ParametersRecord.from_numpy(arrays), **self.clock()}

    def clock(self) -> Mapping[str, ParametersRecord]:
        """Return the time of the last reply as a record."""
        return {CLOCK: ParametersRecord.from_numpy({_NOW: np.array([self.now])})}


def _rows(record: ParametersRecord | None, columns: Sequence[str]) -> Iterator[tuple[str, list[float]]]:
    if record is None or not record[_NAMES].shape[0]:
        return
    names = bytes(record[_NAMES].data).decode().split("\n")
    table = [record[name].numpy().tolist() if name in record else [nan] * len(names) for name in columns]
    for place, name in enumerate(names):
        yield name, [column[place] for column in table]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else nan
