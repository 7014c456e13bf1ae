"""The events of one run, numbered, for whoever watches: what is recent is in memory, older rounds are their reports."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, Final

from umbel.history import RoundReport
from umbel.http.wire import EventLine
from umbel.rounds import Event

_ROUND: Final = 10**9  # the numbers of one round: so events keep their order over a restart of the server
_KEPT: Final = 4096
_HIDDEN: Final = ("state",)


class Log:
    """Numbered events, the numbers growing with the rounds, so that a watcher goes on after a restart where it was.

    The event that closes a round has the last number of the round. What came before it in the round is in memory
    only: after a restart, a completed round is that one event. Threads may share a log.
    """

    def __init__(self, reports: Iterable[RoundReport] = ()) -> None:
        self._lock = Lock()
        self._lines: deque[EventLine] = deque(maxlen=_KEPT)
        self._watchers: list[Callable[[], object]] = []
        self._round, self._next = 0, 1
        self.ended = False
        for report in reports:
            self._add(_kind(report), {"report": report}, report.round, closes=True)

    def add(self, event: Event) -> None:
        """Add what the loop yielded, and tell the watchers."""
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        report: RoundReport | None = fields.get("report")
        number = report.round if report is not None else fields.get("round", self._round)
        shown = {name: value for name, value in fields.items() if name not in _HIDDEN}
        self._add(type(event).__name__, shown, number, closes=report is not None)

    def say(self, kind: str, **fields: Any) -> None:
        """Add an event of the server's own, such as a failure, and tell the watchers."""
        self._add(kind, fields, self._round, closes=False)

    def note(self, kind: str, number: int, **fields: Any) -> None:
        """Do the same for what belongs to a round, or to a call of a main."""
        self._add(kind, fields, number, closes=False)

    def end(self) -> None:
        """No more events will come."""
        self.ended = True
        self._tell()

    def go_on(self) -> None:
        """More events will come after all: the run was resumed."""
        self.ended = False

    def _add(self, kind: str, fields: dict[str, Any], number: int, *, closes: bool) -> None:
        with self._lock:
            if number > self._round:
                self._round, self._next = number, 1
            place = _ROUND - 1 if closes else self._next
            self._next = place + 1
            # What comes after the end of a round, such as the end of the run, is numbered with the next one.
            self._lines.append(EventLine(number=self._round * _ROUND + place, kind=kind, fields=fields))
            if closes:
                self._round, self._next = self._round + 1, 1
        self._tell()

    def after(self, number: int, most: int = 1000) -> list[EventLine]:
        """Return events with larger numbers, oldest first, at most so many."""
        with self._lock:
            return [line for line in self._lines if line.number > number][:most]

    def watch(self, tell: Callable[[], object]) -> Callable[[], None]:
        """Call ``tell``, from any thread, whenever there is something new; return how to stop it."""
        self._watchers.append(tell)
        return lambda: self._watchers.remove(tell)

    def _tell(self) -> None:
        for tell in tuple(self._watchers):
            tell()


def _kind(report: RoundReport) -> str:
    return "RoundCompleted" if report.round else "StatisticsCollected"
