"""Events of a server become those of the loop again."""

import dataclasses

import msgspec
import pytest

from umbel import rounds
from umbel.cli._feed import event_of
from umbel.errors import UsageError
from umbel.history import RoundReport
from umbel.http.wire import EventLine
from umbel.records import RecordSet

REPORT = RoundReport(
    3, 2, 1, (("b", "NaN"),), (), {"train.loss": 0.5, "x": None}, {"sent": 1}, {"train": 1.0}, "blake3:0"
)
EVENTS = [
    rounds.RunStarted(1, "fedavg", 7, 10, 0, 2),
    rounds.StatisticsCollected(dataclasses.replace(REPORT, round=0), RecordSet()),
    rounds.RoundStarted(3, 2),
    rounds.UpdateAccepted(3, "train", "a", 10),
    rounds.UpdateRefused(3, "train", "b", "NaN", 10),
    rounds.NodeLost(3, "train", "c", "gone"),
    rounds.EvaluationStarted(3, 2),
    rounds.RoundCompleted(REPORT, RecordSet()),
    rounds.RunCompleted(10, "blake3:1", RecordSet()),
]


def told(event):
    """An event as it crosses the network."""
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event) if field.name != "state"}
    line = EventLine(number=1, kind=type(event).__name__, fields=msgspec.to_builtins(fields))
    return msgspec.json.decode(msgspec.json.encode(line), type=EventLine)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_comes_back_as_it_was(event):
    assert event_of(told(event)) == event


def test_every_kind_of_event_is_known():
    kinds = {name for name in rounds.__all__ if isinstance(getattr(rounds, name), type)}
    assert kinds == {type(event).__name__ for event in EVENTS}


def test_what_only_a_server_tells_is_no_event_of_the_loop():
    assert event_of(EventLine(number=1, kind="RunFailed", fields={"reason": "x"})) is None


@pytest.mark.parametrize("fields", [{}, {"round": "x", "cohort": 1}, {"round": 1}])
def test_fields_of_another_version_are_named(fields):
    with pytest.raises(UsageError, match="an event RoundStarted with round, cohort"):
        event_of(EventLine(number=1, kind="RoundStarted", fields=fields))
