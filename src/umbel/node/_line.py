"""The node's line to its server: every call is repeated until the server answers."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

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
from umbel.node._status import Board
from umbel.records._files import map_file

_T = TypeVar("_T")
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


class Line:
    """A client that waits for a server that is away, for ever, and says so on the board.

    One that ``is_known`` to be there is waited for also if something else answers in its place.
    """

    def __init__(self, client: Client, board: Board, *, is_known: bool = True) -> None:
        self._client = client
        self._board = board
        self._is_known = is_known

    async def hello(self) -> str:
        """Return the id of the server."""
        return (await self._patiently(self._client.hello)).server

    async def call(self, name: str, body: Any) -> Any:
        """Ask an endpoint; raises what the server answers, if waiting does not help."""
        return await self._patiently(lambda: self._client.call(name, body))

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
            self._board.turn("away", str(error))
        else:
            self._board.note(str(error))

    async def _patiently(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        waits = backoff()
        while True:
            try:
                result = await operation()
            except UmbelError as error:
                if not _passes(error, is_known=self._is_known):
                    raise
                self._say(error)
                await asyncio.sleep(error.retry_after if isinstance(error, TooManyRequests) else next(waits))
            else:
                self._board.turn("connected")
                return result
