"""Messages on their way to nodes that run at the same time: which may go next, and which are still wanted."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import Final

from umbel.grid import Node
from umbel.message import DEFAULT_TTL, Message

# Replies that came before their turn may take this much memory, and however large they are, so many for each worker.
_BYTES: Final = 256 * 2**20
_FOR_EACH_WORKER: Final = 2
# So many messages to nodes that are busy may be passed over for those behind them.
_PASSED_OVER: Final = 64
# Seconds. A new process takes about as long to begin: so long a worker may go on with what nobody waits for.
_GRACE: Final = 1.0


class Flight:
    """A message on its way to a node; ``given`` is when a worker got it."""

    __slots__ = ("batch", "given", "is_alone", "is_wanted", "message", "node", "number")

    def __init__(self, message: Message, node: Node, batch: int, number: int) -> None:
        self.message = message
        self.node = node
        self.batch = batch
        self.number = number
        self.is_wanted = True
        self.is_alone = False
        self.given = 0.0

    @property
    def is_late(self) -> bool:
        """Whether the message's time to live has passed."""
        return self.message.metadata.expires_at <= time.time()

    @property
    def ends_at(self) -> float:
        """When a worker may not go on with it, by ``time.monotonic``: never while somebody waits for the reply."""
        return inf if self.is_wanted else self.given + _GRACE

    @property
    def has_deadline(self) -> bool:
        """Whether somebody has set the message a time to live, which is shorter than the usual one."""
        return self.message.metadata.ttl < DEFAULT_TTL


class Queue:
    """The messages of an engine, drawn from whoever sends them when a worker is free.

    A node has one message at a time, so that it sees the state that the one before has left.
    """

    def __init__(self, node_of: Callable[[int], Node], workers: int) -> None:
        self._node_of = node_of
        self._window = _Window(_FOR_EACH_WORKER * workers)
        self._sources: deque[tuple[int, Iterator[Message]]] = deque()
        self._batches = self._drawn = 0
        self._next: Flight | None = None
        self._back: deque[Flight] = deque()
        self._passed: list[Flight] = []
        self._flying: dict[int, Flight] = {}
        self._cancelled: set[int] = set()

    def add(self, messages: Iterable[Message]) -> None:
        """Take a batch of messages."""
        self._batches += 1
        self._sources.append((self._batches, iter(messages)))

    def take(self) -> Flight | None:
        """Return the message that may go next, if one may: the first to a node that is not busy."""
        if self._back:
            return self._back.popleft()
        for passed in self._passed:
            if passed.node.node_id not in self._flying:
                self._passed.remove(passed)
                return self._go(passed)
        while self._window.is_open and len(self._passed) < _PASSED_OVER and (flight := self._peek()) is not None:
            self._next = None
            self._window.begin(flight.number)
            if flight.node.node_id not in self._flying and not self._is_passed(flight.node):
                return self._go(flight)
            self._passed.append(flight)
        return None

    def _go(self, flight: Flight) -> Flight:
        self._flying[flight.node.node_id] = flight
        return flight

    def _is_passed(self, node: Node) -> bool:
        return any(flight.node == node for flight in self._passed)

    def _peek(self) -> Flight | None:
        while self._next is None and self._sources:
            batch, source = self._sources[0]
            message = next(source, None)
            if message is None:
                self._sources.popleft()
            elif message.metadata.message_id not in self._cancelled:
                self._drawn += 1
                node = self._node_of(message.metadata.dst_node_id)
                self._next = Flight(message, node, batch, self._drawn)
        return self._next

    def put_back(self, flights: Iterable[Flight]) -> None:
        """Let messages that were taken, and that no node has begun with, go again before all others."""
        for flight in reversed(list(flights)):
            if flight.is_wanted:
                self._back.appendleft(flight)
            else:
                self.end(flight)

    def end(self, flight: Flight, size: int = 0) -> None:
        """Note that a message has its reply, of ``size`` bytes, or will have none."""
        del self._flying[flight.node.node_id]
        self._window.end(flight.number, size)

    @property
    def is_waited_for(self) -> bool:
        """Whether a reply is still to come."""
        is_wanted = any(flight.is_wanted for flight in self._flying.values())
        return is_wanted or bool(self._passed) or self._peek() is not None

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give messages up; those that a node is at run on, and nobody waits for them."""
        self._cancelled.update(message_ids)
        for flight in self._flying.values():
            flight.is_wanted = flight.is_wanted and flight.message.metadata.message_id not in self._cancelled
        for flight in [flight for flight in self._back if not flight.is_wanted]:
            self._back.remove(flight)
            self.end(flight)
        for flight in [flight for flight in self._passed if flight.message.metadata.message_id in self._cancelled]:
            self._passed.remove(flight)
            self._window.end(flight.number, 0)
        if self._next is not None and self._next.message.metadata.message_id in self._cancelled:
            self._next = None

    def forget_cancelled(self) -> None:
        """Let message ids that were given up be used again."""
        self._cancelled.clear()


class _Window:
    """How far replies may run ahead of the oldest message that has none.

    The sum over a cohort is taken in one order, so whoever reads the replies has to keep one that is early. With one
    slow node and a thousand fast ones, a thousand models would wait; workers wait instead.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[int, None] = {}
        self._ahead: list[tuple[int, int]] = []
        self._bytes = 0

    @property
    def is_open(self) -> bool:
        return len(self._ahead) < self._most or self._bytes < _BYTES

    def begin(self, number: int) -> None:
        self._open[number] = None

    def end(self, number: int, size: int) -> None:
        del self._open[number]
        heappush(self._ahead, (number, size))
        self._bytes += size
        oldest = next(iter(self._open), None)
        while self._ahead and (oldest is None or self._ahead[0][0] < oldest):
            self._bytes -= heappop(self._ahead)[1]
