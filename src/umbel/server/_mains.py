"""The runs whose mains are elsewhere, and what those mains ask."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import sqlalchemy as sa

from umbel.errors import Forbidden, WrongState
from umbel.http import Call, Handlers, mains, wire
from umbel.server._driven import Driven
from umbel.server._exchange import Exchange
from umbel.server._keeper import Keeper
from umbel.server._log import Log
from umbel.server._plans import Commission
from umbel.store import runs

_OPERATOR: Final = "operator"
_QUIET: Final = 120.0  # seconds without a word of a main, after which people are told so


class Mains:
    """Runs that mains may drive at present; the event loop alone uses it."""

    def __init__(self, keeper: Keeper, exchange: Exchange, hold: float, *, for_users: bool) -> None:
        self._keeper = keeper
        self._exchange = exchange
        #: How long, in seconds, an answer may wait for something to say.
        self.hold = hold
        self._for_users = for_users
        self._driven: dict[int, Driven] = {}

    def __contains__(self, run: int) -> bool:
        """Say whether a main may drive a run."""
        return run in self._driven

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._driven)

    def permit(self, kind: str) -> None:
        """Raise ``Forbidden`` for whoever may not drive a run: it is told single updates, as the operator could be."""
        if kind != _OPERATOR and not self._for_users:
            raise Forbidden(
                "expected a run with a strategy by name: the main of a run is told each single update, which at this "
                "server the operator alone may see; umbel server --mains lets users as well",
                at="strategy",
            )

    async def start(self, run: runs.Run, commission: Commission, log: Log) -> None:
        """Let a main drive a run; one that is to be stopped, by now or since before a restart, is stopped."""
        self._driven[run.id] = Driven(self._keeper, self._exchange, commission, log)
        await self._driven[run.id].open()
        found = await self._keeper.look(lambda connection: runs.get(connection, run.id))
        if found.status == "stopping":
            await self.stop(run.id)

    async def stop(self, run: int) -> None:
        """Stop a run if a main drives it; if that fails, it can be stopped again."""
        driven = self._driven.get(run)
        if driven is None:
            return
        await driven.leave()
        await self._keeper.commit(partial(_note_stopped, run=run))
        self._forget(run, driven)

    def _forget(self, run: int, driven: Driven) -> None:
        if self._driven.get(run) is driven:  # it may have been resumed already
            del self._driven[run]

    def waits_for(self, run: int) -> str:
        """Return that a run waits for its main, if nothing was heard of that for a while."""
        driven = self._driven.get(run)
        quiet = 0.0 if driven is None else time.monotonic() - driven.heard
        return "" if quiet < _QUIET else f"waits for its main, of which nothing was heard for {quiet:.0f} s"

    async def _drive(self, call: Call) -> Driven:
        """Return the run of a call; raises ``NotFound`` if it is not the caller's own, not even for the operator."""
        self.permit(call.kind)
        number = call.params["run"]
        found = await self._keeper.look(lambda connection: runs.get(connection, number, call.member))
        driven = self._driven.get(number)
        if driven is None:
            raise WrongState(
                f"expected a run that a main drives, got one that is {found.status}: see umbel runs show {number}",
                at=found.name,
            )
        return driven

    async def nodes(self, call: Call) -> mains.Roster:
        """Say which nodes there are."""
        return await (await self._drive(call)).nodes(call.body, self.hold)

    async def answers(self, call: Call) -> mains.Answers:
        """Say what became of messages."""
        return await (await self._drive(call)).answers(call.params["after"], self.hold)

    async def give_up(self, call: Call) -> wire.Done:
        """Give messages up."""
        await (await self._drive(call)).give_up(call.body)
        return wire.Done()

    async def end(self, call: Call) -> wire.Done:
        """End a run; again, if the first answer was lost, changes nothing."""
        number = call.params["run"]
        found = await self._keeper.look(lambda connection: runs.get(connection, number, call.member))
        if runs.ended_as(found, call.body.reason, call.body.digest):
            return wire.Done()
        driven = await self._drive(call)
        await driven.end(call.body)
        self._forget(number, driven)
        return wire.Done()

    def all(self, name: Callable[[int], str]) -> Handlers:
        """Return the handlers by endpoint; ``name`` is what people call a node, and raises ``NotFound``."""

        async def ask(call: Call) -> mains.Asked:
            return await (await self._drive(call)).ask(call.body, [name(each) for each in call.body.nodes])

        return {
            "offer_nodes": self.nodes,
            "ask_nodes": ask,
            "read_answers": self.answers,
            "give_up": self.give_up,
            "end_run": self.end,
        }


def _note_stopped(connection: sa.Connection, run: int) -> None:
    if runs.get(connection, run).status == "stopping":  # whoever stopped it as well may have been quicker
        runs.set_status(connection, run, "stopped", now=time.time(), reason="stopped by request")
