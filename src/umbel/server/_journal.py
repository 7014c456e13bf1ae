"""One run in the ledger: what it goes on from, and what each of its rounds leaves behind."""

import time
from collections.abc import Sequence
from functools import partial

import msgspec
import sqlalchemy as sa

from umbel.envelope import unpack
from umbel.errors import UsageError, WrongState
from umbel.failpoint import failpoint
from umbel.grid import Node
from umbel.history import RoundReport
from umbel.http.wire import RunSpec
from umbel.message import MessageType
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds import begin
from umbel.server._exchange import Exchange
from umbel.server._keeper import Keeper
from umbel.server._plans import Commission
from umbel.store import messages, runs
from umbel.strategy import Strategy, named

_MODEL = "model"
_NAME = "name"


def strategy_of(spec: RunSpec) -> Strategy:
    """Make the strategy that a run names; raises ``StrategyError`` for one that cannot be."""
    options = {key: value for key, value in spec.strategy.items() if key != _NAME}
    return named(str(spec.strategy.get(_NAME, "")), options)


def initial_of(content: RecordSet) -> ParametersRecord:
    """Return the model that a run begins with; raises ``UsageError`` if there is none, or more than that."""
    if list(content.parameters_records) != [_MODEL]:
        names = ", ".join(map(repr, content.parameters_records)) or "none"
        raise UsageError(f"expected one parameters record {_MODEL!r} to begin with, got {names}", at="initial")
    return content.parameters_records[_MODEL]


class Journal:
    """Reads and writes one run; used by the thread that drives it."""

    def __init__(self, keeper: Keeper, exchange: Exchange, run: runs.Run, keep: int | None) -> None:
        self._keeper = keeper
        self._exchange = exchange
        self._keep = keep
        self.spec = msgspec.json.decode(run.spec, type=RunSpec)
        self.run = run.id
        self.name = run.name
        self.completed = run.completed
        self.stopping = False

    @property
    def rounds(self) -> int:
        """How many rounds the run has in all."""
        return self.spec.rounds

    @property
    def strategy(self) -> Strategy:
        """The strategy that the run names."""
        return strategy_of(self.spec)

    @property
    def commission(self) -> Commission:
        """The run as its grid needs it."""
        spec = self.spec
        wanted = spec.nodes if isinstance(spec.nodes, int) else tuple(spec.nodes)
        return Commission(self.run, self.name, spec.seed, spec.config, wanted)

    def state(self) -> RecordSet:
        """Return the state from which the run goes on, mapped from disk; the first one before its first round.

        Raises ``DigestMismatch`` if a disk has damaged it: no other model may be trained in its place.
        """
        kept = self._keeper.read(lambda connection: runs.state(connection, self.run))
        if kept is not None:
            return unpack(kept, self._keeper.whole)
        initial = initial_of(unpack(self.spec.initial, self._keeper.whole))
        return begin(self.strategy, initial, seed=self.spec.seed, run_config=self.spec.config)

    def previous(self) -> frozenset[int] | None:
        """Return the nodes that the last phase was planned with; None if the run has not begun."""
        for number, phase in self._phases():
            found = self._keeper.read(lambda connection: messages.phase(connection, self.run, number, phase))  # noqa: B023 - called at once
            if found is not None:
                return frozenset(number for _, number in found.roster)
        return None

    def _phases(self) -> list[tuple[int, str]]:
        phase, query = self.strategy.phase, str(MessageType.QUERY)
        return [(self.completed + 1, phase), (self.completed, phase), (0, query)]

    def handled(self, roster: Sequence[Node], message_type: str) -> bool:
        """Say whether any of some nodes handles a message type."""
        return self._exchange.handled(roster, message_type)

    def running(self) -> None:
        """The nodes that the run wants are there."""
        try:
            self._status("running")
        except WrongState:
            # Somebody stopped the run in the moment in which it began.
            self.stopping = self._keeper.read(lambda connection: runs.get(connection, self.run)).status == "stopping"
            if not self.stopping:
                raise

    def close_round(
        self, report: RoundReport, state: RecordSet, outcomes: Sequence[runs.Outcome], flying: Sequence[int]
    ) -> None:
        """Make the end of a round durable: blobs first, then report, state and outcomes in one transaction.

        ``flying`` are messages whose replies may count in later rounds; after the last one none do.
        """
        left = self._left(report.round, flying)
        needed = self._keeper.needed(self.run)
        closing = partial(
            runs.Closing,
            round=report.round,
            report=report.to_json(),
            digest=report.digest,
            outcomes=tuple(outcomes),
            flying=left,
        )
        self._keeper.store(state, lambda content: self._close(closing(state=content)))
        failpoint("server.round-committed")
        self.completed = report.round
        if left is not None:
            self._exchange.keep(self.run, left)
        self._keeper.discard(needed.keys() - self._keeper.needed(self.run).keys())

    def _left(self, number: int, flying: Sequence[int]) -> tuple[int, ...] | None:
        if self.strategy.policy.overlap is None:
            return None
        return () if number >= self.rounds else tuple(flying)

    def _close(self, closing: runs.Closing) -> None:
        failpoint("server.state-stored")
        now, present = time.time(), self._keeper.present

        def close(connection: sa.Connection) -> None:
            runs.close_round(connection, self.run, closing, now=now, present=present)
            if self._keep is not None:
                runs.trim(connection, self.run, self._keep)

        self._keeper.write(close)

    def finished(self) -> None:
        """The run is complete."""
        self._status("completed")

    def failed(self, reason: str, outcomes: Sequence[runs.Outcome]) -> None:
        """The run cannot go on by itself; it can be resumed, and asks again those whose answers did not count."""
        self._exchange.cancel_run(self.run, "the run failed")
        self._keeper.write(lambda connection: runs.record(connection, self.run, outcomes))
        self._status("failed", reason)

    def halted(self) -> None:
        """The loop was left: for good if the run is to stop, or until the server is there again."""
        if self.stopping:
            self._exchange.cancel_run(self.run, "the run was stopped")
            self._status("stopped", "stopped by request")

    def _status(self, status: str, reason: str = "") -> None:
        now = time.time()
        self._keeper.write(lambda connection: runs.set_status(connection, self.run, status, now=now, reason=reason))
