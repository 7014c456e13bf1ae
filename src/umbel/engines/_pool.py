"""Worker processes: started when there is work, replaced when they die, and never left behind."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Final, Generic, TypeVar

from umbel.engines._channel import Channel, Closed
from umbel.engines._frames import Start, Stop, ToEngine

# How long workers may take to end by themselves, in seconds; then they are killed.
_PATIENCE: Final = 1.0
_MAIN: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from umbel.engines import _worker; "
    "_worker.main(int(sys.argv[2]))"
)
# In seconds. The system takes no number of milliseconds above 2**31; whoever waits longer looks in between.
_LONGEST_WAIT: Final = 86_400.0
# Tasks of up to so many seconds wait in line at a worker, so that it does not wait for the engine in between.
_LINES: Final = ((0.005, 4), (0.05, 2))

T = TypeVar("T")


class Worker(Generic[T]):
    """One process, the first of a group of its own, with the tasks that it was given and has not done."""

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours, ToEngine)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of ours
                [sys.executable, "-c", _MAIN, json.dumps(start.paths), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what nodes print must not mix with what the engine's process writes
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C reaches the engine alone, and a kill reaches what a node has started
            )
        self.end = os.pidfd_open(self._process.pid)
        self.tasks: deque[T] = deque()
        self.contents: list[int] = []
        self.has_started = self.is_gone = False
        self.app = str(start.app)
        self.send(start)

    def send(self, frame: Start | Stop) -> bool:
        """Send a frame; False if the worker is gone."""
        try:
            self.channel.send(frame)
        except Closed:
            self.is_gone = True
        return not self.is_gone

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the worker and to what its nodes have started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.end, number)  # a node may have taken it out of its group

    def bury(self) -> str:
        """Make sure that the worker is dead, give back what it had here, and say how it ended."""
        self.is_gone = True
        self.kill()  # one that is ending already keeps its status
        status = self._process.wait()
        self.channel.close()
        os.close(self.end)
        return _how(status)

    def has_ended(self, deadline: float) -> bool:
        """Wait until the worker has ended or the deadline has passed; say which."""
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        return bool(poll.poll(1_000 * max(0.0, deadline - monotonic())))


def _how(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    hint = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"


class Pool(Generic[T]):
    """Up to ``size`` workers; the next one is started when all others are busy."""

    def __init__(self, start: Start, size: int) -> None:
        self._start = start
        self.size = size
        self._workers: list[Worker[T]] = []
        self._poll = select.poll()
        self._line = 1
        self._owner = os.getpid()

    def free(self) -> Worker[T] | None:
        """Return the worker that has least to do, a new one if all are busy, or None if all have enough."""
        alive = [worker for worker in self._workers if not worker.is_gone]
        least = min(alive, key=lambda worker: len(worker.tasks), default=None)
        if (least is None or least.tasks) and len(self._workers) < self.size:
            return self._hire()
        return least if least is not None and len(least.tasks) < self._line else None

    def _hire(self) -> Worker[T]:
        worker: Worker[T] = Worker(self._start)
        self._workers.append(worker)
        self._poll.register(worker.channel, select.POLLIN)
        self._poll.register(worker.end, select.POLLIN)
        return worker

    def took(self, seconds: float) -> None:
        """Learn how long a task takes: short ones wait in line at a worker, long ones for whichever is free first."""
        self._line = next((line for most, line in _LINES if seconds <= most), 1)

    def frames(self, timeout: float | None) -> Iterator[tuple[Worker[T], ToEngine | None]]:
        """Wait, and yield what workers say; None for one that says nothing any more, which ``lose`` must be told."""
        milliseconds = None if timeout is None else 1_000 * min(timeout, _LONGEST_WAIT)
        ready = {descriptor for descriptor, _ in self._poll.poll(milliseconds)}
        for worker in list(self._workers):
            if worker.channel.fileno() in ready:
                yield worker, _frame(worker)
            elif worker.end in ready:  # with a socket that is silent, because what it has started holds it open
                yield worker, None

    def lose(self, worker: Worker[T]) -> str:
        """Let go of a worker, killing it if it is alive; its place is filled when there is work. Say how it ended."""
        self._workers.remove(worker)
        self._poll.unregister(worker.channel)
        self._poll.unregister(worker.end)
        return worker.bury()

    def working(self) -> list[Worker[T]]:
        """Return the workers that have tasks."""
        return [worker for worker in self._workers if worker.tasks]

    def close(self) -> None:
        """End all workers: the idle ones by themselves, the busy ones at once, all of them within a second or so."""
        if os.getpid() != self._owner:
            return  # a fork of the engine's process, which ends before it
        try:
            for worker in self._workers:
                if worker.tasks or not worker.has_started or not worker.send(Stop()):
                    worker.kill(signal.SIGTERM)
            deadline = monotonic() + _PATIENCE
            for worker in self._workers:
                worker.has_ended(deadline)
        finally:
            for worker in list(self._workers):
                self.lose(worker)


def _frame(worker: Worker[T]) -> ToEngine | None:
    try:
        frame: ToEngine = worker.channel.receive()
    except Closed:
        return None
    return frame
