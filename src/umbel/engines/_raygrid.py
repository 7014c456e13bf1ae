"""The engine that runs nodes on a Ray cluster, on this machine or on many."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import Any, Final

import msgspec

from umbel.app import ClientApp
from umbel.engines._batch import Bytes, Results, Returned, joined
from umbel.engines._contents import Version, Versions
from umbel.engines._crossing import start_of, task_of
from umbel.engines._population import Population
from umbel.engines._queue import Flight, Queue
from umbel.engines._ray import RayTasks
from umbel.engines._raycluster import RayCluster
from umbel.engines._states import NodeStates, is_empty
from umbel.errors import AppError, MessageExpired
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message
from umbel.records import dumps, loads

# Messages that share a task are expected to take a fraction of a second together. After so many seconds one of them
# takes long, or will never end; then each of them runs by itself.
_TOGETHER = 10.0


class RayGrid:
    """A grid whose nodes run on a Ray cluster, ``workers`` messages at a time, or as many as the cluster has room for.

    A cluster that this process is connected to already is used as it is, if ``cluster.address`` is not that of another;
    otherwise the one at this address is, and without an address, a cluster is started on this machine, with Ray's
    authentication switched on, and stopped by ``close``. Its processes import the app from the module that holds it, as
    those of ``ProcessGrid`` do, so it has to be there on every machine.

    A message's content is put into Ray's object store once, moves to a machine once, and is read there without a copy;
    short messages share a Ray task. A node's state stays here and counts together with its reply. A process that dies
    costs the message that it was at, which has an error reply; a message whose time to live has passed is given up.

    ``seed``, ``run_config`` and ``states`` are those of ``LocalGrid``, which gives the same results, to the bit. Raises
    ``MissingExtra`` when Ray is not installed, and ``UsageError`` for a cluster that is not there or has no room, or is
    another one than that which this process is connected to.
    """

    #: Takes messages while others are outstanding.
    overlapping: Final = True

    def __init__(
        self,
        client_app: ClientApp,
        population: Population,
        *,
        workers: int | None = None,
        seed: int = 0,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        states: NodeStates | None = None,
        cluster: RayCluster | None = None,
    ) -> None:
        self._app = client_app
        self._population = population
        self._seed = seed
        self._states = NodeStates() if states is None else states
        self._start = msgspec.msgpack.encode(start_of(client_app, run_config))
        self._tasks = RayTasks(cluster or RayCluster(), workers)
        self._queue = Queue(population.node, self._tasks.room)
        self._versions = Versions()
        self._running: dict[Any, list[Flight]] = {}
        self._arrived: deque[Message] = deque()

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the population, sorted by name, the same ones in every phase."""
        del round, message_type
        return self._population.nodes

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages; each is drawn from ``messages`` when the cluster is about to have room for it."""
        self._queue.add(messages)

    def replies(self) -> Iterator[Message]:
        """Yield replies as nodes make them, in any order; a node that answers too late has none.

        Raises ``AppError`` when a process of the cluster cannot import the app, ``RecordError`` for a message whose
        content no container can hold, and ``UsageError`` for a node config that cannot cross.
        """
        while self._arrived or self._queue.is_waited_for:
            for flights, version in self._batches():
                self._running[self._submit(flights, version)] = flights
            if self._running and not self._arrived:
                self._listen()
            while self._arrived:
                yield self._arrived.popleft()
        self._queue.forget_cancelled()

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give these messages up: those that no node has begun with never run, replies to the others are dropped."""
        ids = set(message_ids)
        self._queue.cancel(ids)
        self._arrived = deque(reply for reply in self._arrived if reply.metadata.reply_to_message not in ids)

    def close(self) -> None:
        """Stop what runs, and the cluster if it was started here; nothing is outstanding afterwards."""
        self._queue = Queue(self._population.node, 1)
        self._arrived.clear()
        self._tasks.stop(self._running)
        self._running.clear()

    def _batches(self) -> Iterator[tuple[list[Flight], Version]]:
        """Yield messages for as many tasks as there is room for, spread evenly."""
        room = self._tasks.room - len(self._running)
        taken = self._taken(room * self._tasks.size)
        most = ceil(len(taken) / room) if room else 0
        while taken:
            first, version = taken[0]
            count = 1
            while count < min(most, len(taken)) and _go_together(first, version, *taken[count]):
                count += 1
            yield [flight for flight, _ in taken[:count]], version
            taken = taken[count:]

    def _taken(self, most: int) -> list[tuple[Flight, Version]]:
        taken: list[tuple[Flight, Version]] = []
        while len(taken) < most and (flight := self._queue.take()) is not None:
            if flight.is_late:
                self._queue.end(flight)
            else:
                flight.given = time.time()
                taken.append((flight, self._versions.of(flight.message.content, flight.batch)))
        return taken

    def _submit(self, flights: list[Flight], version: Version) -> Any:
        tasks = [task_of(flight, self._population, self._seed) for flight in flights]
        states = [self._states.checkout(flight.node.name) for flight in flights]
        kept = [None if is_empty(state) else joined(dumps(state)) for state in states]
        return self._tasks.submit((self._start, [msgspec.msgpack.encode(task) for task in tasks], kept), version)

    def _listen(self) -> None:
        patience = max(0.0, min(map(_deadline, self._running.values())) - time.time())
        for task in self._tasks.ready(self._running, patience):
            self._take(self._running.pop(task), self._tasks.results(task))
        now = time.time()
        late = {task: flights for task, flights in self._running.items() if _deadline(flights) <= now}
        self._tasks.kill(late)
        for task, flights in late.items():
            del self._running[task]
            self._run_alone(flights)  # those whose time to live is over end when they are taken

    def _take(self, flights: list[Flight], results: Results | str) -> None:
        if isinstance(results, str):
            self._lose(flights, results)
            return
        if results.refusal is not None:
            raise AppError(results.refusal[0], at=results.refusal[1])
        for flight, answer in zip(flights, results.answers, strict=True):
            reply = self._reply(flight, *answer)
            self._queue.end(flight, 0 if answer[1] is None else answer[1].nbytes)
            if reply is not None:
                self._arrived.append(reply)

    def _reply(self, flight: Flight, said: bytes, content: Bytes | None, state: Bytes | None) -> Message | None:
        """Return the reply that a node made, and commit the state that came with it: both count, or neither."""
        returned = msgspec.msgpack.decode(said, type=Returned)
        if returned.metadata is None or not flight.is_wanted:
            return None
        if state is not None:
            self._states.commit(flight.node.name, loads(state))
        reply = Message(returned.metadata, None if content is None else loads(content), returned.error)
        return self._app.retell(reply) if reply.has_error() else reply

    def _lose(self, flights: list[Flight], reason: str) -> None:
        """Answer for a task that failed: its one message has an error reply; of several, each has to run alone."""
        if len(flights) > 1:
            self._run_alone(flights)
            return
        self._queue.end(flights[0])
        if flights[0].is_wanted:
            with suppress(MessageExpired):
                error = Error(ErrorCode.NODE_UNAVAILABLE, f"the process that ran the node did not survive it: {reason}")
                self._arrived.append(flights[0].message.create_error_reply(error))

    def _run_alone(self, flights: list[Flight]) -> None:
        for flight in flights:
            flight.is_alone = True
        self._queue.put_back(flights)


def _deadline(flights: list[Flight]) -> float:
    """Return until when a task may run; several messages were put together because they do not take long."""
    last = min(flight.message.metadata.expires_at for flight in flights)
    return last if len(flights) == 1 else min(last, flights[0].given + _TOGETHER)


def _go_together(first: Flight, version: Version, flight: Flight, other: Version) -> bool:
    return version.number == other.number and not (_goes_alone(first) or _goes_alone(flight))


def _goes_alone(flight: Flight) -> bool:
    """Say whether nobody may share the task: behind a node that is late, there would be no time for a second try."""
    return flight.is_alone or flight.message.metadata.expires_at - flight.given < 2 * _TOGETHER
