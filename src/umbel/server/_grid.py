"""The grid whose nodes are elsewhere: what the loop asks is planned in the ledger before anybody hears of it."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

from umbel import _clock
from umbel.envelope import unpack
from umbel.errors import RecordError, RecordTypeError, StoreError
from umbel.failpoint import failpoint
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message, Metadata
from umbel.server._exchange import Exchange
from umbel.server._plans import Commission, Fate, Halted, Note, Phase
from umbel.store.messages import Ask, Plan

_LOOK_AGAIN: Final = 0.25  # seconds; nodes come, and fall silent, without telling every run
_NEARLY_ALL: Final = 0.999_999  # of a time to live: a reply has some left
_GIVEN_UP: Final = "the loop gave it up"


class NetworkGrid:
    """Implements ``umbel.grid.Grid`` for one run of a server; used by the thread that drives the run.

    Everything that is asked is in the ledger before a node can see it, with the nodes there were; so a phase that is
    planned already is taken up where it is, replies in the order in which they came. ``previous`` are the nodes of the
    last phase that was planned, None before the first. ``halt`` ends every wait with ``Halted``.
    """

    def __init__(self, exchange: Exchange, commission: Commission, previous: Iterable[int] | None) -> None:
        self._exchange = exchange
        self._commission = commission
        self._previous = None if previous is None else frozenset(previous)
        self._inbox: SimpleQueue[Fate | None] = SimpleQueue()
        self._halted = False
        self._phase: Phase | None = None
        self._offered: tuple[int, str, Sequence[Node]] = (0, "", ())
        self._open: dict[int, Message] = {}
        self._earlier: frozenset[int] = frozenset()
        self._names: dict[int, str] = {}
        #: What is known of the messages of a round, by phase and node.
        self.notes: dict[tuple[str, str], Note] = {}
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
        self._phase = self._exchange.phase(self._commission.run, round, message_type)
        roster = self._wait_for_nodes(message_type) if self._phase is None else self._phase.roster
        self._offered = (round, message_type, roster)
        return roster

    def _wait_for_nodes(self, message_type: str) -> Sequence[Node]:
        while True:
            self._require_running()
            offer = self._exchange.offer(self._commission, message_type, self._previous)
            if not offer.missing:
                return offer.roster
            self._next(_LOOK_AGAIN)

    def send(self, messages: Iterable[Message]) -> None:
        """Plan the messages in one transaction and let the nodes have them; take up what is planned already."""
        self._require_running()
        _number, message_type, roster = self._offered
        names = {node.node_id: node.name for node in roster}
        self._open = {message.metadata.message_id: message for message in messages}
        self._phase = self._phase or self._plan(self._open)
        self._names = {number: names[message.metadata.dst_node_id] for number, message in self._open.items()}
        sent = self._phase.sent
        self.notes.update(((message_type, name), Note(number, sent)) for number, name in self._names.items())
        self._earlier = frozenset(fate.message for fate in self._phase.settled)
        for fate in self._phase.settled:
            self._inbox.put(fate)
        self._previous = frozenset(names)

    def _plan(self, asked: Mapping[int, Message]) -> Phase:
        number, message_type, roster = self._offered
        if not asked:
            return Phase(roster, _clock.now(), 0)
        first = next(iter(asked.values()))
        make = partial(
            Plan,
            run=self._commission.run,
            round=number,
            phase=message_type,
            roster=tuple(roster),
            ttl=first.metadata.ttl,
            asks=tuple(Ask(each, slot, asked[each].metadata.dst_node_id) for slot, each in enumerate(asked)),
        )
        return self._exchange.plan(self._commission, first.content, lambda content: make(content=content))

    def replies(self) -> Iterator[Message]:
        """Yield a reply to every message, as they come: content mapped from disk, or an error that says what happened.

        A node that is lost, and a reply that cannot be read, are error replies.
        """
        while self._open:
            fate = self._next(None)
            message = None if fate is None else self._open.pop(fate.message, None)
            if fate is not None and message is not None:
                if fate.stored:
                    fate = self._exchange.answer(self._commission.run, fate)
                begun = time.perf_counter()
                yield self._reply(message, fate)
                self._note(fate, time.perf_counter() - begun)
                failpoint("server.aggregating")
        failpoint("server.quorum")

    def _note(self, fate: Fate, gate: float) -> None:
        key = self._offered[1], self._names[fate.message]
        if fate.seconds is not None:
            self.notes[key] = self.notes[key]._replace(seconds={**fate.seconds, "gate": gate})

    def _next(self, seconds: float | None) -> Fate | None:
        try:
            found = self._inbox.get(timeout=seconds)
        except Empty:
            return None
        self._require_running()
        return found

    def _reply(self, message: Message, fate: Fate) -> Message:
        metadata = self._metadata(message.metadata, fate)
        if fate.content is None:
            return Message(metadata, error=Error(fate.error_code, fate.reason))
        get = self._exchange.whole if fate.message in self._earlier else self._exchange.blob
        try:
            return Message(metadata, unpack(fate.content, get))
        except (RecordError, RecordTypeError, StoreError) as error:
            fault = f"expected a reply that can be read, got one that cannot: {error}"
            return Message(metadata, error=Error(ErrorCode.BAD_REPLY, fault))

    def _metadata(self, asked: Metadata, fate: Fate) -> Metadata:
        """Return where a reply comes from, when it came, and what is left of its message's time to live."""
        planned = 0.0 if self._phase is None else self._phase.at
        # Whether it came in time was decided when it came.
        taken = min(max(0.0, fate.at - planned), asked.ttl * _NEARLY_ALL) if fate.at else 0.0
        return Metadata(
            run_id=asked.run_id,
            message_id=0,
            src_node_id=asked.dst_node_id,
            dst_node_id=asked.src_node_id,
            reply_to_message=asked.message_id,
            group_id=asked.group_id,
            ttl=asked.ttl - taken,
            message_type=asked.message_type,
            created_at=fate.at or asked.created_at,
        )

    def _require_running(self) -> None:
        if self._halted:
            raise Halted

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give messages up, durably; a node that has one is told to forget it."""
        given_up = [each for each in message_ids if self._open.pop(each, None) is not None]
        self._exchange.cancel(self._commission.run, given_up, _GIVEN_UP)

    def close(self) -> None:
        """Hear nothing more. What is open stays planned: whoever drives the run next takes it up."""
        self._exchange.detach(self._commission.run)
        self._open.clear()
