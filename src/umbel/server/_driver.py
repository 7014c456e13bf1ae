"""One thread for each run: the loop, what it leaves behind, and how it ends."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Final

import msgspec

from umbel.errors import StoreError, UmbelError
from umbel.failpoint import failpoint
from umbel.history import RoundReport
from umbel.message import MessageType
from umbel.records import RecordSet, scratch
from umbel.rounds import (
    EvaluationStarted,
    Event,
    NodeLost,
    RoundCompleted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
    train,
)
from umbel.server._diary import note
from umbel.server._grid import NetworkGrid
from umbel.server._journal import Journal
from umbel.server._log import Log
from umbel.server._metrics import Metrics
from umbel.server._plans import Halted
from umbel.store.runs import Outcome
from umbel.strategy import Strategy

_HANDLED_BY_NODES: Final = str(MessageType.EVALUATE)


class Driver:
    """Drives one run from where the ledger says it is until it is complete, fails, or is asked to stop.

    Each completed round is in the ledger, and its blobs on the disk, before anyone hears of it. What goes wrong ends
    the run with the whole reason, and the run can be resumed; it never ends the server. Only what the server's own disk
    refuses does not end a run: ``ended`` is told of it, and the run can go on when that is mended.
    """

    def __init__(
        self,
        journal: Journal,
        grid: NetworkGrid,
        log: Log,
        metrics: Metrics,
        *,
        folder: Path,
        ended: Callable[[StoreError | None], object],
    ) -> None:
        self._journal = journal
        self._grid = grid
        self._log = log
        self._metrics = metrics
        self._folder = folder
        self._ended = ended
        self._verdicts: dict[int, Outcome] = {}
        self._thread = Thread(target=self._drive, name=f"run {journal.run}", daemon=True)

    def start(self) -> None:
        """Begin, or go on."""
        self._thread.start()

    def halt(self) -> None:
        """Leave the loop at the next point from which it can go on. Any thread may call this."""
        self._grid.halt()

    def join(self, seconds: float) -> bool:
        """Wait until the loop was left; False if it was not within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _drive(self) -> None:
        trouble: StoreError | None = None
        try:
            # The server may have ended before all was said: then the run is taken up by its next start.
            with suppress(Halted):
                self._attempt()
        except StoreError as error:
            trouble = error
        finally:
            self._ended(trouble)

    def _attempt(self) -> None:
        try:
            with scratch(self._folder), closing(self._grid):
                self._loop()
        except Halted:
            self._journal.halted()
            self._say("halted", "is left where it can go on")
        except StoreError as error:
            self._say("waits", f"waits for the disk: {error}", reason=str(error))
            raise
        except UmbelError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - the reason of a failed run is for its owner, whatever it is
            self._fail(f"{type(error).__name__}: {error}")
        self._log.end()

    def _fail(self, reason: str) -> None:
        self._journal.failed(reason, list(self._outcomes()))
        self._log.say("RunFailed", reason=reason)
        self._say("failed", f"failed: {reason}", reason=reason)

    def _say(self, what: str, text: str, **fields: object) -> None:
        note(f"run {self._journal.run} {text}", event=f"run-{what}", run=self._journal.run, **fields)

    def _loop(self) -> None:
        strategy = self._journal.strategy
        roster = self._grid.nodes(self._journal.completed + 1, strategy.phase)
        if not self._journal.handled(roster, _HANDLED_BY_NODES):
            strategy = strategy._replace(evaluate=None)
        # Read once the nodes are there, which may be long after it was kept.
        self._train(strategy, self._journal.state())

    def _train(self, strategy: Strategy, state: RecordSet) -> None:
        for event in train(self._grid, strategy, state, rounds=self._journal.rounds, run_id=self._journal.run):
            self._note(event)
            self._log.add(event)

    def _note(self, event: Event) -> None:
        """Make durable what the event says, before anybody hears of it."""
        match event:
            case RunStarted():
                self._journal.running()
                if self._journal.stopping:
                    raise Halted
                self._say(
                    "started", f"goes, {event.completed} of {event.rounds} rounds complete", completed=event.completed
                )
            case UpdateAccepted():
                self._judge(event, "accepted", "", event.received)
            case UpdateRefused():
                self._judge(event, "refused", event.reason, event.received)
            case NodeLost():
                self._judge(event, "lost", event.reason, 0)
            case EvaluationStarted():
                failpoint("server.evaluating")
            case StatisticsCollected() | RoundCompleted():
                self._close(event.report, event.state)
            case RunCompleted():
                self._journal.finished()
                failpoint("server.run-finished")
                self._say("completed", f"is complete, its model is {event.digest}", digest=event.digest)

    def _judge(self, event: UpdateAccepted | UpdateRefused | NodeLost, status: str, reason: str, received: int) -> None:
        """Take note of what the loop made of the message that a node answered last."""
        message = self._grid.landed.get((event.phase, event.node))
        if message is not None:
            behind = event.round - self._grid.notes[message].round
            if behind and not reason:
                age = "one round" if behind == 1 else f"{behind} rounds"
                reason = f"it counted in round {event.round}, when its model was {age} old"
            self._verdicts[message] = Outcome(message, status, reason, received=received)

    def _close(self, report: RoundReport, state: RecordSet) -> None:
        outcomes = list(self._outcomes())
        self._journal.close_round(report, state, outcomes, self._grid.flying)
        self._verdicts.clear()
        self._grid.closed()
        self._metrics.rounds.inc()
        done = f"{report.accepted} of {report.cohort} nodes"
        self._say("round", f"round {report.round}: {done}", round=report.round, accepted=report.accepted)
        for outcome in outcomes:
            self._metrics.messages.labels(outcome.status).inc()

    def _outcomes(self) -> Iterator[Outcome]:
        """Yield what the loop made of the messages of the round so far."""
        for message, verdict in self._verdicts.items():
            note = self._grid.notes[message]
            yield msgspec.structs.replace(verdict, sent=note.sent, seconds=note.seconds)
