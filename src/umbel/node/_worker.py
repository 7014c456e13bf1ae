"""The node's end of the process in which handlers run."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from umbel.errors import AppError
from umbel.failpoint import failpoint
from umbel.message import ErrorCode
from umbel.node import _jobs
from umbel.node._jobs import Job, Loaded, NotLoaded, Outcome, Said, Setup

_CHUNK: Final = 65_536


class Worker:
    """One long-lived process that has loaded an app and handles one message at a time.

    ``memory`` (bytes) and ``handler`` (seconds for one message) are the limits of the node's operator, if any. The
    process is started by the first use, and again by the first use after it died. It ends with this process, or with
    the thread that started it, and what handlers print goes to this process's standard error.
    """

    def __init__(
        self,
        app: str,
        folder: str | Path,
        *,
        memory: int | None = None,
        handler: float | None = None,
        tracebacks: bool = False,
    ) -> None:
        self._setup = Setup(app, str(folder), memory, tracebacks)
        self._limit = handler
        self._process: _Process | None = None

    def start(self) -> tuple[str, ...]:
        """Start the process, wait until it has loaded the app, and return the message types that the app handles.

        Raises ``AppError`` with file and line when it cannot.
        """
        self.stop()
        self._process = process = _Process(self._setup)
        try:
            said = process.hear(None)
        except _EndedError as ended:
            self.stop()
            raise AppError(f"the process that loads the app {ended}", at=f"--app {self._setup.app}") from None
        if isinstance(said, Loaded):
            return said.types
        self.stop()
        raise AppError(said.message, at=said.at) if isinstance(said, NotLoaded) else _unexpected(said)

    def run(self, job: Job) -> Outcome:
        """Handle a message. Whatever happens to the process comes back as an outcome with an error that names it."""
        if self._process is None:
            try:
                self.start()
            except AppError as error:
                return _jobs.failed(ErrorCode.LOAD_CLIENT_APP_EXCEPTION, str(error))
        try:
            said = self._ask(job)
        except _EndedError as ended:
            self.stop()
            return _jobs.failed(ErrorCode.HANDLER_LOST, f"the process of the handler {ended}")
        if not isinstance(said, Outcome):
            raise _unexpected(said)
        return said

    def _ask(self, job: Job) -> Said:
        process = self._process
        if process is None:
            raise _EndedError("was stopped")
        process.tell(job)
        failpoint("node.training")
        return process.hear(self._limit)

    def kill(self) -> None:
        """Kill the process, from any thread; a message that it is handling ends with an error."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End the process, and what its handlers started; no message may be under way."""
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _EndedError(Exception):
    """The process ended, or was killed for taking too long; the text continues "the process ..."."""


class _Process:
    """A child process and the two pipes to it. It leads a group of its own, which is killed as a whole."""

    def __init__(self, setup: Setup) -> None:
        theirs, self._requests = os.pipe()
        self._responses, answers = os.pipe()
        command = (sys.executable, "-u", "-P", "-m", "umbel.node._child", str(theirs), str(answers))
        self._memory = setup.memory
        self._child = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a handler prints belongs to the log, and must not spoil what the node prints
            pass_fds=(theirs, answers),
            start_new_session=True,
        )
        os.close(theirs)
        os.close(answers)
        self._end = os.pidfd_open(self._child.pid)
        self._heard = b""
        self.tell(setup)

    def tell(self, value: object) -> None:
        """Send a line; raises ``_EndedError`` if nobody is there to read it."""
        view = memoryview(_jobs.line(value))
        try:
            while view:
                view = view[os.write(self._requests, view) :]
        except BrokenPipeError:
            raise _EndedError(self._cause()) from None

    def hear(self, limit: float | None) -> Said:
        """Return what the process says next; raises ``_EndedError`` if it ends or is silent for ``limit`` seconds."""
        deadline = None if limit is None else time.monotonic() + limit
        while b"\n" not in self._heard:
            if not self._wait(deadline):
                self.kill()
                raise _EndedError(
                    f"took longer than the {limit:g} s that the operator of this node allows for a message"
                )
            chunk = os.read(self._responses, _CHUNK)
            if not chunk:
                raise _EndedError(self._cause())
            self._heard += chunk
        text, _, self._heard = self._heard.partition(b"\n")
        return _jobs.said(text)

    def _wait(self, deadline: float | None) -> bool:
        """Wait until there is something to read; False if the deadline passes first."""
        poll = select.poll()
        poll.register(self._responses, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        left = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
        ready = [descriptor for descriptor, _ in poll.poll(left)]
        if self._responses in ready:
            return True
        if ready:  # it ended, and a process that its handler started still holds the pipe
            raise _EndedError(self._cause())
        return False

    def _cause(self) -> str:
        """Return how the process ended."""
        status = self._child.wait()
        if status >= 0:
            return f"ended with exit status {status}: it must go on until its node ends"
        number = -status
        text = f"was killed by signal {number} ({signal.Signals(number).name})"
        if self._memory is not None:
            return f"{text}; the operator of this node lets it have {self._memory:,} bytes of memory"
        return f"{text}; the system does that when memory runs out" if number == signal.SIGKILL else text

    def kill(self) -> None:
        """Kill the process and its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill, wait for the end, and close the pipes."""
        self.kill()
        self._child.wait()
        for descriptor in (self._requests, self._responses, self._end):
            os.close(descriptor)


def _unexpected(said: Said) -> RuntimeError:
    return RuntimeError(f"the process of the handler said {type(said).__name__} where it must not")
