"""One run whose main is elsewhere: what it asks, and in which order it is told what came, is in the ledger first."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from umbel import _clock
from umbel.errors import WrongState
from umbel.failpoint import failpoint
from umbel.http import mains
from umbel.server._exchange import Exchange, tasks_of
from umbel.server._keeper import Keeper
from umbel.server._log import Log
from umbel.server._main_calls import (
    blobs_in,
    carried,
    end,
    failures,
    keys_of,
    note_running,
    plan_of,
    require_model,
    require_same,
    require_type,
    told_of,
)
from umbel.server._plans import Commission, Fate
from umbel.store import calls, messages, runs

_T = TypeVar("_T")

_LOOK_AGAIN: Final = 0.25  # seconds; nodes come without telling every run
_MOST: Final = 64  # answers at a time,
_CARRIED: Final = 1024 * 1024  # and bytes that travel inside them
_GIVEN_UP: Final = "the main gave it up"


class Driven:
    """A run while its main may drive it; the event loop alone uses it.

    Calls have numbers, and one that was made before is answered as it was then. Whoever drives the run can be killed
    at any time and run again; two of them, which ask the same, do no harm.
    """

    def __init__(self, keeper: Keeper, exchange: Exchange, commission: Commission, log: Log) -> None:
        self._keeper = keeper
        self._exchange = exchange
        self._commission = commission
        self._run = commission.run
        self._log = log
        self._previous: frozenset[int] | None = None
        self._told: list[int] = []
        self._untold: dict[int, None] = {}
        self._known: set[int] = set()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._works: set[asyncio.Task[Any]] = set()
        self._is_open = False
        self._is_over = False
        #: When the main was heard of, on the monotonic clock.
        self.heard = time.monotonic()

    async def open(self) -> None:
        """Read where the run is; from now on it hears of its messages."""
        await self._in_turn(self._open())

    async def _open(self) -> None:
        if self._is_open or self._is_over:
            return
        self._exchange.attach(self._run, self._settled)
        found = await self._keeper.look(partial(calls.roster, run=self._run))
        self._previous = None if found is None else frozenset(number for _, number in found)
        self._told = await self._keeper.look(partial(calls.told, run=self._run))
        self._known.update(self._told)
        for message in self._told:  # one of which the disk had lost the answer may have come again
            self._untold.pop(message, None)
        for message in await self._keeper.look(partial(calls.untold, run=self._run)):
            self._settled(Fate(message))
        self._is_open = True

    def _close(self) -> None:
        """Answer whoever waits that this is over."""
        self._is_over = True
        self._exchange.detach(self._run)
        self._log.end()
        self._tell_news()

    def _settled(self, fate: Fate) -> None:
        if fate.message not in self._known:
            self._known.add(fate.message)
            self._untold[fate.message] = None
        self._tell_news()

    def _tell_news(self) -> None:
        """Wake whoever waits; each waits for what follows on its last look, which another must not undo."""
        self._news.set()
        self._news = asyncio.Event()

    def _require(self) -> None:
        self.heard = time.monotonic()
        if self._is_over:
            raise WrongState("expected a run that goes on, got one that has ended", at=f"run {self._run}")

    async def _ready(self) -> None:
        """Wait until it is known where the run is."""
        self._require()
        if not self._is_open:
            await self.open()
            self._require()

    async def _in_turn(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something alone, and to its end, even if the request that asked for it is cut off."""

        async def alone() -> _T:
            async with self._turn:
                return await work

        task = asyncio.get_running_loop().create_task(alone())
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return await asyncio.shield(task)

    async def nodes(self, wanted: mains.Wanted, hold: float) -> mains.Roster:
        """Answer a call for nodes: with those of then, with those of now, or with what is missing after a while."""
        require_type(wanted.message_type)
        await self._ready()
        try:
            made = await self._made(wanted, time.monotonic() + hold)
        finally:
            self._exchange.waiting.pop(self._run, None)
        if isinstance(made, str):
            return mains.Roster(names=[], nodes=[], missing=made)
        require_same(wanted, made)
        roster = made.planned.roster
        self._previous = frozenset(number for _, number in roster)
        return mains.Roster(names=[name for name, _ in roster], nodes=[number for _, number in roster])

    async def _made(self, wanted: mains.Wanted, until: float) -> calls.Call | str:
        """Return a call for nodes, made by now; or, once it is late, what is missing."""
        made = await self._keeper.look(partial(calls.find, run=self._run, number=wanted.call))
        while made is None:
            self._require()
            offer = self._exchange.offered(self._commission, wanted.message_type, self._previous)
            if not offer.missing:
                roster = tuple((node.name, node.node_id) for node in offer.roster)
                made = await self._note(wanted, roster)
            elif time.monotonic() >= until:
                return offer.missing
            else:
                await asyncio.sleep(_LOOK_AGAIN)
        return made

    async def _note(self, wanted: mains.Wanted, roster: tuple[tuple[str, int], ...]) -> calls.Call:
        now = _clock.now()
        call = calls.Call(wanted.message_type, wanted.round, messages.Phase(roster, None, now, 0.0, None, ()))

        def note(connection: sa.Connection) -> calls.Call:
            note_running(connection, self._run)
            return calls.offer(connection, self._run, wanted.call, call)

        return await self._keeper.commit(note)

    async def ask(self, asking: mains.Asking, names: Sequence[str]) -> mains.Asked:
        """Plan what a call asks, and let the nodes have it; once, however often it is called."""
        return await self._in_turn(self._ask(asking, names))

    async def _ask(self, asking: mains.Asking, names: Sequence[str]) -> mains.Asked:
        self._require()
        plan, now = plan_of(self._run, asking, names), _clock.now()

        def write(connection: sa.Connection) -> tuple[calls.Call, bool]:
            note_running(connection, self._run)
            return calls.plan(connection, plan, asking.round, now=now, present=self._keeper.present)

        made, is_new = await self._keeper.commit(write)
        require_same(asking, made, plan)
        if is_new:
            failpoint("server.planned")
            self._exchange.hand_over(tasks_of(self._commission, plan, now, asking.round))
            self._log.note("Asked", asking.call, type=asking.message_type, nodes=len(names))
        return mains.Asked(at=made.planned.created_at)

    async def answers(self, after: int, hold: float) -> mains.Answers:
        """Return what the main is told after so many answers, as soon as there is some; none after a while."""
        await self._ready()
        until = time.monotonic() + hold
        while True:
            self._require()
            news = self._news
            found = await self._after(after)
            if found or time.monotonic() >= until:
                return mains.Answers(answers=found)
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await news.wait()
            except TimeoutError:
                return mains.Answers(answers=[])

    async def _after(self, after: int) -> list[mains.Told]:
        if after >= len(self._told) and self._untold:
            await self._in_turn(self._tell())
        found: list[mains.Told] = []
        room = _CARRIED
        for message in self._told[after : after + _MOST]:
            came = await self._keeper.look(partial(calls.what_came, run=self._run, message=message))
            if came is None or room < 0:  # open again, since the disk has lost what came; or enough for one body
                break
            found.append(told_of(came))
            room -= carried(found[-1])
        return found

    async def _tell(self) -> None:
        """Give what came the next places, durably, before the main hears of it."""
        numbers, first = list(self._untold), len(self._told) + 1
        came = [await self._keeper.look(partial(calls.what_came, run=self._run, message=each)) for each in numbers]

        def write(connection: sa.Connection) -> None:
            calls.tell(connection, self._run, first, numbers)
            runs.record(connection, self._run, failures(came))

        if numbers:
            # A node may be unable to make them again by the time that the main is run again.
            await asyncio.to_thread(self._keeper.flush, blobs_in(came))
            await self._keeper.commit(write)
            failpoint("server.told")
        self._told += numbers
        for number in numbers:
            del self._untold[number]

    async def give_up(self, given: mains.GivenUp) -> None:
        """Give messages up, durably; a node that has one is told to forget it."""
        await self._in_turn(self._give_up(keys_of(self._run, given)))

    async def _give_up(self, keys: Sequence[messages.Key]) -> None:
        self._require()
        await self._keeper.commit(lambda connection: messages.cancel(connection, keys, _GIVEN_UP))
        self._exchange.take_away(keys)

    async def leave(self) -> None:
        """Take what is open away from the nodes; it is laid out again if the run goes on."""
        await self._in_turn(self._leave())

    async def _leave(self) -> None:
        self._close()
        self._exchange.take_away(await self._keeper.look(partial(calls.open_of, run=self._run)))

    async def end(self, ending: mains.Ending) -> None:
        """The main has ended: the run is complete, and nothing of its calls is needed any more; or it has failed."""
        await self._in_turn(self._end(ending))

    async def _end(self, ending: mains.Ending) -> None:
        self._require()
        require_model(ending)
        needed = await asyncio.to_thread(self._keeper.needed, self._run)
        keys = await self._keeper.commit(partial(end, run=self._run, ending=ending, present=self._keeper.present))
        failpoint("server.run-finished")
        self._exchange.take_away(keys)
        if ending.reason:
            self._log.say("RunFailed", reason=ending.reason)
        self._close()
        kept = await asyncio.to_thread(self._keeper.needed, self._run)
        self._keeper.discard(needed.keys() - kept.keys())
