"""Run a command for at most so many seconds, and leave nothing behind of what it started.

    python _within.py SECONDS COMMAND ...

Exits as the command does, or with 124, as `timeout` would, if it did not end. Ray's processes have groups and sessions
of their own, and some lose their parent, so that no group holds them all: on Linux, whoever loses its parent becomes a
child of this process, and everything below it is killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress

from _processes import tree

DID_NOT_END = 124
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


def sweep() -> None:
    """Kill what is below this process, until nothing is: what is killed last may have started more."""
    while below := tree(os.getpid())[1:]:
        for process in below:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def main(seconds: float, command: list[str]) -> int:
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)
    try:
        return subprocess.Popen(command).wait(seconds)
    except subprocess.TimeoutExpired:
        return DID_NOT_END
    finally:
        sweep()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
