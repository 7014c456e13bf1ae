"""What nodes ask of a server: work, and that their answers are kept."""

import asyncio
import math
from contextlib import suppress
from typing import Final

import msgspec
import sqlalchemy as sa

from umbel import _clock
from umbel.errors import Fenced, NotFound, WrongState
from umbel.failpoint import failpoint
from umbel.http.wire import Answer, Poll, Polled, Replied, Task
from umbel.server._claims import check_answer, check_description, check_instance, reason_of, seconds_of
from umbel.server._desk import Box, Desk, Key, key_of
from umbel.server._exchange import Exchange, fate_of, lost
from umbel.server._keeper import Keeper
from umbel.server._plans import Fate
from umbel.server._presence import Presence
from umbel.server._registry import Registry
from umbel.store import members, messages, replies

_SILENT: Final = "node {name!r} was silent for {seconds:.0f} s: neither a poll nor a byte of a body came"
_EXPIRED: Final = "no reply came within the {seconds:.0f} s that the message had"
_REVOKED: Final = "node {name!r} was revoked"


class Delivery:
    """Hands messages out, and takes replies in; the event loop alone uses it.

    A message is handed out from memory and nothing is written for that. A reply is acknowledged once it is on the disk.
    """

    def __init__(self, keeper: Keeper, exchange: Exchange, desk: Desk, registry: Registry, presence: Presence) -> None:
        self._keeper = keeper
        self._exchange = exchange
        self._desk = desk
        self._registry = registry
        self._presence = presence
        self._renewals: set[asyncio.Task[None]] = set()

    async def poll(self, member: int, poll: Poll, hold: float) -> Polled:
        """Answer a poll: work, or what the node may forget, or nothing after ``hold`` seconds."""
        self._presence.seen(member)
        check_instance(poll.instance)
        box = self._desk.box(member)
        turn = box.enter(poll.instance, poll.room)
        await self._note(member, poll)
        return await self._answer(box, poll, turn, hold)

    async def _note(self, member: int, poll: Poll) -> None:
        """Keep what the node runs now, if that is news."""
        known, types = self._registry.get(member), tuple(poll.types)
        if (known.app, known.types, known.release) == (poll.app, types, poll.release):
            return
        check_description(poll.app, types, poll.release)
        await self._keeper.commit(
            lambda connection: members.describe(connection, member, app=poll.app, types=types, release=poll.release)
        )
        changed = msgspec.structs.replace(known, app=poll.app, types=types, release=poll.release)
        self._registry.put(changed)

    async def _renew(self, member: int, box: Box, poll: Poll) -> None:
        """Give messages that were handed out, and that the node does not hold, their next number; durably, first."""
        missing = box.take_stock(poll.holding)
        if not missing:
            return
        renewal = asyncio.get_running_loop().create_task(self._renewed(member, missing))
        self._renewals.add(renewal)
        renewal.add_done_callback(self._renewals.discard)
        # A poll that is cut off must not leave the desk with a number that the ledger has left behind.
        await asyncio.shield(renewal)

    async def _renewed(self, member: int, missing: list[Task]) -> None:
        try:
            renewed = await self._keeper.commit(lambda connection: _raise_fences(connection, member, missing))
        except BaseException:
            self._desk.put_back(member, missing)
            raise
        self._desk.renew(member, renewed)

    async def _answer(self, box: Box, poll: Poll, turn: int, hold: float) -> Polled:
        clock = asyncio.get_running_loop().time
        until = clock() + hold
        # What a poll says that the node holds is old once a later poll has come.
        while box.is_turn(turn, poll.instance):
            await self._renew(box.member, box, poll)  # a run that is resumed lays out what this node was asked before
            if not box.is_turn(turn, poll.instance):
                break
            tasks, gone = box.take(), box.gone(poll.holding)
            if tasks:
                failpoint("server.handed-out")
            if tasks or gone:
                return Polled(tasks=tasks, cancelled=gone)
            if not await box.park(until - clock()):
                break
        return Polled(tasks=[], cancelled=[])

    async def reply(self, member: int, answer: Answer) -> Replied:
        """Keep a reply; it counts if its message is open and it came under the last number given."""
        self._presence.seen(member)
        check_answer(answer)
        key = (answer.run, answer.message)
        task = self._desk.find(member, key)
        reply = self._reply(answer, task)
        now = self._time_of(member, task)
        present = self._keeper.present
        accepted = await self._keeper.commit(
            lambda connection: replies.accept(connection, reply, node=member, now=now, present=present)
        )
        failpoint("server.reply-stored")
        if task is not None:
            self._settle(member, key, reply, accepted, now)
        return Replied(counted=accepted.counted, reason=accepted.reason)

    def _reply(self, answer: Answer, task: Task | None) -> replies.Reply:
        seconds = seconds_of(answer)
        handed = self._desk.handed((answer.run, answer.message))
        if task is not None and handed is not None:
            seconds = {"queued": max(0.0, handed - task.created_at), **seconds}
        return replies.Reply(
            run=answer.run,
            message=answer.message,
            fence=answer.fence,
            content=answer.content,
            error_code=answer.error_code,
            error_reason=reason_of(answer),
            received=0 if answer.content is None else answer.content.size,
            seconds=seconds,
        )

    def _time_of(self, member: int, task: Task | None) -> float:
        """Return when a reply came, for its time to live: as long as bytes of a node move, that does not run out."""
        now = _clock.now()
        if task is not None and self._presence.is_moving(member):
            return min(now, math.nextafter(task.created_at + task.ttl, 0.0))
        return now

    def _settle(self, member: int, key: Key, reply: replies.Reply, accepted: replies.Accepted, now: float) -> None:
        if accepted.counted:
            self._exchange.settle(member, key, fate_of(reply, now), answered=True)
        else:
            self._exchange.settle(member, key, lost(key[1], accepted.reason))

    async def sweep(self) -> None:
        """Give up what silent nodes hold, and what nobody answers in its time."""
        now = _clock.now()
        for box in list(self._desk.boxes()):
            member = box.member
            open_ = self._desk.of_node(member)
            if self._registry.find(member) is None:
                await self.revoked(member)  # a round that was being planned asked it still
            elif self._presence.is_silent(member):
                since = self._presence.seconds_silent(member)
                await self._lose(member, open_, _SILENT.format(name=self._registry.name(member), seconds=since))
            elif not self._presence.is_moving(member):
                expired = [task for task in open_ if now >= task.created_at + task.ttl]
                if expired:
                    await self._lose(member, expired, _EXPIRED.format(seconds=expired[0].ttl))

    async def revoked(self, member: int) -> None:
        """Give up what a node holds that was excluded."""
        open_ = self._desk.of_node(member)
        await self._lose(member, open_, _REVOKED.format(name=self._registry.name(member)))

    async def _lose(self, member: int, tasks: list[Task], reason: str) -> None:
        keys = [key_of(task) for task in tasks]
        if not keys:
            return
        gone = await self._keeper.commit(lambda connection: messages.lose(connection, keys, reason, node=member))
        for key in gone:
            self._exchange.settle(member, key, lost(key[1], reason))
        for key in set(keys).difference(gone):
            # The ledger knows better: it was answered, or given up, and the run may not have heard of that. Unless it
            # has gone to another node.
            if self._desk.find(member, key) is not None:
                self._exchange.settle(member, key, Fate(key[1], stored=True))


def _raise_fences(connection: sa.Connection, member: int, tasks: list[Task]) -> list[Task]:
    """Return the tasks under their next numbers, but for those that were given up meanwhile."""
    renewed = []
    for task in tasks:
        # Given up, or gone to another node, since the desk was looked at.
        with suppress(WrongState, NotFound, Fenced):
            fence = messages.raise_fence(connection, key_of(task), node=member, fence=task.fence)
            renewed.append(msgspec.structs.replace(task, fence=fence))
    return renewed
