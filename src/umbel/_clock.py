"""The time of day, as long as this process lives: whoever sets the machine's clock does not move it."""

import time
from typing import Final

_START: Final = time.time() - time.monotonic()


def now() -> float:
    """Return seconds since 1970 that only go forward, and never jump: a time to live must not end by a correction."""
    return _START + time.monotonic()
