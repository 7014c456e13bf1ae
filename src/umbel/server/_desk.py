"""Which messages are open, and with which node each of them is: in memory, filled from the ledger.

A message is *ready* until it is handed out and *out* from then on. Nothing here is written: the event loop alone uses a
desk, and whoever changes what is durable does so before telling the desk.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from umbel import _clock
from umbel.errors import NodeSuperseded
from umbel.http.wire import Assignment, Task

Key: TypeAlias = tuple[int, int]  # run, message

_FORMER: Final = 64  # instances of a node that are remembered as superseded


def key_of(message: Task | Assignment) -> Key:
    """Return what a message is known by."""
    return message.run, message.message


class Box:
    """The open messages of one node, and its parked poll."""

    def __init__(self, member: int, handed: dict[Key, float]) -> None:
        self.member = member
        self._handed = handed
        self.ready: dict[Key, Task] = {}
        self.out: dict[Key, Task] = {}
        self.renewing: dict[Key, Task] = {}
        self.room = 0
        self._instance = ""
        self._former: dict[str, None] = {}
        self._settled: set[Key] = set()
        self._turn = 0
        self._parked: asyncio.Future[None] | None = None

    def enter(self, instance: str, room: int) -> int:
        """Let a poll in, and return its turn: the newest instance of a node is the node, its newest poll the one.

        Raises ``NodeSuperseded`` for an instance after which another one has called.
        """
        self._require(instance)
        if instance != self._instance:
            self._former[self._instance] = None
            if len(self._former) > _FORMER:
                del self._former[next(iter(self._former))]
            self._instance = instance
        self.wake()
        self._settled.clear()
        self.room = room
        self._turn += 1
        return self._turn

    def is_turn(self, turn: int, instance: str) -> bool:
        """Say whether no later poll has come; raises ``NodeSuperseded`` if that was another instance's."""
        self._require(instance)
        return turn == self._turn

    def _require(self, instance: str) -> None:
        """Raise ``NodeSuperseded`` if a newer instance of the node has called."""
        if instance in self._former:
            raise NodeSuperseded(
                "another process with this node's key has called since: this one must stop, unless it is the one to "
                "keep; then stop the other and start this one again",
                at=f"instance {instance:.40}",
            )

    def take_stock(self, holding: Sequence[Assignment]) -> list[Task]:
        """Compare with what the node holds; return, and take out, what was handed out and is not there."""
        held = {key_of(each): each.fence for each in holding}
        for key in [key for key, task in self.ready.items() if held.get(key) == task.fence]:
            self.out[key] = self.ready.pop(key)
        missing = [task for key, task in self.out.items() if held.get(key) != task.fence]
        for task in missing:
            self.renewing[key_of(task)] = self.out.pop(key_of(task))
        return missing

    def take(self) -> list[Task]:
        """Hand out as many messages as there is room for, the oldest first."""
        taken, now = [], _clock.now()
        while self.room > 0 and self.ready:
            key = next(iter(self.ready))
            self.out[key] = self.ready.pop(key)
            self._handed[key] = now
            self.room -= 1
            taken.append(self.out[key])
        return taken

    def gone(self, holding: Sequence[Assignment]) -> list[Assignment]:
        """Return what the node holds and may forget: it is no longer open, or open under another number."""
        return [each for each in holding if not self._is_open(each) and key_of(each) not in self._settled]

    def _is_open(self, each: Assignment) -> bool:
        task = self.out.get(key_of(each))
        return task is not None and task.fence == each.fence

    def settle(self, key: Key) -> None:
        """Take note that the node's answer is on disk: the poll that it has parked may bring it another message."""
        self._settled.add(key)
        self.room += 1
        if self.ready:
            self.wake()

    async def park(self, seconds: float) -> bool:
        """Wait until there is something to say; False when there is nothing after so many seconds."""
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked = parked
        try:
            async with asyncio.timeout(seconds):
                await parked
        except TimeoutError:
            return False
        finally:
            if self._parked is parked:
                self._parked = None
        return True

    def wake(self) -> None:
        """Let the parked poll look again."""
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)
        self._parked = None

    @property
    def is_parked(self) -> bool:
        """Whether a poll of the node is waiting."""
        return self._parked is not None


class Desk:
    """All open messages, by node."""

    def __init__(self) -> None:
        self._boxes: dict[int, Box] = {}
        self._owners: dict[Key, int] = {}
        self._handed: dict[Key, float] = {}

    def box(self, member: int) -> Box:
        """Return the box of a node."""
        if member not in self._boxes:
            self._boxes[member] = Box(member, self._handed)
        return self._boxes[member]

    def open(self, member: int, task: Task) -> None:
        """Lay out a message that nobody has."""
        self._owners[key_of(task)] = member
        box = self.box(member)
        box.ready[key_of(task)] = task
        box.wake()

    def reopen(self, member: int, task: Task) -> None:
        """Lay out a message that was planned before, which the node may have; its next poll tells.

        A poll that is parked said what the node holds before this message was open again: it is answered.
        """
        self._owners[key_of(task)] = member
        box = self.box(member)
        box.out[key_of(task)] = task
        box.wake()

    def find(self, member: int, key: Key) -> Task | None:
        """Return an open message of a node."""
        box = self.box(member)
        return box.out.get(key) or box.ready.get(key) or box.renewing.get(key)

    def close(self, key: Key, *, answered: bool = False) -> Task | None:
        """Take a message away: it is answered, lost or cancelled. Return it, or None if it was not open."""
        member = self._owners.pop(key, None)
        self._handed.pop(key, None)
        if member is None:
            return None
        box = self._boxes[member]
        task = box.out.pop(key, None) or box.ready.pop(key, None) or box.renewing.pop(key, None)
        if answered:
            box.settle(key)
        else:
            box.wake()
        return task

    def renew(self, member: int, tasks: Iterable[Task]) -> None:
        """Lay out messages again, under their next numbers, but for those taken away in the meantime."""
        for task in tasks:
            if self._boxes[member].renewing.pop(key_of(task), None) is not None:
                self.open(member, task)

    def put_back(self, member: int, tasks: Iterable[Task]) -> None:
        """Undo ``take_stock``: the next numbers could not be made durable."""
        for task in tasks:
            if self._boxes[member].renewing.pop(key_of(task), None) is not None:
                self._boxes[member].out[key_of(task)] = task

    def of_node(self, member: int) -> list[Task]:
        """Return the open messages of a node."""
        box = self.box(member)
        return [*box.out.values(), *box.renewing.values(), *box.ready.values()]

    def handed(self, key: Key) -> float | None:
        """Return when a message was handed out last, in seconds since 1970; None if this start has not done so."""
        return self._handed.get(key)

    def of_run(self, run: int) -> list[Key]:
        """Return the open messages of a run."""
        return [key for key in self._owners if key[0] == run]

    def boxes(self) -> Iterator[Box]:
        """Yield the boxes in which there is something."""
        return (box for box in self._boxes.values() if box.out or box.ready or box.renewing)

    def wake_all(self) -> None:
        """Answer every parked poll."""
        for box in self._boxes.values():
            box.wake()

    def __len__(self) -> int:
        """Return how many messages are open."""
        return len(self._owners)
