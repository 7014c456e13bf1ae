"""A node: its parts, wired."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from umbel.node._bench import Bench
from umbel.node._inbox import Inbox
from umbel.node._line import Line
from umbel.node._membership import client_for, name_for, read_membership, take_place
from umbel.node._outbox import Outbox
from umbel.node._settings import Settings
from umbel.node._spool import Spool
from umbel.node._status import Board, Status
from umbel.node._stock import Key, Stock, brief
from umbel.node._workshop import Workshop

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _ignore(_: Status) -> None:
    """Be told of the status, and do nothing."""


class Node:
    """Joins a server, or comes back to it, and handles what it asks until it is told to stop.

    ``watch`` is called with the status whenever that changes. The folder of the node keeps all that it has in hand, so
    that the same settings go on after any end, and nothing that was finished is done again.
    """

    def __init__(self, settings: Settings, watch: Callable[[Status], object] = _ignore) -> None:
        self._settings = settings
        self._watch = watch
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Have ``run`` return soon. A handler is stopped; its message is handled again by the next start."""
        self._stop.set()

    async def run(self) -> None:
        """Be a node until ``stop`` is called, or, in the main thread, until SIGTERM or SIGINT comes.

        A server that is away is waited for, for ever.

        Raises:
            AppError: if the app cannot be loaded, before the server hears of this node.
            SpoolInUse: if another process uses the folder.
            UsageError: for settings that cannot be, such as no token where there was no joining before.
            TokenError: if the token does not open the server.
            AuthError: if the server no longer knows this node, or does not trust what it signs.
            MemberRevoked: if the node was excluded.
            NodeSuperseded: if a process elsewhere uses the same key since.
            TlsError: if the server cannot be trusted.
            VersionMismatch: if node and server have no version of the protocol in common.

        """
        settings = self._settings
        settings.policy.require_app(settings.app)
        with Spool(settings.folder) as spool, _signals(self.stop):
            known = read_membership(settings.folder)
            name = known.name if known is not None else name_for(settings)
            board = Board(settings.folder, name, settings.url, settings.app, self._watch)
            try:
                await self._until_stopped(self._serve(spool, board))
            except BaseException as error:
                board.change(running=None)
                board.turn("ended", brief(error))
                raise
            else:
                board.change(running=None)
                board.turn("ended", "it was told to stop")
            finally:
                board.write()

    async def _until_stopped(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run until ``stop`` is called or what runs fails."""
        task, stopped = asyncio.ensure_future(serving), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            task.cancel()
            await asyncio.wait((task, stopped))
        if not task.cancelled():
            task.result()

    async def _serve(self, spool: Spool, board: Board) -> None:
        settings = self._settings
        known = read_membership(settings.folder)
        client = client_for(settings, known)
        workshop = Workshop(settings)
        try:
            types = await workshop.start()
            place = await take_place(settings, known, client, board, types)
            stock, line = Stock(spool, board), Line(client, board)
            for damage in spool.damaged:
                board.note(f"damaged, and fetched or made again: {damage}")
            bench = Bench(stock, line, workshop, settings, place)
            outbox = Outbox(stock, line)

            def cancel(key: Key) -> None:
                bench.cancel(key)
                outbox.cancel(key)

            inbox = Inbox(stock, line, settings.app, types, cancel)
            await _together(inbox.run(), bench.run(), outbox.run())
        finally:
            workshop.close()
            await client.close()


async def _together(*loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until one of them fails, and raise why."""
    tasks = [asyncio.ensure_future(each) for each in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the signals that end a process call ``stop``, where signals can be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
