"""A run of a server, explained: every round, who was asked, who answered, who did not and why, and the seconds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec

from umbel.cli._progress import figure4, shown_metrics
from umbel.cli._screen import Screen
from umbel.cli._table import Column
from umbel.cli._text import counted, duration, moment, safe, size
from umbel.errors import UsageError
from umbel.history import RoundReport
from umbel.http.wire import Question, RunRow, RunView

# In the order in which they follow one another; what else there is comes after these, by name.
_PHASES: Final = (
    *("queued", "downloading", "waiting", "training", "storing", "uploading"),  # of a node
    *("gate", "query", "train", "aggregate", "evaluate", "central"),  # of the server
)
_QUERY: Final = "query"
_USABLE: Final = {"accepted", "replied"}
_UNDER_WAY: Final = {"queued": "not yet fetched by the node", "sent": "at the node"}
_ACTIVE: Final = ("waiting", "running", "stopping")
_METRICS_SHOWN: Final = 3


class Round(NamedTuple):
    """One round of a run: its number, its report if it is complete, and what became of each message."""

    number: int
    report: RoundReport | None
    questions: Sequence[Question]

    def count(self, *outcomes: str) -> int:
        """Return how many messages ended so."""
        return sum(question.outcome in outcomes for question in self.questions)

    @property
    def seconds(self) -> dict[str, float]:
        """Return where the time went: the phases of the node that took longest, and those of the server."""
        spent = [question.seconds for question in self.questions]
        slowest = max(spent, key=lambda seconds: sum(seconds.values()), default={})
        own = {} if self.report is None else self.report.seconds
        return slowest | {phase: own[phase] for phase in own if phase not in slowest}


def is_driven(row: RunRow) -> bool:
    """Say whether the main of a run is elsewhere: what stands for its strategy is then code, "module:name"."""
    return ":" in row.strategy


def going_on(run: int, url: str) -> str:
    """Return the command with which whoever has the main of a run goes on with it."""
    return f"umbel run APP --server {url} --resume {run}"


def rounds_of(view: RunView) -> list[Round]:
    """Return the rounds of a run in order, those that are under way included."""
    reports = {report.round: report for report in msgspec.convert(view.reports, list[RoundReport])}
    asked: dict[int, list[Question]] = {}
    for question in view.questions:
        asked.setdefault(question.round, []).append(question)
    return [Round(each, reports.get(each), asked.get(each, [])) for each in sorted({*reports, *asked})]


def show_run(screen: Screen, view: RunView) -> None:
    """Print a run: what it is, a line a round, and a line for everyone whose answer did not count."""
    rounds = rounds_of(view)
    for line in heading(view):
        screen.say(line)
    if rounds:
        screen.say()
        unfinished = "under way" if view.row.status in _ACTIVE else "not complete"
        # Where a round of a main ends, the main alone knows.
        _show_table(screen, rounds, "" if is_driven(view.row) else unfinished)
    absent = list(absences(rounds))
    if absent:
        screen.say()
    for line in absent:
        screen.say(line, style="yellow")


def heading(view: RunView) -> Iterator[str]:
    """Yield what can be said of a run as a whole."""
    row = view.row
    why = f": {_set_in(row.reason)}" if row.reason else ""
    yield f"run      {row.run} {safe(row.name)}, {safe(row.app)}".rstrip(", ")
    if is_driven(row):
        yield f"status   {row.status}{why}"
        yield f"main     {safe(row.strategy)}, run by {safe(row.owner)}, seed {view.spec.seed}"
    else:
        yield f"status   {row.status}, {row.completed} of {counted(row.rounds, 'round')} complete{why}"
        yield f"strategy {safe(_strategy(view))}, seed {view.spec.seed}"
    nodes = view.spec.nodes
    yield f"nodes    {nodes if isinstance(nodes, int) else ', '.join(map(safe, nodes))} wanted before it begins"
    yield f"begun    {moment(row.created_at)} by {safe(row.owner)}"
    if row.ended_at is not None:
        yield f"ended    {moment(row.ended_at)}, after {duration(row.ended_at - row.created_at)}"
    if view.restarts:
        yield f"restarts {', '.join(map(moment, view.restarts))}: the server came back and the run went on by itself"
    if view.digest:
        yield f"digest   {view.digest}"


def _strategy(view: RunView) -> str:
    numbers = [f"{name} = {value!r}" for name, value in view.spec.strategy.items() if name != "name"]
    return f"{view.spec.strategy.get('name', view.row.strategy)}{' (' if numbers else ''}{', '.join(numbers)}" + (
        ")" if numbers else ""
    )


def _show_table(screen: Screen, rounds: Sequence[Round], unfinished: str) -> None:
    phases = phases_of(each.seconds for each in rounds)
    metrics = list(dict.fromkeys(name for each in rounds if each.report for name in shown_metrics(each.report.metrics)))
    titles = ["asked", "counted", "refused", "lost", "bytes"]
    columns = [Column("round"), *(Column(title, right=True) for title in titles)]
    columns += _timed(phases, [each.seconds for each in rounds])
    # A metric is what one came for, the first above all: the others give way after the phases that took no time.
    columns += [
        Column(safe(name), right=True, weight=1.0 / i if i else None) for i, name in enumerate(metrics[:_METRICS_SHOWN])
    ]
    names = [_name(each) + (f" ({unfinished})" if unfinished and each.report is None else "") for each in rounds]
    cells = [_cells(each, phases, metrics[:_METRICS_SHOWN]) for each in rounds]
    screen.table(columns, [[name, *row] for name, row in zip(names, cells, strict=True)])


def _timed(phases: Sequence[str], spent: Sequence[Mapping[str, float]]) -> list[Column]:
    """Return a column for each phase; in a narrow terminal those that took least give way."""
    return [Column(each, right=True, weight=sum(seconds.get(each, 0.0) for seconds in spent)) for each in phases]


def _cells(each: Round, phases: Sequence[str], metrics: Sequence[str]) -> list[str]:
    moved = sum(question.sent + question.received for question in each.questions)
    values = {} if each.report is None else each.report.metrics
    counts = (len(each.questions), each.count(*_USABLE), each.count("refused"), each.count("lost", "late", "cancelled"))
    return [
        *map(str, counts),
        size(moved),
        *(duration(each.seconds[phase]) if phase in each.seconds else "" for phase in phases),
        *(figure4(values[name]) if name in values else "" for name in metrics),
    ]


def _name(each: Round) -> str:
    is_sum = not each.number and all(question.phase == _QUERY for question in each.questions)
    return "statistics" if is_sum else str(each.number)


def phases_of(seconds: Iterable[Iterable[str]]) -> list[str]:
    """Return the phases that occur, in the order in which they follow one another."""
    found = {phase for each in seconds for phase in each}
    return [phase for phase in _PHASES if phase in found] + sorted(found - set(_PHASES))


def absences(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield who did not count and why; rounds in a row in which the same happened share a line."""
    found = [(question, each.number) for each in rounds for question in each.questions if _is_absent(question)]
    found.sort(key=lambda pair: (*_what(pair[0]), pair[1]))
    lines = []
    for what, pairs in groupby(found, key=lambda pair: _what(pair[0])):
        numbers = [number for _, number in pairs]
        lines.append((numbers[0], f"{_spans(numbers, what[1])}: {_sentence(*what)}"))
    yield from (line for _, line in sorted(lines))


def _is_absent(question: Question) -> bool:
    return question.outcome not in _USABLE and question.outcome not in _UNDER_WAY


def _what(question: Question) -> tuple[str, str, str, str]:
    return question.node, question.phase, question.outcome, question.reason


def _sentence(node: str, phase: str, outcome: str, reason: str) -> str:
    where = "" if phase == "train" else f" in {safe(phase)}"
    return f"{safe(node)} {outcome}{where}" + (f": {_set_in(reason)}" if reason else "")


def _set_in(reason: str) -> str:
    """Further lines, such as those of a traceback, are set in: none can pass for a line of this command."""
    return "\n      ".join(map(safe, reason.split("\n")))


def _spans(numbers: Sequence[int], phase: str = _QUERY) -> str:
    """Return ``rounds 1 to 3, 7``."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    if spans == [[0, 0]] and phase == _QUERY:
        return "statistics"
    shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans)
    return f"{'round' if len(spans) == 1 and spans[0][0] == spans[0][1] else 'rounds'} {shown}"


def show_round(screen: Screen, view: RunView, number: int) -> None:
    """Print one round in full: every message, what became of it, and where its seconds went."""
    known = {each.number: each for each in rounds_of(view)}
    if number not in known:
        some = f"it has {_spans(list(known))}" if known else "it has begun none yet"
        raise UsageError(f"run {view.row.run} has no round {number}; {some}", at="--round")
    each = known[number]
    phases = phases_of(question.seconds for question in each.questions)
    columns = [Column("node", elastic=True), Column("phase"), Column("outcome")]
    columns += [Column(title, right=True) for title in ("sent", "received")]
    columns += _timed(phases, [question.seconds for question in each.questions])
    screen.table(columns, [_message_row(question, phases) for question in each.questions])
    for question in each.questions:
        if why := question.reason or _UNDER_WAY.get(question.outcome, ""):
            screen.say(f"{safe(question.node)} {question.outcome}: {_set_in(why)}", style="yellow")
    if each.report is not None:
        _show_report(screen, each.report)


def _message_row(question: Question, phases: Sequence[str]) -> list[str]:
    spent = [duration(question.seconds[phase]) if phase in question.seconds else "" for phase in phases]
    names = [safe(question.node), safe(question.phase), question.outcome]
    return [*names, size(question.sent), size(question.received), *spent]


def _show_report(screen: Screen, report: RoundReport) -> None:
    screen.say()
    seconds = ", ".join(f"{phase} {duration(report.seconds[phase])}" for phase in phases_of([report.seconds]))
    screen.say(f"server   {seconds}")
    for name, value in report.metrics.items():
        screen.say(f"metric   {safe(name)} {figure4(value)}")
    screen.say(f"digest   {report.digest}")


def plain(value: Any) -> Any:
    """Return a body of the wire as values that JSON can carry; bytes become base64."""
    return msgspec.to_builtins(value)
