"""How much memory asyncio holds for a TLS connection: little while it idles, more while a blob comes in.

Stock asyncio allocates 256 KiB for every connection, which a thousand idle polls do not need; a blob that comes in
16 KiB at a time costs twice the CPU. Another event loop, such as uvloop, has its own way and is left alone.
"""

import asyncio
import ctypes
from asyncio import sslproto
from typing import Any, Final

_IDLE: Final = 4 * 1024
_BULK: Final = 256 * 1024


def shrink() -> None:
    """Let every new TLS connection of this process begin with little room."""
    sslproto.SSLProtocol.max_size = _IDLE


def widen(transport: asyncio.BaseTransport | None) -> None:
    """Give a connection room for bulk."""
    protocol = _protocol(transport)
    if protocol is not None:
        protocol.max_size = _BULK  # its buffer grows when it next reads


def narrow(transport: asyncio.BaseTransport | None) -> None:
    """Take the room back."""
    protocol = _protocol(transport)
    if protocol is not None and hasattr(protocol, "_ssl_buffer_view"):
        protocol.max_size = _IDLE
        protocol._ssl_buffer = bytearray(_IDLE)  # noqa: SLF001  # asyncio only ever lets it grow
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)  # noqa: SLF001


def trim() -> None:
    """Give memory back that handshakes have used and left in pieces: after a thousand of them, 25 MB."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
    if give_back is not None:
        give_back(0)


def _protocol(transport: asyncio.BaseTransport | None) -> Any:
    protocol = getattr(transport, "_ssl_protocol", None)
    return protocol if isinstance(protocol, sslproto.SSLProtocol) else None
