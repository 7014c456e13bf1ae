"""A server that listens."""

import asyncio
from typing import Any, Self

from aiohttp import web

from umbel.errors import UsageError
from umbel.http import _buffers
from umbel.http._calls import Handlers, Hooks, Lookup
from umbel.http._certificate import Certificate
from umbel.http._door import Door
from umbel.http._gate import Gate
from umbel.http._guard import Connection, Watch
from umbel.http._settings import Settings
from umbel.http._site import Site
from umbel.http._table import ENDPOINTS
from umbel.http._token import is_loopback

_OWN = ("hello", "openapi")
_OPTIONAL = ("metrics",)
_BUFFER = 512 * 1024  # bytes of a body that are read ahead; up to twice as many
_RELOAD = 5.0  # seconds between two looks at the files of the certificate
_GRACE = 2.0  # seconds that requests have to be answered when a server ends


class _Manager(web.Server):
    """Makes connections that are watched."""

    def __init__(self, handler: Any, watch: Watch) -> None:
        super().__init__(handler)
        self._watch = watch
        self._own_loop = asyncio.get_running_loop()

    def __call__(self) -> Connection:
        return Connection(
            self,
            self._watch,
            loop=self._own_loop,
            keepalive_timeout=75.0,
            access_log=None,
            max_headers=64,
            lingering_time=2.0,
            auto_decompress=False,
            read_bufsize=_BUFFER,
        )


class Service:
    """A server that listens; made by ``serve``. ``port`` is where, ``audience`` what signatures have to name."""

    def __init__(self, site: Site, door: Door, watch: Watch, hooks: Hooks) -> None:
        self._hooks = hooks
        self._renewal: asyncio.Task[None] | None = None
        self._site = site
        self._door = door
        self._watch = watch
        self._manager = _Manager(site.handle, watch)
        self._gate: Gate | None = None
        self.audience = door.audience
        self.port = 0

    async def _listen(self, settings: Settings) -> None:
        context = None if settings.certificate is None else settings.certificate.context
        gate = Gate(self._manager, self._watch, context, stall=settings.stall, handshakes=settings.limits.handshakes)
        await gate.open(settings.host, settings.port)
        self._gate, self.port = gate, gate.port
        self._watch.start()
        if settings.certificate is not None:
            renewal = self._renew(settings.certificate)
            self._renewal = asyncio.get_running_loop().create_task(renewal, name="umbel-http-renewal")

    async def _renew(self, certificate: Certificate) -> None:
        while True:
            await asyncio.sleep(_RELOAD)
            try:
                certificate.reload()
            except UsageError as error:
                self._hooks.fault(error)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._watch)

    def forget(self, member: int) -> None:
        """Look a member up anew and end what it waits for: its key was changed, or it was revoked."""
        self._door.forget(member)
        self._site.release(member)

    async def close(self) -> None:
        """Listen no more, end what waits, and give the rest a moment to be answered."""
        if self._gate is not None:
            await self._gate.close()
        self._site.release()
        self._manager.pre_shutdown()  # what idles is closed at once
        await self._manager.shutdown(_GRACE)
        await self._watch.stop()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve(handlers: Handlers, lookup: Lookup, settings: Settings, hooks: Hooks | None = None) -> Service:
    """Listen, and answer every endpoint of the table with its handler.

    Args:
        handlers: an async function for every endpoint but "hello" and "openapi", which are answered here; without
            one for "metrics" there are none.
        lookup: returns the member of a number. Its answer is remembered for 2 seconds, or until ``Service.forget``.
        settings: where and how to listen.
        hooks: what to tell the owner of the server.

    Raises:
        UsageError: if a handler is missing, or one is given that the table does not know.
        OSError: if the address cannot be listened on.

    """
    known = {endpoint.name for endpoint in ENDPOINTS} - set(_OWN)
    wrong = sorted((known - set(_OPTIONAL) - set(handlers)) | (set(handlers) - known))
    if wrong:
        raise UsageError(
            f"expected a handler for every endpoint, missing or unknown: {', '.join(wrong)}", at="handlers"
        )
    if settings.certificate is None and not is_loopback(settings.host):
        message = f"expected a certificate, since {settings.host} is not this machine; plain HTTP is for loopback"
        raise UsageError(message, at="settings.certificate")
    door = Door(lookup, settings.skew)
    hooks = hooks or Hooks()
    site = Site(handlers, door, settings, hooks)
    service = Service(site, door, Watch(settings.stall, settings.limits.connections), hooks)
    if settings.certificate is not None:
        _buffers.shrink()
    await service._listen(settings)  # noqa: SLF001  # made here, and only here
    return service
