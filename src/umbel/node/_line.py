"""The node's line to its server: every call is repeated until the server answers."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from umbel.errors import (
    AuthError,
    BadAnswer,
    MemberRevoked,
    NodeSuperseded,
    ServerUnreachable,
    TlsError,
    TooManyRequests,
    UmbelError,
    VersionMismatch,
    WrongOffset,
)
from umbel.http import Client, backoff
from umbel.http.wire import Poll, Polled
from umbel.node._status import Board
from umbel.records._files import map_file

_T = TypeVar("_T")
_NAMELESS: Final = 10.0  # seconds for which a host without an address is tried, where nobody has answered yet
_NOTHING: Final = "blake3:" + "0" * 64  # a digest that no blob has
_FATAL = (AuthError, MemberRevoked, NodeSuperseded, TlsError, VersionMismatch)


def is_fatal(error: UmbelError) -> bool:
    """Say whether a node must end: nothing that it could ask would be answered."""
    return isinstance(error, _FATAL)


def _passes(error: UmbelError, *, is_known: bool) -> bool:
    """Say whether trying again may help; an upload that went on elsewhere asks where it stands, and goes on there."""
    if isinstance(error, BadAnswer):
        return is_known
    if isinstance(error, ServerUnreachable | TooManyRequests | WrongOffset):
        return True
    return not is_fatal(error) and error.http_status >= 500  # noqa: PLR2004 - faults of the server


def _has_no_address(error: BaseException | None) -> bool:
    """Say whether it is the name of the host that leads nowhere."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__
    return error is not None


class Line:
    """A client that waits for a server that is away, for ever, and says so on the board.

    A node that has not joined yet waits for ever too, since its server may start later; but not for a host that has no
    address, whose name is then misspelt, nor for what answers in its place.
    """

    def __init__(self, client: Client, board: Board) -> None:
        self._client = client
        self._board = board

    async def hello(self) -> str:
        """Return the id of the server; raises ``ServerUnreachable`` for a host that never had an address."""
        return (await self._patiently(self._client.hello, proves=False)).server

    async def recognised(self) -> None:
        """Return once the server has recognised this node; raises ``AuthError`` if it does not."""
        await self._patiently(lambda: self._client.stat_blob(_NOTHING))

    async def call(self, name: str, body: Any) -> Any:
        """Ask an endpoint; raises what the server answers, if waiting does not help."""
        return await self._patiently(lambda: self._client.call(name, body))

    async def poll(self, body: Poll) -> Polled:
        """Ask for work, which takes as long as there is none."""
        polled: Polled = await self._patiently(lambda: self._client.call("poll", body), parks=True)
        return polled

    async def fetch(self, digest: str, path: Path) -> int:
        """Fetch a blob into a file, from where that ends, and return its size; ``DigestMismatch`` if it is another."""
        try:
            return await self._patiently(lambda: self._client.get_blob(digest, path))
        finally:
            self._board.change(received=self._client.bytes_received)

    async def send(self, digest: str, path: Path, progress: Callable[[int], None]) -> None:
        """Send a blob, from where the server has it."""
        mapped = map_file(path)
        try:
            await self._patiently(lambda: self._client.put_blob(digest, mapped, progress=progress))
        finally:
            self._board.change(sent=self._client.bytes_sent)

    def _say(self, error: UmbelError) -> None:
        """Say what is waited for. A server that has no room left is there, and answers polls, which would hide it."""
        if isinstance(error, ServerUnreachable | TooManyRequests | WrongOffset):
            self._board.turn("away", error.message)
        else:
            self._board.note(str(error))

    async def _patiently(
        self, operation: Callable[[], Awaitable[_T]], *, proves: bool = True, parks: bool = False
    ) -> _T:
        """Return what an operation returns, once it can be done; ``proves`` if only a member of the server could.

        The answer to one that ``parks`` may be long in coming: a server that was away is asked for a word first.
        """
        waits, since, lost = backoff(), time.monotonic(), False
        while True:
            try:
                if parks and lost:
                    await self._client.stat_blob(_NOTHING)
                    self._board.turn("connected")
                result = await operation()
            except UmbelError as error:
                if not _passes(error, is_known=self._client.member != 0):
                    raise
                if not self._client.member and _has_no_address(error):
                    error = self._nameless(error)
                    if time.monotonic() - since > _NAMELESS:
                        raise error from None
                self._say(error)
                lost = isinstance(error, ServerUnreachable)
                await asyncio.sleep(error.retry_after if isinstance(error, TooManyRequests) else next(waits))
            else:
                if proves:
                    self._board.turn("connected")
                return result

    def _nameless(self, error: UmbelError) -> UmbelError:
        host = urlsplit(self._client.url).hostname
        message = (
            f"expected the name of a host, got {host}, which has no address here: check how it is spelt in the line "
            "that was copied, and whether this machine can look names up"
        )
        return type(error)(message)
