"""The grid whose nodes are elsewhere: what the loop asks is planned in the ledger before anybody hears of it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from typing import Final

from umbel.envelope import unpack
from umbel.errors import NotFound, RecordError, RecordTypeError
from umbel.failpoint import failpoint
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message, Metadata
from umbel.server._exchange import Exchange
from umbel.server._phases import Phases
from umbel.server._plans import Asked, Commission, Fate, Halted, Note

_LOOK_AGAIN: Final = 0.25  # seconds; nodes come, and fall silent, without telling every run
_GIVEN_UP: Final = "the round went on without it"


class NetworkGrid:
    """Implements ``umbel.grid.Grid`` for one run of a server; used by the thread that drives the run.

    Everything that is asked is in the ledger before a node can see it, with the nodes there were; so a phase that is
    planned already is taken up where it is, replies in the order in which they came. ``previous`` are the nodes of the
    last phase that was planned, None before the first. ``halt`` ends every wait with ``Halted``.
    """

    #: Takes messages while others are outstanding.
    overlapping: Final = True

    def __init__(self, exchange: Exchange, commission: Commission, previous: Iterable[int] | None) -> None:
        self._exchange = exchange
        self._commission = commission
        self._previous = None if previous is None else frozenset(previous)
        self._phases = Phases(exchange, commission)
        self._inbox: SimpleQueue[Fate | None] = SimpleQueue()
        self._came: list[tuple[float, int, Fate]] = []
        self._numbers = count()
        self._halted = False
        self._open: dict[int, Asked] = {}
        self._earlier: set[int] = set()
        #: The message that a node answered last, or that was given up, by phase and node.
        self.landed: dict[tuple[str, str], int] = {}
        #: What is known of these messages.
        self.notes: dict[int, Note] = {}
        exchange.attach(commission.run, self._inbox.put)

    def halt(self) -> None:
        """Leave the loop at its next wait. Any thread may call this."""
        self._halted = True
        self._inbox.put(None)

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return whom a phase was planned with; before it is, whoever is there and handles the type, by name.

        Waits, and says so in the run's row, until the nodes that the run wants are there; once it has begun, until
        any node is.
        """
        planned = self._phases.roster(round, message_type)
        if planned is not None:
            return planned
        roster = self._wait_for_nodes(message_type)
        self._phases.offer(round, message_type, roster)
        return roster

    def _wait_for_nodes(self, message_type: str) -> Sequence[Node]:
        while True:
            self._require_running()
            offer = self._exchange.offer(self._commission, message_type, self._previous)
            if not offer.missing:
                return offer.roster
            self._hear(_LOOK_AGAIN)

    def send(self, messages: Iterable[Message]) -> None:
        """Plan messages of a phase in one transaction and let the nodes have them; take up what is planned already.

        More of a phase, or of another, may be sent while some are open.
        """
        self._require_running()
        for asked, fate in self._phases.ask(list(messages)):
            self._open[asked.message.metadata.message_id] = asked
            if fate is not None:
                self._earlier.add(fate.message)
                self._take(fate)
            self._previous = self._phases.members(asked.message)

    def replies(self) -> Iterator[Message]:
        """Yield a reply to every message, as they come: content mapped from disk, or an error that says what happened.

        A node that is lost, and a reply that cannot be read, are error replies. Raises ``StoreError`` for one that the
        disk does not give at present: the reply is good, and is there when the run is taken up again.
        """
        while self._open:
            fate = self._next()
            asked = self._open.pop(fate.message, None)
            if asked is None:
                continue
            if fate.stored:
                fate = self._exchange.answer(self._commission.run, fate)
            self._land(asked)
            begun = time.perf_counter()
            try:
                yield self._reply(asked, fate)
            finally:  # the loop may have had enough, and ask for no more
                self._note(fate, time.perf_counter() - begun)
                failpoint("server.aggregating")
        failpoint("server.quorum")

    def _note(self, fate: Fate, gate: float) -> None:
        if fate.seconds is not None and fate.message in self.notes:
            self.notes[fate.message] = self.notes[fate.message]._replace(seconds={**fate.seconds, "gate": gate})

    def _land(self, asked: Asked) -> None:
        metadata = asked.message.metadata
        self.landed[metadata.message_type, asked.name] = metadata.message_id
        self.notes[metadata.message_id] = Note(metadata.group_id, asked.sent)

    def _next(self) -> Fate:
        """Return what came first of what has come; wait until something has."""
        while True:
            while not self._inbox.empty():
                self._hear(None)
            self._require_running()
            if self._came:
                return heappop(self._came)[-1]
            self._hear(None)

    def _hear(self, seconds: float | None) -> None:
        try:
            fate = self._inbox.get(timeout=seconds)
        except Empty:
            return
        self._require_running()
        if fate is not None:
            self._take(fate)

    def _take(self, fate: Fate) -> None:
        if fate.message not in self._open:
            self._phases.heard(fate)
        elif not self._phases.is_stale(fate):
            # What waits goes in the order in which the ledger has it: so it would come after a crash.
            heappush(self._came, (fate.at, next(self._numbers), fate))

    def _reply(self, asked: Asked, fate: Fate) -> Message:
        metadata = _metadata(asked, fate)
        if fate.content is None:
            return Message(metadata, error=fate.error)
        get = self._exchange.whole if fate.message in self._earlier else self._exchange.blob
        try:
            return Message(metadata, unpack(fate.content, get))
        except (NotFound, RecordError, RecordTypeError) as error:
            fault = f"expected a reply that can be read, got one that cannot: {error}"
            return Message(metadata, error=Error(ErrorCode.BAD_REPLY, fault))

    def _require_running(self) -> None:
        if self._halted:
            raise Halted

    @property
    def flying(self) -> tuple[int, ...]:
        """The messages that are open, or whose replies the loop has not seen."""
        return tuple(self._open)

    def closed(self) -> None:
        """Forget what has landed: its story is told."""
        self.landed.clear()
        self.notes.clear()

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give messages up, durably; a node that has one is told to forget it."""
        given_up = [each for each in message_ids if each in self._open]
        for each in given_up:
            self._land(self._open.pop(each))
        self._exchange.cancel(self._commission.run, given_up, _GIVEN_UP)

    def close(self) -> None:
        """Hear nothing more. What is open stays planned: whoever drives the run next takes it up."""
        self._exchange.detach(self._commission.run)
        self._open.clear()


def _metadata(asked: Asked, fate: Fate) -> Metadata:
    """Return where a reply comes from, when it came, and what is left of its message's time to live."""
    passed = max(0.0, fate.at - asked.at)
    passed -= asked.gone if passed > asked.gone else 0.0  # it came after the server was there again
    return asked.message.metadata.answered(fate.at, passed)
