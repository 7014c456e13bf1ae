"""A grid whose replies come as they once did: from the arrivals that a run left behind to the same model."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from umbel.engines._named import Engine, engine
from umbel.engines._runner import unhurried
from umbel.errors import UsageError
from umbel.grid import Grid, Node
from umbel.history import Arrival, History, RoundReport
from umbel.message import Error, ErrorCode, Message, MessageType

_LOST: Final = Error(ErrorCode.NODE_UNAVAILABLE, "it was lost in the run that was recorded")


class Replay:
    """A grid over another, which runs the nodes; replies to train messages come in the order of a trace.

    Each comes with the time and the duration that it had, and a reply that is not in the trace of its round does not
    come; one that was lost is an error at once. What else is asked (statistics, evaluation) passes through.
    ``reports`` are those of a run whose policy or selection goes by arrivals; such a run may have a round in which
    nothing came. What is not in the reports, or in those of another run, passes through as well.

    Raises ``UsageError`` in a round in which the trace has a reply to a message that nobody sent: it is of another run.
    """

    #: Takes messages while others are outstanding.
    overlapping = True

    def __init__(self, grid: Grid, reports: Iterable[RoundReport]) -> None:
        self._grid = grid
        traces = {report.round: report.arrivals for report in reports}
        self._traces: dict[int, tuple[Arrival, ...]] = traces if any(traces.values()) else {}
        self._phase: tuple[int, str] = (0, "")
        self._coming: Iterator[Arrival] | None = None
        self._open: dict[int, Message] = {}

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the grid below."""
        phase = (round, str(message_type))
        if phase != self._phase:
            trace = self._traces.get(round) if message_type != MessageType.EVALUATE else None
            self._phase, self._coming = phase, None if trace is None else iter(trace)
        return self._grid.nodes(round, message_type)

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages; those of a phase with a trace are sent on one by one, when it is their turn."""
        if self._coming is None:
            self._grid.send(messages)
            return
        self._open |= {message.metadata.message_id: message for message in messages}

    def replies(self) -> Iterator[Message]:
        """Yield the replies of the trace, or those of the grid below."""
        if self._coming is None:
            yield from self._grid.replies()
            return
        for arrival in self._coming:
            reply = self._reply(arrival)
            if reply is not None:
                yield reply
            reply = None  # its memory is free again when the next node runs

    def _reply(self, arrival: Arrival) -> Message | None:
        message = self._open.pop(arrival.message_id, None)
        if message is None:
            raise UsageError(
                f"expected the trace of this run, got one with a reply of {arrival.node!r} to message "
                f"{arrival.message_id}, which was not sent: replay with the app, the strategy, the seed and the nodes "
                "of the run that was recorded",
                at=f"round {self._phase[0]}",
            )
        if arrival.lost:
            return _restamped(message.create_error_reply(_LOST), message, arrival)
        self._grid.send([unhurried(message)])  # when its reply came is in the trace
        for reply in self._grid.replies():
            return _restamped(reply, message, arrival)
        return None

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Forget these messages."""
        ids = list(message_ids)
        for each in ids:
            self._open.pop(each, None)
        self._grid.cancel(ids)

    def close(self) -> None:
        """Close the grid below."""
        self._open.clear()
        self._grid.close()


def _restamped(reply: Message, asked: Message, arrival: Arrival) -> Message:
    left = max(asked.metadata.ttl - arrival.seconds, 1e-9)
    metadata = msgspec.structs.replace(reply.metadata, created_at=arrival.at, ttl=left)
    return Message(metadata, error=reply.error) if reply.has_error() else Message(metadata, reply.content)


def replaying(history: History | Sequence[RoundReport], name: str | Engine = "local") -> Engine:
    """Return an engine for ``simulate`` that runs nodes as another does, in the order of a run that was recorded.

    ``name`` is that of the other engine, or a function that makes its grid. Raises ``UsageError`` as ``engine`` does.
    """
    reports = history.rounds if isinstance(history, History) else tuple(history)
    return partial(_replaying, reports, engine(name))


def _replaying(reports: Sequence[RoundReport], inner: Engine, *parts: Any, **options: Any) -> Grid:
    return Replay(inner(*parts, **options), reports)
