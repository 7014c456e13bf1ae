"""Events of a run as a server tells them, turned back into what ``umbel.rounds`` calls them."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from umbel.errors import UsageError
from umbel.http.wire import EventLine
from umbel.records import RecordSet
from umbel.rounds import (
    EvaluationStarted,
    Event,
    NodeLost,
    RoundCompleted,
    RoundStarted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
)

_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (
        RunStarted,
        StatisticsCollected,
        RoundStarted,
        UpdateAccepted,
        UpdateRefused,
        NodeLost,
        EvaluationStarted,
        RoundCompleted,
        RunCompleted,
    )
}
_WITH_STATE: Final = (StatisticsCollected, RoundCompleted, RunCompleted)


def event_of(line: EventLine) -> Event | None:
    """Return the event that a line tells; None for a kind that only a server has.

    The state stays on the server: events that carry it carry an empty one here.

    Raises:
        UsageError: for fields that are not those of the event, such as a server of another version may send.

    """
    kind = _KINDS.get(line.kind)
    if kind is None:
        return None
    types = {name: each for name, each in kind.__annotations__.items() if name != "state"}
    try:
        fields = {name: msgspec.convert(line.fields[name], each) for name, each in types.items()}
    except (KeyError, msgspec.ValidationError) as error:
        msg = f"expected an event {line.kind} with {', '.join(types)}: {error}; is the server of another version?"
        raise UsageError(msg, at=f"event {line.number}") from error
    if kind in _WITH_STATE:
        fields["state"] = RecordSet()
    event: Event = kind(**fields)
    return event


def events_of(lines: list[EventLine]) -> Iterator[Event]:
    """Yield the events that are told, without those that only a server has."""
    for line in lines:
        event = event_of(line)
        if event is not None:
            yield event
