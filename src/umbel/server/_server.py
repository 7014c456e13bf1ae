"""A server: its parts, wired, from the first to the last moment of a start."""

import asyncio
import logging
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import Final

from umbel.errors import StoreError, UsageError
from umbel.http import Certificate, Handlers, Hooks, Member, Service, is_loopback, serve
from umbel.http import Settings as Listening
from umbel.server._delivery import Delivery
from umbel.server._desk import Desk
from umbel.server._exchange import Exchange
from umbel.server._folder import About, Folder, ensure_operator
from umbel.server._handlers import NodeEndpoints, OperatorEndpoints, RunEndpoints
from umbel.server._housekeeping import Housekeeping
from umbel.server._keeper import Keeper
from umbel.server._mains import Mains
from umbel.server._members import Members
from umbel.server._metrics import Metrics
from umbel.server._presence import Presence
from umbel.server._reboot import recover
from umbel.server._registry import Registry
from umbel.server._runs import Runs
from umbel.server._settings import Settings
from umbel.server._transfers import Transfers
from umbel.store import DirectoryBlobs, Ledger, ObjectBlobs, Uploads, members

_LOG: Final = logging.getLogger("umbel.server")
_THREADS: Final = 16  # that wait for the disk
_SAFE_POINT: Final = 1.0  # seconds that drivers have to leave their loops
_RELEASE: Final = version("umbel")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Server:
    """One server, on one data folder. ``ready`` is called, in the event loop, once it listens."""

    def __init__(self, settings: Settings, ready: Callable[[About], object] = lambda _about: None) -> None:
        self._settings = settings
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: StoreError | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until ``stop``; go on with every run that was going on.

        Raises:
            LedgerInUse: if another server has the data folder.
            StoreError: if what is kept cannot be read, or, later, if the disk has failed under the ledger.
            OSError: if the address cannot be listened on.

        """
        _let_many_connect()
        with _signals_given_back(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._main())

    def stop(self) -> None:
        """End ``run``. Any thread may call this."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for number in _SIGNALS:
            with suppress(ValueError, RuntimeError):  # a server in a thread other than the first gets no signals
                self._loop.add_signal_handler(number, self._stop.set)
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "umbel-disk"))
        async with AsyncExitStack() as held:
            about = await _Start(self._settings, held, self._fail).listen()
            self._ready(about)
            await self._stop.wait()
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: StoreError) -> None:
        """End because of what cannot be mended while the server runs."""
        self._failure = failure
        if self._stop is not None:
            self._stop.set()


class _Start:
    """One start of a server; what it opens is closed by ``held``, in the opposite order."""

    def __init__(self, settings: Settings, held: AsyncExitStack, fatal: Callable[[StoreError], object]) -> None:
        self._settings = settings
        self._held = held
        self._fatal = fatal
        self._folder = Folder(settings.data)
        self._presence = Presence(settings.silence)
        self._metrics = Metrics()
        self._certificate = _certificate(settings, self._folder)
        self._service: Service | None = None

    async def listen(self) -> About:
        """Open what is kept, go on with the runs, and listen."""
        keeper = self._keep()
        await asyncio.to_thread(recover, keeper, self._folder.boot)
        key = self._folder.identity().key
        operator = await keeper.commit(lambda connection: ensure_operator(connection, key))
        registry, desk = Registry(await keeper.look(members.every), operator.id, self._presence), Desk()
        exchange = Exchange(keeper, desk, self._presence, registry)
        runs = self._runs(keeper, exchange)
        delivery = Delivery(keeper, exchange, desk, registry, self._presence)
        handlers = self._handlers(keeper, registry, delivery, runs)
        # What nodes may have is laid out before the first of them can ask.
        await runs.take_up()
        self._held.callback(exchange.close)
        self._held.push_async_callback(runs.leave, _SAFE_POINT)
        self._keep_house(keeper, registry, delivery)
        service = await self._serve(handlers, registry)
        self._held.callback(runs.halt)
        return self._say(operator.id, service.port)

    def _keep(self) -> Keeper:
        settings, folder = self._settings, self._folder
        ledger = self._held.enter_context(Ledger.open(settings.database or folder.ledger))
        blobs = ObjectBlobs(settings.blobs, folder.blobs) if settings.blobs else DirectoryBlobs(folder.blobs)
        room = shutil.disk_usage(folder.uploads).free * 9 // 10
        keeper = Keeper(ledger, blobs, Uploads(folder.uploads, blobs, largest=room), self._metrics)
        self._held.callback(keeper.close)
        return keeper

    def _runs(self, keeper: Keeper, exchange: Exchange) -> Runs:
        settings = self._settings
        return Runs(
            keeper,
            exchange,
            self._metrics,
            self._folder.scratch,
            keep=settings.keep,
            mains=Mains(keeper, exchange, settings.poll, for_users=settings.mains),
            fatal=self._fatal,
        )

    def _handlers(self, keeper: Keeper, registry: Registry, delivery: Delivery, runs: Runs) -> Handlers:
        people = Members(keeper, registry, self._changed)
        transfers = Transfers(keeper.blobs, keeper.uploads)
        return self._metrics.counting(
            {
                **NodeEndpoints(delivery, people, transfers, self._audience, self._settings.poll).all(),
                **RunEndpoints(runs, registry).all(),
                **runs.mains.all(registry.node),
                **OperatorEndpoints(people, delivery, registry, self._metrics).all(),
            }
        )

    def _keep_house(self, keeper: Keeper, registry: Registry, delivery: Delivery) -> None:
        self._metrics.nodes.set_function(registry.count_online)
        housekeeping = Housekeeping(keeper, delivery, registry, self._certificate, self._fatal)
        self._held.push_async_callback(_cancel, asyncio.create_task(housekeeping.run()))

    async def _serve(self, handlers: Handlers, registry: Registry) -> Service:
        async def look_up(number: int) -> Member | None:
            found = registry.find(number)
            return None if found is None else Member(found.id, found.key, registry.kind(found))

        hooks = Hooks(progress=self._moved, fault=_fault)
        service = await serve(handlers, look_up, self._listening(), hooks)
        self._service = await self._held.enter_async_context(service)
        return service

    def _listening(self) -> Listening:
        settings = self._settings
        return Listening(
            name=self._folder.server,
            release=_RELEASE,
            host=settings.host,
            port=settings.port,
            certificate=self._certificate,
            stall=settings.stall,
            skew=settings.skew,
            limits=settings.limits,
        )

    def _say(self, operator: int, port: int) -> About:
        scheme, host = "http" if self._certificate is None else "https", self._settings.names[0]
        about = About(
            server=self._folder.server,
            member=operator,
            key_file=str(self._folder.operator.absolute()),
            url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}",
            fingerprint="" if self._certificate is None else self._certificate.fingerprint,
        )
        self._folder.say(about)
        return about

    def _audience(self) -> str:
        return "" if self._service is None else self._service.audience

    def _changed(self, member: int) -> None:
        if self._service is not None:
            self._service.forget(member)

    def _moved(self, member: int, count: int) -> None:
        self._presence.moved(member)
        self._metrics.bytes.inc(count)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the faster event loop of the extra ``uvloop``, if it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextmanager
def _signals_given_back() -> Iterator[None]:
    """Leave signals to whoever had them before: a loop of uvloop that has closed may still have them."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            # In a thread other than the first they were not touched; of some handlers Python does not know.
            with suppress(ValueError, TypeError):
                signal.signal(number, handler)


def _let_many_connect() -> None:
    """Open as many files as the system allows: a node has two connections, and 1,024 files are the usual bar."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _certificate(settings: Settings, folder: Folder) -> Certificate | None:
    """Return what the server shows, None for plain HTTP.

    Raises ``UsageError`` for plain HTTP that others could listen to.
    """
    if settings.certificate is not None and settings.key is not None:
        return Certificate(settings.certificate, settings.key)
    if not settings.plain:
        return Certificate.keep(folder.keys, settings.names)
    if not is_loopback(settings.host):
        raise UsageError(
            f"expected a loopback address for plain HTTP, which anybody on the way can read, got {settings.host}: "
            "use TLS, which needs no further work",
            at="host",
        )
    return None


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _fault(error: BaseException) -> None:
    _LOG.error("a request met a fault of the server", exc_info=error)
