"""What programs that have ended may have left behind: processes, and memory that these share, as Linux shows them."""

import os
from contextlib import suppress
from pathlib import Path


def processes_of(session):
    """The processes of a session, whichever group each is in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if stat[3] == str(session) and stat[0] != "Z":
                found.append(int(entry.name))
    return found


def everyone():
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def files_in_use(pids):
    """The files that processes have open or mapped, each with the number of its inode."""
    for pid in pids:
        with suppress(OSError):
            mapped = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
            yield from ((line[5], int(line[4])) for line in mapped if len(line) > 5)
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    yield str(descriptor.readlink()), descriptor.stat().st_ino


def shared_memory(pids):
    """The memory that workers and their engine share, which are files without a name."""
    return {inode for path, inode in files_in_use(pids) if path.startswith("/memfd:umbel")}


def named_memory():
    """Shared memory that has a name, of this user: what others have open cannot be seen."""
    found = set()
    for entry in Path("/dev/shm").rglob("*"):
        with suppress(OSError):
            if entry.is_file() and entry.stat().st_uid == os.getuid():
                found.add(str(entry))
    return found


def left_behind(before):
    """Shared memory that is new, has a name, and is nobody's: a process that has ended left it."""
    new = named_memory() - before
    return new - {path for path, _ in files_in_use(everyone())} if new else new
