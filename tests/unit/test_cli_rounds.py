"""What ``umbel runs show`` says of a run: counts, reasons, and where the seconds went."""

import io

import msgspec
import pytest
from rich.console import Console

from umbel.cli._rounds import absences, phases_of, rounds_of, show_round, show_run
from umbel.cli._screen import Screen
from umbel.envelope import Content, Part
from umbel.errors import UsageError
from umbel.http.wire import Question, RunRow, RunSpec, RunView

NOTHING = Content((), Part("blake3:00", 0, b""))
ROW = RunRow(
    run=7,
    name="quiet-fern",
    app="app:app",
    strategy="fedavg",
    status="running",
    reason="",
    completed=2,
    rounds=5,
    owner="ada",
    created_at=1_000_000.0,
    ended_at=None,
)
SPEC = RunSpec(
    app="app:app",
    strategy={"name": "fedavg", "fraction": 0.5},
    rounds=5,
    seed=3,
    config={},
    nodes=["a", "b"],
    initial=NOTHING,
)


def asked(number, node, outcome="accepted", reason="", phase="train", **seconds):
    return Question(
        round=number,
        phase=phase,
        node=node,
        outcome=outcome,
        reason=reason,
        sent=1000,
        received=500,
        seconds=seconds,
    )


def report(number, **metrics):
    return {
        "round": number,
        "cohort": 2,
        "accepted": 2,
        "refused": [],
        "lost": [],
        "metrics": metrics,
        "bytes": {"sent": 2000, "received": 1000},
        "seconds": {"train": 1.0, "aggregate": 0.25},
        "digest": f"blake3:{number:02}",
    }


def run(questions, reports=(), **more):
    return RunView(
        row=ROW,
        spec=SPEC,
        reports=list(reports),
        questions=questions,
        model=None,
        **{"restarts": [], "digest": ""} | more,
    )


def shown(show, view, *args):
    stream = io.StringIO()
    show(Screen(Console(file=stream, highlight=False, markup=False, emoji=False), json=False), view, *args)
    return stream.getvalue()


def test_a_round_is_a_line_of_counts_and_seconds():
    view = run(
        [asked(1, "a", queued=0.1, training=2.0), asked(1, "b", "refused", "NaN in w", queued=0.2, training=1.0)],
        [report(1, **{"train.loss": 0.5, "train.num-examples": 20})],
    )
    lines = shown(show_run, view).splitlines()
    header, row = next((line, lines[i + 1]) for i, line in enumerate(lines) if line.startswith("round"))
    assert header.split() == [
        *("round", "asked", "counted", "refused", "lost", "bytes"),
        *("queued", "training", "train", "aggregate", "train.loss"),
    ]
    cells = row.split()
    assert cells[:5] == ["1", "2", "1", "1", "0"]
    assert "3.0 kB" in row
    assert "0.10 s  " in row  # the phases of the node that took longest
    assert "2.00 s" in row
    assert cells[-1] == "0.5"


def test_who_did_not_count_is_named_with_the_reason():
    view = run([asked(1, "a"), asked(1, "b", "refused", "expected w of shape [3], got [4]")], [report(1)])
    assert "round 1: b refused: expected w of shape [3], got [4]" in shown(show_run, view).splitlines()


def test_the_same_in_several_rounds_is_one_line():
    silent = [asked(number, "b", "lost", "silent for 75 s") for number in (1, 2, 3, 5)]
    view = run([*silent, asked(4, "b", "lost", "the app raised"), *(asked(number, "a") for number in range(1, 6))])
    assert list(absences(rounds_of(view))) == [
        "rounds 1 to 3, 5: b lost: silent for 75 s",
        "round 4: b lost: the app raised",
    ]


def test_another_phase_is_named():
    view = run([asked(0, "a", "lost", "gone", phase="query"), asked(1, "a", "late", "", phase="evaluate")])
    assert list(absences(rounds_of(view))) == ["statistics: a lost in query: gone", "round 1: a late in evaluate"]


def test_no_reason_passes_for_a_line_of_ours_or_steers_a_terminal():
    view = run([asked(1, "b\x1b[31m", "lost", "why\nround 2: a lost: lie\x1b[2J")])
    (line,) = absences(rounds_of(view))
    assert "\x1b" not in line
    assert line.splitlines()[1].startswith("      round 2")


def test_a_round_that_is_under_way_says_so():
    view = run([asked(1, "a"), asked(2, "a", "sent"), asked(2, "b", "queued")], [report(1)])
    text = shown(show_run, view)
    assert "2 (under way)" in text
    assert "2: a sent" not in text  # not yet answered is not absent


def test_a_run_with_a_main_has_neither_a_strategy_nor_a_number_of_rounds():
    row = msgspec.structs.replace(ROW, strategy="app:server", completed=0, rounds=0)
    questions = [asked(0, "a", "replied"), asked(0, "b", "lost", "no room")]
    view = msgspec.structs.replace(run(questions), row=row)
    lines = shown(show_run, view).splitlines()
    assert lines[1:3] == ["status   running", "main     app:server, run by ada, seed 3"]
    assert next(line for line in lines if line.startswith("0 ")).split()[:5] == ["0", "2", "1", "0", "1"]
    assert lines[-1] == "round 0: b lost: no room"


def test_restarts_and_the_digest_are_told():
    text = shown(show_run, run([], restarts=[1_000_060.0], digest="blake3:aa"))
    assert "restarts " in text
    assert "went on by itself" in text
    assert "digest   blake3:aa" in text
    assert "fedavg (fraction = 0.5), seed 3" in text


def test_a_run_before_its_first_round():
    assert "a, b wanted" in shown(show_run, run([]))


def test_a_round_in_full_has_every_message_and_the_metrics():
    view = run(
        [asked(1, "a", queued=0.1, training=2.0), asked(1, "b", "lost", "gone", uploading=3.0)],
        [report(1, **{"train.loss": 0.5, "train.num-examples": 20})],
    )
    text = shown(show_round, view, 1)
    assert text.splitlines()[0].split() == [
        "node",
        "phase",
        "outcome",
        "sent",
        "received",
        *("queued", "training", "uploading"),
    ]
    assert "b lost: gone" in text
    assert "metric   train.num-examples 20" in text
    assert "server   train 1.00 s, aggregate 0.25 s" in text
    assert "digest   blake3:01" in text


def test_a_round_that_is_not_there():
    with pytest.raises(UsageError, match="has no round 9; it has rounds 1 to 2"):
        shown(show_round, run([asked(1, "a"), asked(2, "a")]), 9)
    with pytest.raises(UsageError, match="it has begun none"):
        shown(show_round, run([]), 1)


def test_phases_follow_one_another():
    assert phases_of([{"uploading": 1, "queued": 1}, {"xyz": 1, "training": 1}]) == [
        *("queued", "training", "uploading"),
        "xyz",
    ]
