"""Events of a run as lines for people, as a live bar, or as JSON: whoever calls gives each event to one of these."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.cells import cell_len
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from umbel.cli._screen import Screen
from umbel.cli._text import counted, duration, figure, safe, size
from umbel.history import RoundReport
from umbel.rounds import (
    EvaluationStarted,
    Event,
    NodeLost,
    RoundCompleted,
    RoundStarted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
)

_REASONS_SHOWN = 10
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class Renderer(Protocol):
    """Takes the events of a run as they happen."""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        ...


@contextmanager
def renderer(screen: Screen) -> Iterator[Renderer]:
    """Give the renderer that suits the screen; a live one cleans up after itself."""
    if screen.json:
        yield lambda event: screen.emit(as_values(event))
    elif screen.live:
        with _bar(screen) as progress:
            yield Live(screen, progress)
    else:
        yield Lines(screen)


def as_values(event: Event) -> dict[str, Any]:
    """Return an event as plain values: its name in lower case, its fields, a report in place, no arrays."""
    name = _WORD_START.sub("-", type(event).__name__).lower()
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    fields.pop("state", None)
    report = fields.pop("report", None)
    if isinstance(report, RoundReport):
        fields |= {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return {"event": name, **fields}


class Lines:
    """A line a round, and one for every node that did not take part: for pipes, files and dumb terminals."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rounds = 0

    def __call__(self, event: Event) -> None:
        """Print what is worth a line."""
        match event:
            case RunStarted():
                self._rounds = event.rounds
                self._screen.say(_opening(event))
            case StatisticsCollected():
                self._name_absent(event.report)
                summed = counted(event.report.accepted, "node")
                self._screen.say(f"statistics of {summed} summed; no row left its node")
            case RoundCompleted():
                self._name_absent(event.report)
                for line in round_lines(event.report, self._rounds, self._screen.width):
                    self._screen.say(line)

    def _name_absent(self, report: RoundReport) -> None:
        for line in _absent(report):
            self._screen.say(line, style="yellow")


class Live:
    """The lines of ``Lines`` above a bar that shows the round, its replies, the bytes and the time left."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        self._lines = Lines(screen)
        self._progress = progress
        self._task: TaskID | None = None
        self._round = _Round()
        self._bytes = 0

    def __call__(self, event: Event) -> None:
        """Print what is worth a line and move the bar."""
        self._lines(event)
        match event:
            case RunStarted():
                self._round = _Round(number=event.completed, rounds=event.rounds)
                self._task = self._progress.add_task("", total=event.rounds, bytes="")
            case RoundStarted():
                self._round = self._round.next(event)
            case EvaluationStarted():
                self._round = dataclasses.replace(self._round, evaluators=event.cohort, evaluating=True)
            case UpdateAccepted() | UpdateRefused() | NodeLost():
                self._round = dataclasses.replace(self._round, answered=self._round.answered + 1)
            case StatisticsCollected():
                self._bytes += sum(event.report.bytes.values())
            case RoundCompleted():
                self._bytes += sum(event.report.bytes.values())
                self._round = dataclasses.replace(self._round, number=event.report.round, answered=0, asked=0)
        if self._task is not None:
            self._progress.update(
                self._task, completed=self._round.completed, description=self._round.caption, bytes=size(self._bytes)
            )


@dataclasses.dataclass(frozen=True)
class _Round:
    """Where a round stands; ``evaluators`` of the last round foretell those of this one."""

    number: int = 0
    rounds: int = 0
    asked: int = 0
    evaluators: int = 0
    answered: int = 0
    evaluating: bool = False

    def next(self, event: RoundStarted) -> "_Round":
        return _Round(event.round, self.rounds, event.cohort, self.evaluators)

    @property
    def completed(self) -> float:
        expected = self.asked + self.evaluators
        return self.number if not self.asked else self.number - 1 + min(1.0, self.answered / expected)

    @property
    def caption(self) -> str:
        if not self.asked:
            return f"round {self.number}/{self.rounds}"
        if self.evaluating:
            return f"round {self.number}/{self.rounds} evaluating {self.answered - self.asked}/{self.evaluators}"
        return f"round {self.number}/{self.rounds} training {self.answered}/{self.asked}"


def _bar(screen: Screen) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[bytes]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=screen.console,
        transient=True,
    )


def _opening(event: RunStarted) -> str:
    done = f", {event.completed} of them done" if event.completed else ""
    who, long = counted(event.nodes, "node"), counted(event.rounds, "round")
    return f"{safe(event.strategy)} over {who}, {long}{done}, seed {event.seed}"


def _absent(report: RoundReport) -> Iterator[str]:
    reasons = [(node, "refused", why) for node, why in report.refused] + [
        (node, "lost", why) for node, why in report.lost
    ]
    where = f"round {report.round}" if report.round else "statistics"
    for node, how, why in reasons[:_REASONS_SHOWN]:
        # Further lines, such as those of a traceback, are set in: none can pass for a line of this command.
        yield f"{where}: {safe(node)} {how}: " + "\n      ".join(map(safe, why.split("\n")))
    if len(reasons) > _REASONS_SHOWN:
        yield f"{where}: {len(reasons) - _REASONS_SHOWN} more; history.json lists every reason"


def round_lines(report: RoundReport, rounds: int, width: int | None) -> Iterator[Text]:
    """Yield what is said of one round: what is fixed, then the metrics; those that find no room go on below, set in."""
    text = Text()
    text.append(f"round {report.round:>{len(str(rounds))}}/{rounds}", style="bold")
    text.append(f"  {report.accepted}/{report.cohort} nodes  {size(sum(report.bytes.values())):>8}")
    text.append(f"  {duration(sum(report.seconds.values()))}", style="dim")
    for name, value in shown_metrics(report.metrics).items():
        shown = f"{figure4(value):<6}"
        if width is not None and text.cell_len + cell_len(f"  {safe(name)} {shown.rstrip()}") > width:
            text.rstrip()
            yield text
            text = Text("      ")
        text.append(f"  {safe(name)} ")
        text.append(shown, style="cyan")
    text.rstrip()
    yield text


def figure4(value: object) -> str:
    """Return a metric in four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else figure(value)


def shown_metrics(metrics: Mapping[str, object]) -> dict[str, object]:
    """Return the metrics without the weights, which are in the history."""
    return {name: value for name, value in metrics.items() if not name.endswith("num-examples")}
