"""The line to a server: connections, and what goes wrong with them as named errors."""

import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from umbel.errors import ServerUnreachable, UmbelError
from umbel.http._token import read_address
from umbel.http._trust import tls_error, trust

_SKIPPED: Final = ("Accept", "Accept-Encoding", "User-Agent")
# Not every OSError: what goes wrong with a file inside is not the line's fault.
_BROKEN: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, ssl.SSLError)
_KEPT: Final = 30.0  # seconds that an idle connection is kept: less than servers keep theirs


class Line:
    """A pool of connections to one server. ``stall`` is how long, in seconds, one may make no progress."""

    def __init__(self, url: str, *, fingerprint: str, stall: float) -> None:
        self.url = read_address(url)
        self.stall = stall
        self._trust = trust(fingerprint) if self.url.startswith("https") else True
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """Return the pool, made in the event loop that first needs it."""
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT, ssl=self._trust)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_SKIPPED,
                auto_decompress=False,
                trust_env=False,
            )
            # A request that is sent again by itself carries a nonce that was used, and hides that bytes went twice.
            self._session._retry_connection = False  # noqa: SLF001
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def request(
        self, method: str, target: str, headers: dict[str, str], data: Any = None, *, wait: float | None = 0.0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its answer, whose body is read inside.

        ``wait`` is how long, in seconds, the server may hold the answer on purpose; ``None`` if whoever asks watches
        over that.

        Raises ``ServerUnreachable`` or ``TlsError`` for what goes wrong on the line, inside too.
        """
        silent = None if wait is None else wait + 3 * self.stall
        timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=self.stall, sock_read=silent)
        try:
            async with self.session().request(
                method,
                self.url + target,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                yield response
        except _BROKEN as error:
            raise self._named(error) from error

    def _named(self, error: BaseException) -> UmbelError:
        for cause in _causes(error):
            named = tls_error(cause, self.url)
            if named is not None:
                return named
        reason = " ".join(_reason(error).split()) or type(error).__name__
        tls = "" if self.url.startswith("https:") else "; one with TLS is at https"
        message = f"expected an answer, got none ({reason:.300}): check the address, and that the server runs{tls}"
        return ServerUnreachable(message, at=self.url)


def _reason(error: BaseException) -> str:
    """Return what the system says of a connection that could not be made, and of anything else its own text."""
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number) if number is not None and number > 0 else str(error.os_error.strerror or error)
    return str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
