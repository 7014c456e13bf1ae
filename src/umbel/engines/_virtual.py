"""The engine on a clock of its own: nodes run here and now, their replies come when their devices would be done."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import nextafter
from typing import Final, NamedTuple

import msgspec

from umbel.app import ClientApp
from umbel.engines._devices import Devices, drawn
from umbel.engines._heap import keep_freed_memory
from umbel.engines._population import Population
from umbel.engines._runner import Runner, unhurried
from umbel.engines._states import NodeStates
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message


class _Flight(NamedTuple):
    """A reply that will come: flights are in the order of their arrival, and of sending where that is the same."""

    arrival: float
    number: int
    last: float
    message: Message
    is_lost: bool


class VirtualGrid:
    """A grid whose nodes take the time that ``devices`` say, on a virtual clock that nobody waits for.

    The clock, ``now`` (in seconds, from 0, and in a resumed run from where it was), stands still while the loop works,
    and jumps to the arrival of each reply that the loop takes. Replies come in the order of arrival, and
    ``metadata.created_at`` of a reply is its arrival; a message is sent when the loop sends it. A node has one message
    at a time. For a reply that a device drops, or that would come after its message's time to live on this clock, an
    error reply comes when that time is over.

    A node runs when its reply is taken, with the content that it was sent. ``seed``, ``run_config`` and ``states`` are
    those of ``LocalGrid``: with a loop that takes every reply, so are the results, to the bit.
    """

    #: Takes messages while others are outstanding.
    overlapping: Final = True

    def __init__(
        self,
        client_app: ClientApp,
        population: Population,
        *,
        devices: Devices | None = None,
        seed: int = 0,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        states: NodeStates | None = None,
    ) -> None:
        self._states = NodeStates() if states is None else states
        self._runner = Runner(client_app, population, seed, run_config, self._states)
        self._devices = drawn(seed=seed) if devices is None else devices
        self._coming: list[_Flight] = []
        self._busy: dict[int, tuple[float, int]] = {}
        self._sent = 0
        keep_freed_memory()

    @property
    def now(self) -> float:
        """The time on the virtual clock, in seconds."""
        return self._states.clock

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the population, sorted by name, the same ones in every phase, online or not."""
        del round, message_type
        return self._runner.population.nodes

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages, all of them now."""
        for message in messages:
            self._send(message)

    def _send(self, message: Message) -> None:
        asked = message.metadata
        node = self._runner.population.node(asked.dst_node_id)
        free_at, waiting = self._busy.get(node.node_id, (self.now, 0))
        arrival = self._devices(node, asked, max(free_at, self.now))
        last = self.now + asked.ttl
        is_lost = arrival is None or arrival >= last
        if arrival is None or is_lost:
            arrival = nextafter(last, 0.0)
        else:
            self._busy[node.node_id] = arrival, waiting + 1
        self._sent += 1
        heappush(self._coming, _Flight(arrival, self._sent, last, message, is_lost))

    def replies(self) -> Iterator[Message]:
        """Yield replies in the order of their arrival on the virtual clock, until none is to come any more."""
        while self._coming:
            flight = heappop(self._coming)
            self._states.clock = max(self.now, flight.arrival)
            reply = self._reply(flight)
            if reply is not None:
                yield _restamped(reply, flight)
                reply = None  # its memory is free again when the next node runs

    def _reply(self, flight: _Flight) -> Message | None:
        if not flight.is_lost:
            self._free(flight)
            return self._runner.run(unhurried(flight.message))
        asked = flight.message.metadata
        reason = f"no reply within {asked.ttl:,.0f} s, on the virtual clock"
        return flight.message.create_error_reply(Error(ErrorCode.NODE_UNAVAILABLE, reason), now=asked.created_at)

    def _free(self, flight: _Flight) -> None:
        node_id = flight.message.metadata.dst_node_id
        until, waiting = self._busy.pop(node_id)
        if waiting > 1:
            self._busy[node_id] = until, waiting - 1

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Let these messages pass without running their nodes, and without waiting for them."""
        ids = set(message_ids)
        coming = self._coming
        self._coming = []
        for flight in coming:
            if flight.message.metadata.message_id not in ids:
                self._coming.append(flight)
            elif not flight.is_lost:
                self._free(flight)
        heapify(self._coming)

    def close(self) -> None:
        """Forget what is outstanding."""
        self._coming.clear()
        self._busy.clear()


def _restamped(reply: Message, flight: _Flight) -> Message:
    ttl = min(reply.metadata.ttl, flight.last - flight.arrival)
    metadata = msgspec.structs.replace(reply.metadata, created_at=flight.arrival, ttl=ttl)
    return Message(metadata, error=reply.error) if reply.has_error() else Message(metadata, reply.content)
