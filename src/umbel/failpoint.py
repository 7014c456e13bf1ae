"""Named places where a test may kill the process, so that every step of a protocol is crashed on purpose.

A failpoint costs one look into an empty mapping. Only the command line reads ``UMBEL_FAILPOINT`` and arms one.
"""

import os
import signal
from typing import Final

from umbel.errors import UsageError

__all__ = ["arm", "failpoint"]

_armed: Final[dict[str, int]] = {}


def arm(text: str) -> None:
    """Arm ``name:kill``, or ``name:kill:N`` for the N-th time that the place is passed (1 is the first).

    Raises ``UsageError`` for anything else.
    """
    name, _, action = text.partition(":")
    action, _, count = action.partition(":")
    if not name or action != "kill" or not (count or "1").isdecimal():
        raise UsageError(f"expected NAME:kill or NAME:kill:N, got {text!r:.80}", at="UMBEL_FAILPOINT")
    _armed[name] = int(count or "1")


def failpoint(name: str) -> None:
    """Mark a place; the process is killed here if the place was armed, as ``kill -9`` would."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
