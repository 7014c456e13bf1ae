"""Whether bytes move: judged by what the other side takes, never by how long the whole lasts."""

import asyncio
import socket
from typing import Final

#: Bytes a second that a body or an answer has to make, over three times ``stall``.
RATE: Final = 1024

_TCP_INFO: Final = getattr(socket, "TCP_INFO", 11)
_ACKED: Final = 120  # where `tcpi_bytes_acked` stands in `struct tcp_info`


def bytes_taken(transport: asyncio.BaseTransport | None) -> int:
    """Return how many bytes the other side has acknowledged, as the kernel counts them; 0 if it does not."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.fileno() < 0:
        return 0
    info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
    return int.from_bytes(info[_ACKED : _ACKED + 8], "little")


class Pace:
    """The pace of a transfer, looked at now and then: ``window`` seconds of waiting without enough bytes are too many.

    What the one who waits does in between counts for nobody.
    """

    def __init__(self, window: float, now: float, moved: int) -> None:
        self._window = window
        self._since: float | None = now
        self._waited = 0.0
        self._mark = moved

    def wait(self, now: float) -> None:
        """Begin to wait for the other side again."""
        self._since = now

    def rest(self, now: float) -> None:
        """Wait for the other side no longer, for now."""
        if self._since is not None:
            self._waited += now - self._since
            self._since = None

    def holds(self, now: float, moved: int) -> bool:
        """Say whether the transfer is quick enough, ``moved`` bytes having gone in all."""
        seconds = self._waited + (now - self._since if self._since is not None else 0.0)
        if seconds < self._window:
            return True
        if moved - self._mark < RATE * seconds:
            return False
        self._waited, self._mark = 0.0, moved
        if self._since is not None:
            self._since = now
        return True
