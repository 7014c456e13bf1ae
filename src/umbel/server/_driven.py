"""One run whose main is elsewhere: what it asks, and in which order it is told what came, is in the ledger first."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa

from umbel import _clock
from umbel.envelope import Content
from umbel.errors import BadValue, MainDiffers, UsageError, WrongState
from umbel.failpoint import failpoint
from umbel.http import wire
from umbel.message import ErrorCode
from umbel.server._exchange import Exchange, tasks_of
from umbel.server._keeper import Keeper
from umbel.server._log import Log
from umbel.server._plans import Commission, Fate
from umbel.store import calls, messages, runs
from umbel.store.references import Present

_MAIN: Final = "main"
_LOOK_AGAIN: Final = 0.25  # seconds; nodes come without telling every run
_MOST: Final = 64  # answers at a time,
_CARRIED: Final = 1024 * 1024  # and bytes that travel inside them
_LONGEST: Final = 256
_GIVEN_UP: Final = "the main gave it up"
_ENDED: Final = "the main has ended"


def is_driven(spec: wire.RunSpec) -> bool:
    """Say whether the main of a run is elsewhere."""
    return _MAIN in spec.strategy


def check_driven(spec: wire.RunSpec) -> None:
    """Raise ``UsageError`` for a run that no main can drive."""
    if set(spec.strategy) != {_MAIN} or spec.rounds or spec.initial.records or not 0 <= spec.seed < 2**63:
        raise UsageError(
            "expected a main alone as the strategy, no rounds, nothing to begin with, and a seed from 0 to 2**63 - 1: "
            "a main decides the rest itself",
            at="strategy",
        )


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
        self.is_over = False
        self.heard = time.monotonic()

    async def open(self) -> None:
        """Read where the run is; from now on it hears of its messages."""
        self._exchange.attach(self._run, self._settled)
        found = await self._keeper.look(partial(calls.roster, run=self._run))
        self._previous = None if found is None else frozenset(number for _, number in found)
        self._told = await self._keeper.look(partial(calls.told, run=self._run))
        self._known.update(self._told)
        for message in self._told:  # one of which the disk had lost the answer may have come again
            self._untold.pop(message, None)
        for message in await self._keeper.look(partial(calls.untold, run=self._run)):
            self._settled(Fate(message))

    def close(self) -> None:
        """Answer whoever waits that this is over."""
        self.is_over = True
        self._exchange.detach(self._run)
        self._log.end()
        self._news.set()

    def _settled(self, fate: Fate) -> None:
        if fate.message not in self._known:
            self._known.add(fate.message)
            self._untold[fate.message] = None
        self._news.set()

    def _require(self) -> None:
        self.heard = time.monotonic()
        if self.is_over:
            raise WrongState("expected a run that goes on, got one that has ended", at=f"run {self._run}")

    async def nodes(self, wanted: wire.Wanted, hold: float) -> wire.Roster:
        """Answer a call for nodes: with those of then, with those of now, or with what is missing after a while."""
        self._require()
        _require_type(wanted.message_type)
        until = time.monotonic() + hold
        made = await self._keeper.look(partial(calls.find, run=self._run, number=wanted.call))
        while made is None:
            self._require()
            offer = self._exchange.offered(self._commission, wanted.message_type, self._previous)
            if not offer.missing:
                roster = tuple((node.name, node.node_id) for node in offer.roster)
                made = await self._note(wanted, roster)
            elif time.monotonic() >= until:
                return wire.Roster(names=[], nodes=[], missing=offer.missing)
            else:
                await asyncio.sleep(_LOOK_AGAIN)
        _require_same(wanted, made)
        roster = made.planned.roster
        self._previous = frozenset(number for _, number in roster)
        return wire.Roster(names=[name for name, _ in roster], nodes=[number for _, number in roster])

    async def _note(self, wanted: wire.Wanted, roster: tuple[tuple[str, int], ...]) -> calls.Call:
        now = _clock.now()
        call = calls.Call(wanted.message_type, wanted.round, messages.Phase(roster, None, now, 0.0, None, ()))

        def note(connection: sa.Connection) -> calls.Call:
            _run(connection, self._run)
            return calls.offer(connection, self._run, wanted.call, call)

        return await self._keeper.commit(note)

    async def ask(self, asking: wire.Asking, names: Sequence[str]) -> wire.Asked:
        """Plan what a call asks, and let the nodes have it; once, however often it is called."""
        async with self._turn:
            self._require()
            plan, now = _plan(self._run, asking, names), _clock.now()

            def write(connection: sa.Connection) -> tuple[calls.Call, bool]:
                _run(connection, self._run)
                return calls.plan(connection, plan, asking.round, now=now, present=self._keeper.present)

            made, is_new = await self._keeper.commit(write)
            _require_same(asking, made, plan.asks, _described(asking.content))
            if is_new:
                failpoint("server.planned")
                self._exchange.open(tasks_of(self._commission, plan, now, asking.round))
                self._log.note("Asked", asking.call, type=asking.message_type, nodes=len(names))
            return wire.Asked(at=made.planned.created_at)

    async def answers(self, after: int, hold: float) -> wire.Answers:
        """Return what the main is told after so many answers, as soon as there is some; none after a while."""
        until = time.monotonic() + hold
        while True:
            self._require()
            self._news.clear()
            found = await self._after(after)
            if found or time.monotonic() >= until:
                return wire.Answers(answers=found)
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                return wire.Answers(answers=[])

    async def _after(self, after: int) -> list[wire.Told]:
        async with self._turn:
            if after >= len(self._told) and self._untold:
                await self._tell(list(self._untold))
        found: list[wire.Told] = []
        room = _CARRIED
        for message in self._told[after : after + _MOST]:
            came = await self._keeper.look(partial(calls.what_came, run=self._run, message=message))
            if came is None or room < 0:  # open again, since the disk has lost what came
                break
            found.append(_told(came))
            room -= _carried(found[-1])
        return found

    async def _tell(self, numbers: list[int]) -> None:
        """Give what came the next places, durably, before the main hears of it."""
        came = [await self._keeper.look(partial(calls.what_came, run=self._run, message=each)) for each in numbers]
        failed = [
            runs.Outcome(each.message, "lost", each.given.error_reason or "")
            for each in came
            if each is not None and each.given is not None and each.given.content is None
        ]

        def write(connection: sa.Connection) -> None:
            calls.tell(connection, self._run, len(self._told) + 1, numbers)
            runs.record(connection, self._run, failed)

        await self._keeper.commit(write)
        failpoint("server.told")
        self._told += numbers
        for number in numbers:
            del self._untold[number]

    async def give_up(self, numbers: Sequence[int]) -> None:
        """Give messages up, durably; a node that has one is told to forget it."""
        async with self._turn:
            self._require()
            keys = [(self._run, number) for number in numbers]
            await self._keeper.commit(lambda connection: messages.cancel(connection, keys, _GIVEN_UP))
            self._exchange.close(keys)

    async def leave(self) -> None:
        """Take what is open away from the nodes; it is laid out again if the run goes on."""
        async with self._turn:
            self.close()
            self._exchange.close(await self._keeper.look(partial(calls.open_of, run=self._run)))

    async def end(self, ending: wire.Ending) -> None:
        """The main has ended: the run is complete, and nothing of its calls is needed any more; or it has failed."""
        async with self._turn:
            self._require()
            keys = await self._keeper.commit(partial(_end, run=self._run, ending=ending, present=self._keeper.present))
            failpoint("server.run-finished")
            self._exchange.close(keys)
            if ending.reason:
                self._log.say("RunFailed", reason=ending.reason)
            self.close()


def _run(connection: sa.Connection, run: int) -> None:
    """Take note that a main drives the run; raises ``WrongState`` if it was stopped."""
    if runs.get(connection, run).status != "running":
        runs.set_status(connection, run, "running", now=time.time())


def _end(connection: sa.Connection, run: int, ending: wire.Ending, present: Present) -> list[messages.Key]:
    now, keys = time.time(), calls.open_of(connection, run)
    if ending.reason:
        runs.set_status(connection, run, "failed", now=now, reason=ending.reason)
        return keys
    _run(connection, run)
    messages.cancel(connection, keys, _ENDED)
    calls.close(connection, run, now=now)
    if ending.state is not None:
        runs.set_state(connection, run, ending.state, ending.digest, present=present)
    runs.set_status(connection, run, "completed", now=now)
    return keys


def _require_type(message_type: str) -> None:
    if not 0 < len(message_type) <= _LONGEST:
        raise BadValue(f"expected a type of 1 to {_LONGEST} characters, got {len(message_type)}", at="message_type")


def _plan(run: int, asking: wire.Asking, names: Sequence[str]) -> messages.Plan:
    _require_type(asking.message_type)
    if not 0 < len(asking.messages) == len(asking.nodes) or not asking.ttl > 0:
        raise BadValue("expected messages, a node for each, and seconds to live above 0", at="asking")
    asks = [messages.Ask(message, slot, asking.nodes[slot]) for slot, message in enumerate(asking.messages)]
    return messages.Plan(
        run=run,
        round=asking.call,
        phase=asking.message_type,
        roster=tuple(dict(zip(names, asking.nodes, strict=True)).items()),
        content=asking.content,
        ttl=asking.ttl,
        asks=tuple(asks),
    )


def _described(content: Content | None) -> list[tuple[str, str]]:
    """Return what a content is known by."""
    if content is None:
        return []
    return [*((named.name, named.part.digest) for named in content.records), ("", content.rest.digest)]


def _require_same(
    call: wire.Wanted | wire.Asking,
    made: calls.Call,
    asks: Sequence[messages.Ask] = (),
    content: Sequence[tuple[str, str]] = (),
) -> None:
    """Raise ``MainDiffers`` unless a call is the one that was made under its number before."""
    planned = made.planned
    before = {
        "type of message": made.phase,
        "round": made.group,
        "nodes": [(row.message, row.node) for row in planned.messages],
        "content": _described(planned.content),
    }
    now = {
        "type of message": call.message_type,
        "round": call.round,
        "nodes": [(ask.message, ask.node) for ask in asks],
        "content": list(content),
    }
    differing = [name for name in before if before[name] != now[name]]
    if differing:
        raise MainDiffers(
            f"expected the main to ask in call {call.call} what it asked before, {_words(made)}, got another "
            f"{' and another '.join(differing)}: run the main that began this run, which may go by nothing but what it "
            "is told: no clock, and no random number without a seed",
            at=f"call {call.call}",
        )


def _words(made: calls.Call) -> str:
    count = len(made.planned.messages)
    what = f"{count} messages" if count else "for the nodes"
    return f"{what} of type {made.phase!r:.40} in round {made.group}"


def _told(came: calls.Told) -> wire.Told:
    given = came.given
    if given is None:
        code, reason = int(ErrorCode.NODE_UNAVAILABLE), came.reason
        return wire.Told(message=came.message, at=0.0, error_code=code, error_reason=reason)
    return wire.Told(
        message=came.message,
        at=came.at,
        content=given.content,
        error_code=given.error_code,
        error_reason=given.error_reason,
    )


def _carried(told: wire.Told) -> int:
    content = told.content
    parts = () if content is None else (content.rest, *(named.part for named in content.records))
    return sum(len(part.data or b"") for part in parts)
