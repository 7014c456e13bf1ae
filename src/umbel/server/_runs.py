"""The runs of a server: submitted, driven, shown, stopped and taken up again."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from umbel import _clock
from umbel.envelope import Content, unpack
from umbel.errors import LedgerDamaged, LedgerFailed, StoreError, UsageError, WrongState
from umbel.failpoint import failpoint
from umbel.history import RoundReport
from umbel.http import wire
from umbel.records import scratch
from umbel.rounds import begin
from umbel.server._driver import Driver
from umbel.server._exchange import Exchange
from umbel.server._grid import NetworkGrid
from umbel.server._journal import Journal, initial_of, strategy_of
from umbel.server._keeper import Keeper
from umbel.server._log import Log
from umbel.server._main_calls import check_driven, is_driven
from umbel.server._mains import Mains
from umbel.server._metrics import Metrics
from umbel.store import audit, calls, messages, runs

_ACTIVE: Final = ("waiting", "running", "stopping")
_RESUMABLE: Final = ("stopped", "failed")
_MENDING: Final = 5.0  # seconds until a run is tried again that the disk has stopped
_LEAVING: Final = 5.0  # seconds that a driver has to end after it said so
_LOGS: Final = 16  # of runs that have ended, for whoever still watches


class Runs:
    """All runs; the event loop alone uses it.

    ``owner`` is the user whose runs are meant, None for the runs of all.
    """

    def __init__(
        self,
        keeper: Keeper,
        exchange: Exchange,
        metrics: Metrics,
        folder: Path,
        *,
        keep: int | None,
        mains: Mains,
        fatal: Callable[[StoreError], object],
    ) -> None:
        self._keeper = keeper
        self._exchange = exchange
        self._metrics = metrics
        self._folder = folder
        self._keep = keep
        self._fatal = fatal
        self._again: set[asyncio.Task[None]] = set()
        self._halting = False
        self._loop = asyncio.get_running_loop()
        self._drivers: dict[int, Driver] = {}
        self._journals: dict[int, Journal] = {}
        self._logs: dict[int, Log] = {}
        #: The runs that mains drive from elsewhere.
        self.mains = mains
        metrics.runs.set_function(lambda: len(self._drivers) + len(self.mains))

    async def take_up(self) -> None:
        """Let every run go on that was going on when the server ended."""
        found = await self._keeper.look(lambda connection: runs.every(connection, statuses=_ACTIVE))
        for run in found:
            await self._keeper.commit(partial(_take_up, run=run.id))
            await self._take_up(run)

    async def _take_up(self, run: runs.Run) -> None:
        """Let one run go on; one that this release cannot read has failed, and is no reason not to serve the others."""
        try:
            await self._start(run)
        except msgspec.ValidationError as error:
            reason = f"expected a run that this release can drive, got one that it cannot read: {error}"
            await self._keeper.commit(
                partial(runs.set_status, run=run.id, status="failed", now=time.time(), reason=reason)
            )

    async def submit(self, owner: int, spec: wire.RunSpec, actor: str) -> wire.RunMade:
        """Accept a run and begin to drive it; raises what is wrong with its specification."""
        await asyncio.to_thread(self._check, spec)
        run = await self._keeper.commit(
            partial(_create, owner=owner, spec=spec, actor=actor, present=self._keeper.present)
        )
        failpoint("server.run-accepted")
        await self._start(run)
        return wire.RunMade(run=run.id, name=run.name)

    def _check(self, spec: wire.RunSpec) -> None:
        names = spec.nodes
        if (names < 1) if isinstance(names, int) else (not names or len(set(names)) != len(names)):
            raise UsageError(f"expected a number of nodes above 0, or different names, got {names!r:.80}", at="nodes")
        if spec.rounds < 0:
            raise UsageError(f"expected a number of rounds, 0 or more, got {spec.rounds}", at="rounds")
        if is_driven(spec):
            check_driven(spec)
            return
        strategy = strategy_of(spec)
        with scratch(self._folder):
            initial = initial_of(unpack(spec.initial, self._keeper.blob))
            begin(strategy, initial, seed=spec.seed, run_config=spec.config)

    async def _start(self, run: runs.Run, fresh: Collection[messages.Key] = ()) -> None:
        journal = Journal(self._keeper, self._exchange, run, self._keep)
        journal.stopping = run.status == "stopping"
        await asyncio.to_thread(self._reopen, journal, fresh)
        log = await self._log(run.id)
        log.go_on()
        if is_driven(journal.spec):
            await self.mains.start(run, journal.commission, log)
            self._logs[run.id] = log
            return
        grid = NetworkGrid(self._exchange, journal.commission, await asyncio.to_thread(journal.previous))
        driver = Driver(
            journal,
            grid,
            log,
            self._metrics,
            folder=self._folder,
            ended=lambda trouble: self._ended(run.id, journal, trouble),
        )
        self._journals[run.id], self._drivers[run.id], self._logs[run.id] = journal, driver, log
        if journal.stopping:
            driver.halt()
        driver.start()

    def _reopen(self, journal: Journal, fresh: Collection[messages.Key]) -> None:
        """Lay out the messages of a run that are open in the ledger; a node may have them, unless they are fresh."""
        rows = [row for row in self._keeper.read(messages.open_messages) if row.run == journal.run]
        asked = {(row.round, row.phase) for row in rows}
        contents = {
            (number, phase): self._keeper.read(partial(messages.phase, run=journal.run, round=number, phase=phase))
            for number, phase in asked
        }
        self._exchange.reopen(journal.commission, rows, contents, fresh)

    def _ended(self, run: int, journal: Journal, trouble: StoreError | None) -> None:
        with suppress(RuntimeError):  # nobody is left to hear it when the server has ended
            self._loop.call_soon_threadsafe(self._forget, run, journal, trouble)

    def _forget(self, run: int, journal: Journal, trouble: StoreError | None) -> None:
        if self._journals.get(run) is not journal:
            return
        del self._drivers[run], self._journals[run]
        if trouble is not None and not self._halting:
            self._mend(run, trouble)
        self._drop_logs()

    def _drop_logs(self) -> None:
        """Keep the logs of a few runs that have ended, those that were asked for last."""
        ended = [each for each in self._logs if each not in self._drivers and each not in self.mains]
        for each in ended[:-_LOGS]:
            del self._logs[each]

    def _mend(self, run: int, trouble: StoreError) -> None:
        """Let a run go on after a while: the disk may be well again. A ledger that has failed ends the server."""
        if isinstance(trouble, LedgerDamaged | LedgerFailed):
            self._fatal(trouble)
            return
        self._exchange.waiting[run] = f"waits for the disk: {trouble}"
        task = asyncio.create_task(self._try_again(run))
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def _try_again(self, run: int) -> None:
        await asyncio.sleep(_MENDING)
        try:
            found = await self.get(run, None)
            if found.status in _ACTIVE and run not in self._drivers and not self._halting:
                await self._take_up(found)
        except StoreError as error:
            self._mend(run, error)

    async def _log(self, run: int) -> Log:
        if run not in self._logs:
            texts = await self._keeper.look(lambda connection: runs.reports(connection, run))
            log = Log(RoundReport.from_json(text) for text in texts)
            log.ended = run not in self._drivers and run not in self.mains
            self._logs.setdefault(run, log)
        self._logs[run] = log = self._logs.pop(run)
        self._drop_logs()
        return log

    async def get(self, run: int, owner: int | None) -> runs.Run:
        """Return a run; raises ``NotFound`` if there is none, or it is somebody else's."""
        return await self._keeper.look(lambda connection: runs.get(connection, run, owner))

    async def every(self, owner: int | None) -> list[runs.Run]:
        """Return runs, the newest first."""
        return (await self._keeper.look(lambda connection: runs.every(connection, owner)))[::-1]

    def waits_for(self, run: int) -> str:
        """Return what a run waits for, nothing if it does not."""
        return self._exchange.waiting.get(run, "") or self.mains.waits_for(run)

    def is_sent(self, run: int, message: int) -> bool:
        """Say whether a node has an open message."""
        return self._exchange.is_sent((run, message))

    async def reports(self, run: int) -> list[str]:
        """Return the reports of a run, as JSON."""
        return await self._keeper.look(lambda connection: runs.reports(connection, run))

    async def questions(self, run: int) -> list[messages.Question]:
        """Return what became of every message of a run that is still known."""
        return await self._keeper.look(lambda connection: messages.questions(connection, run))

    async def state(self, run: int) -> Content | None:
        """Return the state of a run."""
        return await self._keeper.look(lambda connection: runs.state(connection, run))

    async def events(self, run: int, after: int) -> wire.Events:
        """Return the events after a number, as soon as there is one; none after a while."""
        log, news = await self._log(run), asyncio.Event()
        stop = log.watch(lambda: self._loop.call_soon_threadsafe(news.set))
        try:
            lines = log.after(after)
            if not lines and not log.ended:
                await _wait(news, self.mains.hold)
                lines = log.after(after)
        finally:
            stop()
        return wire.Events(events=lines, ended=log.ended and not log.after(lines[-1].number if lines else after))

    async def stop(self, run: int, actor: str) -> None:
        """Stop a run after what is on disk; raises ``WrongState`` for one that has ended."""
        await self._keeper.commit(partial(_stop, run=run, actor=actor))
        await self.mains.stop(run)
        if run in self._drivers:
            self._journals[run].stopping = True
            self._drivers[run].halt()

    async def resume(self, run: int, rounds: int | None, actor: str) -> None:
        """Let a run go on that was stopped or has failed, to more rounds if wanted."""
        found = await self.get(run, None)
        spec = msgspec.json.decode(found.spec, type=wire.RunSpec)
        if rounds is not None and is_driven(spec):
            raise UsageError(
                "expected no number of rounds for a run whose main decides that: leave it out", at="rounds"
            )
        if rounds is not None and rounds < spec.rounds:
            raise UsageError(f"expected at least {spec.rounds} rounds, as the run has, got {rounds}", at="rounds")
        text = msgspec.json.encode(msgspec.structs.replace(spec, rounds=rounds or spec.rounds)).decode()
        resumed, fresh = await self._keeper.commit(partial(_resume, run=run, spec=text, actor=actor))
        if run in self._drivers:  # it has said how it ended, and is about to
            await asyncio.to_thread(self._drivers[run].join, _LEAVING)
        await self._start(resumed, fresh)

    def halt(self) -> None:
        """Have all loops left at points from which they can go on."""
        self._halting = True
        for task in self._again:
            task.cancel()
        for driver in self._drivers.values():
            driver.halt()

    async def leave(self, seconds: float) -> None:
        """Wait until all loops are left, but no longer than so many seconds."""
        drivers = list(self._drivers.values())
        until = time.monotonic() + seconds
        for driver in drivers:
            await asyncio.to_thread(driver.join, max(0.0, until - time.monotonic()))


def _create(
    connection: sa.Connection, owner: int, spec: wire.RunSpec, actor: str, present: Callable[[str], int | None]
) -> runs.Run:
    text, now = msgspec.json.encode(spec).decode(), time.time()
    run = runs.create(connection, text, owner, now=now, present=present, initial=spec.initial)
    audit.append(connection, actor=actor, action="run.submit", now=now, detail={"run": run.id, "name": run.name})
    return run


def _take_up(connection: sa.Connection, run: int) -> None:
    """Note that a run is taken up again; nobody could answer while the server was down, and no time to live ran."""
    runs.note_restart(connection, run, now=time.time())
    messages.prolong(connection, run, now=_clock.now())


def _stop(connection: sa.Connection, run: int, actor: str) -> None:
    now = time.time()
    found = runs.set_status(connection, run, "stopping", now=now, reason="stopped by request")
    audit.append(connection, actor=actor, action="run.stop", now=now, detail={"run": run, "name": found.name})


def _resume(connection: sa.Connection, run: int, spec: str, actor: str) -> tuple[runs.Run, list[messages.Key]]:
    """Let a run wait again, and return it with the messages that are open again; one that waits already is refused."""
    now, found = _clock.now(), runs.get(connection, run)
    if found.status not in _RESUMABLE:
        raise WrongState(f"expected a run that was stopped or failed, got one that is {found.status}", at=found.name)
    runs.set_spec(connection, run, spec)
    if calls.roster(connection, run) is not None:  # a main is told again what it was told; the rest is open still
        messages.prolong(connection, run, now=now)
        fresh = []
    else:
        fresh = messages.reopen(connection, run, now=now)
    audit.append(connection, actor=actor, action="run.resume", now=now, detail={"run": run, "name": found.name})
    return runs.set_status(connection, run, "waiting", now=now), fresh


async def _wait(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
