"""How a node is, for people and programs on the same machine: ``status.json`` in its folder."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from umbel.errors import UsageError
from umbel.http.wire import Task

_FILE: Final = "status.json"
_PAUSE: Final = 0.25  # seconds between two writes of the file
_LOG: Final = logging.getLogger("umbel.node")


class Running(msgspec.Struct, frozen=True):
    """The message that a node handles, and since when (seconds since 1970)."""

    run: str
    round: int
    message_type: str
    since: float


class Status(msgspec.Struct, frozen=True):
    """A node as it last changed. Times are in seconds since 1970, counts are since ``started``.

    ``state`` is one of "starting", "connected", "away" and "ended", each ``since`` a time and, where there is one, for
    a ``reason``; while it starts that is what it does, "loads app:app". ``completed`` and ``failed`` count messages,
    ``last_error`` is why the last of the latter failed.
    """

    name: str
    url: str
    app: str
    pid: int
    started: float
    state: str
    since: float
    reason: str = ""
    running: Running | None = None
    holding: int = 0
    completed: int = 0
    failed: int = 0
    last_error: str = ""
    sent: int = 0
    received: int = 0


def read_status(folder: str | Path) -> Status:
    """Return the status of the node whose folder this is.

    A node that was killed cannot say so: see whether process ``pid`` is there. Raises ``UsageError`` if there is none.
    """
    path = Path(folder) / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except FileNotFoundError:
        raise UsageError("expected the folder of a node, got none: umbel node makes one", at=str(folder)) from None
    except msgspec.DecodeError as error:
        raise UsageError(f"expected the status of a node, got something else: {error}", at=str(path)) from error


class Board:
    """Tells ``watch`` of the status when it changes, and keeps it on the disk, where it is a moment old at most.

    The event loop alone uses it.
    """

    def __init__(self, folder: Path, name: str, url: str, app: str, watch: Callable[[Status], object]) -> None:
        self._path = folder / _FILE
        self._watch = watch
        self._late: asyncio.TimerHandle | None = None
        self._written = 0.0
        now = time.time()
        self.status = Status(name, url, app, os.getpid(), now, "starting", now, f"loads {app}")
        self._put(self.status)

    def change(self, **changes: Any) -> None:
        """Set fields of the status."""
        changed = msgspec.structs.replace(self.status, **changes)
        if changed != self.status:
            self._put(changed)

    def turn(self, state: str, reason: str = "") -> None:
        """Set the state, which is then new."""
        if (state, reason) != (self.status.state, self.status.reason):
            since = self.status.since if state == self.status.state else time.time()
            self.change(state=state, reason=reason, since=since)

    def begin(self, task: Task) -> None:
        """Say that a message is being handled."""
        self.change(running=Running(task.run_name, task.round, task.message_type, time.time()))

    def end(self, error: str | None) -> None:
        """Say that the message is finished, or why it failed."""
        if error is None:
            self.change(running=None, completed=self.status.completed + 1)
        else:
            self.change(running=None, failed=self.status.failed + 1, last_error=error)

    def note(self, error: str) -> None:
        """Say what went wrong, though the node goes on."""
        self.change(last_error=error)

    def _put(self, status: Status) -> None:
        if status.last_error != self.status.last_error:
            _LOG.warning("%s", status.last_error)
        self.status = status
        self._watch(status)
        if self._late is None:
            wait = self._written + _PAUSE - time.monotonic()
            self._late = asyncio.get_running_loop().call_later(max(wait, 0), self.write)

    def write(self) -> None:
        """Write the file, now."""
        if self._late is not None:
            self._late.cancel()
        self._late, self._written = None, time.monotonic()
        early = self._path.with_suffix(".tmp")
        with suppress(OSError):  # a node on a full disk goes on; its status is then old
            early.write_bytes(msgspec.json.format(msgspec.json.encode(self.status)) + b"\n")
            early.replace(self._path)
