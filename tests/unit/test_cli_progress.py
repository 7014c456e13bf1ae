import io
import json
import math

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.text import Text

from umbel.cli._progress import Lines, Live, as_values, renderer, round_lines, shown_metrics
from umbel.cli._screen import Screen, as_json, finite
from umbel.history import RoundReport
from umbel.records import RecordSet
from umbel.rounds import (
    EvaluationStarted,
    NodeLost,
    RoundCompleted,
    RoundStarted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
)

STATE = RecordSet()
REPORT = RoundReport(
    round=1,
    cohort=4,
    accepted=2,
    refused=(("a\x1b[31m", "NaN in w"),),
    lost=(("b", "no reply"),),
    metrics={"train.num-examples": 20, "train.loss": 0.123456, "evaluate.per-class": [0.5, 1.0]},
    bytes={"sent": 1000, "received": 234},
    seconds={"train": 0.25, "evaluate": 0.17},
    digest="blake3:00",
)
STATISTICS = RoundReport(
    round=0,
    cohort=4,
    accepted=3,
    refused=(),
    lost=(("b", "in query: no reply"),),
    metrics={},
    bytes={"sent": 90, "received": 10},
    seconds={"query": 0.1},
    digest="blake3:00",
)
EVENTS = [
    RunStarted(run_id=1, strategy="fedavg", seed=7, rounds=2, completed=0, nodes=4),
    StatisticsCollected(report=STATISTICS, state=STATE),
    RoundStarted(round=1, cohort=4),
    UpdateAccepted(round=1, phase="train", node="c", received=117),
    UpdateAccepted(round=1, phase="train", node="d", received=117),
    UpdateRefused(round=1, phase="train", node="a\x1b[31m", reason="NaN in w", received=117),
    NodeLost(round=1, phase="train", node="b", reason="no reply"),
    EvaluationStarted(round=1, cohort=2),
    UpdateAccepted(round=1, phase="evaluate", node="c", received=9),
    RoundCompleted(report=REPORT, state=STATE),
    RunCompleted(rounds=2, digest="blake3:11", state=STATE),
]


def a_screen(*, terminal=False, json_wanted=False, width=100):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, no_color=True)
    return Screen(console=console, json=json_wanted)


def written(screen):
    return screen.console.file.getvalue()


def test_lines_of_a_run():
    screen = a_screen()
    show = Lines(screen)
    for event in EVENTS:
        show(event)
    assert written(screen).splitlines() == [
        "fedavg over 4 nodes, 2 rounds, seed 7",
        "statistics: b lost: in query: no reply",
        "statistics of 3 nodes summed; no row left its node",
        r"round 1: a\x1b[31m refused: NaN in w",
        "round 1: b lost: no reply",
        "round 1/2  2/4 nodes    1.2 kB  0.42 s  train.loss 0.1235  evaluate.per-class [0.5, 1]",
    ]


def test_a_resumed_run_says_how_much_is_done():
    screen = a_screen()
    Lines(screen)(RunStarted(run_id=1, strategy="fedavg", seed=7, rounds=9, completed=4, nodes=1))
    assert written(screen) == "fedavg over 1 node, 9 rounds, 4 of them done, seed 7\n"


def test_a_thousand_refusals_are_not_a_thousand_lines():
    refused = tuple((f"node-{i}", "too far away") for i in range(1000))
    report = RoundReport(1, 1000, 0, refused, (), {}, {}, {}, "blake3:00")
    screen = a_screen()
    Lines(screen)(RoundCompleted(report=report, state=STATE))
    lines = written(screen).splitlines()
    assert len(lines) == 12
    assert lines[10] == "round 1: 990 more; history.json lists every reason"


def test_every_event_is_one_line_of_strict_json():
    screen = a_screen(json_wanted=True)
    with renderer(screen) as show:
        for event in EVENTS:
            show(event)
    values = [json.loads(line, parse_constant=pytest.fail) for line in written(screen).splitlines()]
    assert [value["event"] for value in values] == [
        "run-started",
        "statistics-collected",
        "round-started",
        *["update-accepted"] * 2,
        "update-refused",
        "node-lost",
        "evaluation-started",
        "update-accepted",
        "round-completed",
        "run-completed",
    ]
    assert not any("state" in value for value in values)
    assert values[9]["metrics"]["train.loss"] == 0.123456
    assert values[9]["refused"] == [["a\x1b[31m", "NaN in w"]]


def test_as_values_holds_the_fields_of_an_event():
    assert as_values(EVENTS[2]) == {"event": "round-started", "round": 1, "cohort": 4}


def test_the_bar_moves_with_every_reply():
    screen = a_screen(terminal=True)
    progress = Progress(TextColumn("{task.description}"), console=screen.console, auto_refresh=False)
    show = Live(screen, progress)
    seen = []
    for event in EVENTS:
        show(event)
        (task,) = progress.tasks
        seen.append((round(task.completed, 3), task.description, task.fields["bytes"]))
    assert seen[0] == (0, "round 0/2", "0 B")
    assert seen[1] == (0, "round 0/2", "100 B")
    assert seen[4] == (0.5, "round 1/2 training 2/4", "100 B")
    assert seen[8] == (0.833, "round 1/2 evaluating 1/2", "100 B")
    assert seen[-1] == (1, "round 1/2", "1.3 kB")


def test_a_narrow_terminal_gets_the_metrics_on_lines_of_their_own_and_loses_none():
    screen = a_screen(terminal=True, width=40)
    Lines(screen)(RoundCompleted(REPORT, STATE))
    lines = [line for line in Text.from_ansi(written(screen)).plain.splitlines() if "lost" not in line][1:]
    assert lines[0].startswith("round 1/0  2/4 nodes")
    assert max(map(len, lines)) <= 40
    assert len(lines) > 1
    (whole,) = round_lines(REPORT, 0, None)
    assert " ".join(" ".join(lines).split()) == " ".join(whole.plain.split())


def test_weights_are_no_metrics_to_show():
    assert shown_metrics({"train.num-examples": 3, "num-examples": 3, "a.loss": 1.0}) == {"a.loss": 1.0}


def test_json_is_strict_and_ascii():
    text = as_json({"nan": math.nan, "inf": [math.inf, 1.0], "bytes": b"\x00\xff", "name": "\u202e\x1b"})
    assert json.loads(text) == {"nan": None, "inf": [None, 1.0], "bytes": "00ff", "name": "\u202e\x1b"}
    assert text.isascii()
    assert finite({1: (True, None)}) == {"1": [True, None]}
