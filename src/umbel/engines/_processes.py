"""The engine that runs nodes in several processes of this machine."""

import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from umbel.app import ClientApp
from umbel.engines._channel import Channel, Closed
from umbel.engines._contents import Contents
from umbel.engines._crossing import start_of, task_of
from umbel.engines._frames import Done, Started, Task
from umbel.engines._heap import keep_freed_memory
from umbel.engines._pool import Pool, Worker
from umbel.engines._population import Population
from umbel.engines._queue import Flight, Queue
from umbel.engines._states import NodeStates, is_empty
from umbel.errors import AppError, MessageExpired, UsageError
from umbel.grid import Node
from umbel.message import Error, ErrorCode, Message
from umbel.records import dumps, loads

_Worker: TypeAlias = Worker[Flight]


class ProcessGrid:
    """A grid whose nodes run in ``workers`` processes, one for each core of this machine unless told otherwise.

    A worker imports the app by itself, from the module that holds it: ``AppError`` says so when no module does. Arrays
    cross in memory that both sides map, and a message's content is there once for all workers. A node's state stays
    here and counts together with its reply; the messages of one node run one after the other. A worker that dies is
    replaced, and the message that it was at has an error reply that says what killed it; a message whose time to live
    has passed is given up. Replies come as they are made. When too many would wait for an older one, workers wait.

    ``seed``, ``run_config`` and ``states`` are those of ``LocalGrid``, which gives the same results, to the bit.
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
    ) -> None:
        self._app = client_app
        self._population = population
        self._seed = seed
        self._states = NodeStates() if states is None else states
        count = _count(workers)
        self._pool: Pool[Flight] = Pool(start_of(client_app, run_config), count)
        self._queue = Queue(population.node, count)
        self._contents = Contents()
        self._arrived: deque[Message] = deque()
        keep_freed_memory()
        weakref.finalize(self, Pool.close, self._pool)  # no process outlives a grid that nobody has closed

    def nodes(self, round: int = 0, message_type: str = "train") -> Sequence[Node]:  # noqa: A002 - the field's word
        """Return the nodes of the population, sorted by name, the same ones in every phase."""
        del round, message_type
        return self._population.nodes

    def send(self, messages: Iterable[Message]) -> None:
        """Take messages; each is drawn from ``messages`` when a worker is about to be free."""
        self._queue.add(messages)

    def replies(self) -> Iterator[Message]:
        """Yield replies as nodes make them, in any order; a node that answers too late has none.

        Raises ``AppError`` when a worker cannot import the app, ``RecordError`` for a message whose content no
        container can hold, and ``UsageError`` for a node config that cannot cross.
        """
        while self._arrived or self._queue.is_waited_for:
            self._dispatch()
            if not self._arrived and self._pool.working():
                self._listen()
            while self._arrived:
                yield self._arrived.popleft()
        self._queue.forget_cancelled()

    def cancel(self, message_ids: Iterable[int]) -> None:
        """Give these messages up: those that no node has begun with never run, replies to the others are dropped.

        A node that goes on with one for longer than a second is ended with its process, if somebody waits meanwhile.
        """
        ids = set(message_ids)
        self._queue.cancel(ids)
        self._arrived = deque(reply for reply in self._arrived if reply.metadata.reply_to_message not in ids)

    def close(self) -> None:
        """End all workers, those that are busy at once, and forget what is outstanding."""
        self._pool.close()
        self._contents.close()
        self._queue = Queue(self._population.node, self._pool.size)
        self._arrived.clear()

    def _dispatch(self) -> None:
        while (worker := self._pool.free()) is not None and (flight := self._queue.take()) is not None:
            if flight.is_late:
                self._queue.end(flight)
                continue
            # Behind a node that is late it would be late as well; so it may be behind one that nobody waits for.
            if worker.tasks and (flight.has_deadline or not worker.tasks[0].is_wanted):
                self._queue.put_back([flight])
                return
            flight.given = time.monotonic()
            try:
                worker.channel.send(self._task(worker, flight))
                worker.tasks.append(flight)
            except Closed:
                worker.is_gone = True
                self._queue.put_back([flight])

    def _task(self, worker: _Worker, flight: Flight) -> Task:
        state = self._states.checkout(flight.node.name)
        content = self._contents.send(flight.batch, flight.message.content, worker.channel, worker.contents)
        body = None if is_empty(state) else worker.channel.body(dumps(state))
        return task_of(flight, self._population, self._seed, content=content, state=body)

    def _listen(self) -> None:
        for worker, frame in self._pool.frames(self._patience()):
            if frame is None:
                self._lose(worker)
            elif isinstance(frame, Started):
                _greet(worker, frame)
            else:
                self._take(worker, frame)
        for worker in self._pool.working():
            if worker.tasks[0].is_late or worker.tasks[0].ends_at <= time.monotonic():
                self._queue.end(worker.tasks.popleft())
                self._pool.lose(worker)
                self._queue.put_back(worker.tasks)

    def _patience(self) -> float | None:
        heads = [worker.tasks[0] for worker in self._pool.working()]
        left = [head.message.metadata.expires_at - time.time() for head in heads]
        left += [head.ends_at - time.monotonic() for head in heads]
        return max(0.0, min(left)) if left else None

    def _take(self, worker: _Worker, done: Done) -> None:
        flight = worker.tasks.popleft()
        self._pool.took(time.monotonic() - flight.given)
        if worker.tasks:
            worker.tasks[0].given = time.monotonic()
        reply = self._reply(worker.channel, flight, done)
        self._queue.end(flight, 0 if done.content is None else done.content.size)
        if reply is not None and flight.is_wanted:
            self._arrived.append(reply)

    def _reply(self, channel: Channel, flight: Flight, done: Done) -> Message | None:
        """Return the reply that a worker made, and commit the state that came with it: both count, or neither."""
        content = None if done.content is None else loads(channel.open(done.content))
        state = None if done.state is None else loads(channel.open(done.state))
        if done.metadata is None or not flight.is_wanted:
            return None
        if state is not None:
            self._states.commit(flight.node.name, state)
        reply = Message(done.metadata, content, done.error)
        return self._app.retell(reply) if reply.has_error() else reply

    def _lose(self, worker: _Worker) -> None:
        """Answer for a worker that is dead: the message that it was at has an error reply, the others go again."""
        how = self._pool.lose(worker)
        if not worker.has_started:
            raise AppError(f"a worker process did not survive the import of the app: {how}", at=worker.app)
        if worker.tasks:
            flight = worker.tasks.popleft()
            self._queue.end(flight)
            self._fail(flight, f"the process that ran the node did not survive it: {how}")
        self._queue.put_back(worker.tasks)

    def _fail(self, flight: Flight, reason: str) -> None:
        if flight.is_wanted:
            try:
                error = Error(ErrorCode.NODE_UNAVAILABLE, reason)
                self._arrived.append(flight.message.create_error_reply(error))
            except MessageExpired:
                return


def _greet(worker: _Worker, started: Started) -> None:
    if started.error is not None:
        raise AppError(started.error, at=started.at)
    worker.has_started = True


def _count(workers: int | None) -> int:
    """Return how many workers are wanted: the number that is given, or one for each core that this process may use."""
    if workers is None:
        return len(os.sched_getaffinity(0))
    if type(workers) is not int or workers < 1:
        raise UsageError(f"expected a number of workers, 1 or more, got {workers!r}", at="workers")
    return workers
