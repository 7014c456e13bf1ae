"""What ``umbel doctor`` looks at: each check is one line, with its mend if something is wrong."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from umbel.cli._text import safe, size
from umbel.errors import AppError
from umbel.node import Worker

_LITTLE: Final = 1_000_000_000
_TOO_LITTLE: Final = 100_000_000


class Check(NamedTuple):
    """What was looked at, how it is ("ok", "warn" or "fail"), what was found, and how to mend it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def versions() -> Iterator[Check]:
    """Look at what is installed here."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("umbel", "ok", f"{version('umbel')} on Python {python}")


def folder_checks(path: Path) -> Iterator[Check]:
    """Look at a data folder: that it is there, may be written, and is nobody else's; and at the room on its disk."""
    if not path.is_dir():
        yield Check("data folder", "fail", f"{safe(str(path))} is not there", "name it with --data, or start it first")
        return
    yield _writable(path)
    yield _private(path)
    yield _room(path)


def _writable(path: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        mend = f"give it to the user that runs umbel: chown -R {os.geteuid()} {safe(str(path))}"
        return Check("data folder", "fail", f"{safe(str(path))} cannot be written: {error.strerror}", mend)
    return Check("data folder", "ok", f"{safe(str(path))} can be written")


def _private(path: Path) -> Check:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"other users may enter it (mode {stat.S_IMODE(mode):o})"
        return Check("rights", "warn", found, f"chmod 700 {safe(str(path))}")
    owner = path.stat().st_uid
    if owner != os.geteuid():
        return Check("rights", "warn", f"it belongs to user {owner}, and you are {os.geteuid()}", "run as that user")
    return Check("rights", "ok", "only you may enter it")


def _room(path: Path) -> Check:
    usage = shutil.disk_usage(path)
    found = f"{size(usage.free)} of {size(usage.total)} free"
    mend = "make room: umbel server --keep N trims old rounds, or move the folder to a larger disk"
    if usage.free < _TOO_LITTLE:
        return Check("disk", "fail", found, mend)
    return Check("disk", "warn" if usage.free < _LITTLE else "ok", found, mend if usage.free < _LITTLE else "")


def app_loads(app: str, folder: Path) -> Check:
    """Look whether the process in which handlers run can load the app."""
    worker = Worker(app, folder)
    try:
        types = worker.start()
    except AppError as error:
        return Check("app", "fail", safe(str(error)), "mend the line, or install what is missing here")
    finally:
        worker.stop()
    return Check("app", "ok", f"{safe(app)} handles {', '.join(map(safe, types)) or 'nothing'}")
