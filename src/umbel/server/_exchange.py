"""Where the threads that drive runs meet the event loop: what is asked goes one way, what became of it the other."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from umbel import _clock
from umbel.context import derive_seed
from umbel.envelope import Content
from umbel.failpoint import failpoint
from umbel.grid import Node
from umbel.http.wire import Task
from umbel.message import Error, ErrorCode
from umbel.records import RecordSet
from umbel.server._desk import Desk, Key, key_of
from umbel.server._keeper import Keeper
from umbel.server._plans import Commission, Fate, Halted, Offer, Phase, Planned
from umbel.server._presence import Presence
from umbel.server._registry import Registry
from umbel.store import messages, replies
from umbel.store.members import Member

_T = TypeVar("_T")
Tell = Callable[[Fate], object]

_LISTED: Final = 5
_CARRIED: Final = 16 * 1024  # bytes of an answer that wait in memory for the loop; larger ones wait in the ledger
_OPEN: Final = "planned"
_GIVEN_UP: Final = ("lost", "cancelled")
_NO_ANSWER: Final = "the answer was given up with its round"


class Exchange:
    """What the grids of all runs share. Methods that drivers call block, and are safe to call from any thread."""

    def __init__(self, keeper: Keeper, desk: Desk, presence: Presence, registry: Registry) -> None:
        self._keeper = keeper
        self._desk = desk
        self._presence = presence
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._gate = threading.Lock()
        self._asked: set[Future[Any]] = set()
        self._is_over = False
        self._tell: dict[int, Tell] = {}
        self.waiting: dict[int, str] = {}

    # What the event loop calls

    def settle(self, member: int, key: Key, fate: Fate, *, answered: bool = False) -> None:
        """Take an open message of a node away, and tell the grid of its run what became of it.

        One that has gone to another node meanwhile stays there.
        """
        if self._desk.find(member, key) is not None:
            self._desk.close(key, answered=answered)
        tell = self._tell.get(key[0])
        if tell is not None:
            tell(fate)

    def is_sent(self, key: Key) -> bool:
        """Say whether a message was handed out since the start."""
        return self._desk.handed(key) is not None

    def close(self) -> None:
        """End every wait of a driver with ``Halted``, those to come too: the loop ends, and nobody would end them."""
        with self._gate:
            self._is_over, asked = True, list(self._asked)
        for future in asked:
            future.cancel()

    # What drivers call

    def attach(self, run: int, tell: Tell) -> None:
        """Call ``tell`` with the fates of the messages of a run."""
        self._tell[run] = tell

    def detach(self, run: int) -> None:
        """Forget the grid of a run."""
        self._tell.pop(run, None)
        self.waiting.pop(run, None)

    def on_loop(self, function: Callable[[], _T]) -> _T:
        """Run a short function on the event loop and return what it returns; raises ``Halted`` once that has ended."""
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - goes to the thread that asked
                future.set_exception(error)

        with self._gate:
            if self._is_over:
                raise Halted
            self._asked.add(future)
        try:
            self._loop.call_soon_threadsafe(run)
            return future.result()
        except CancelledError:
            raise Halted from None
        finally:
            self._asked.discard(future)

    def offer(self, commission: Commission, message_type: str, previous: frozenset[int] | None) -> Offer:
        """Return the nodes for a phase that is not planned yet, and what there is to wait for."""
        return self.on_loop(lambda: self.offered(commission, message_type, previous))

    def offered(self, commission: Commission, message_type: str, previous: frozenset[int] | None) -> Offer:
        """Do the same on the event loop."""
        wanted = commission.wanted
        able = [each for each in self._registry.nodes() if message_type in each.types]
        if not isinstance(wanted, int):
            able = [each for each in able if each.name in wanted]
        there = [each for each in able if self._is_there(each.id, previous)]
        roster = tuple(Node(each.name, each.id) for each in there)
        missing = _missing(wanted, there, message_type) if previous is None else _nobody(there, message_type)
        self.waiting[commission.run] = missing
        return Offer(roster, missing)

    def _is_there(self, member: int, previous: frozenset[int] | None) -> bool:
        # After a restart of the server, nodes that were there before it need a moment to come back.
        if previous is not None and member in previous:
            return not self._presence.is_silent(member)
        return self._presence.is_here(member)

    def handled(self, roster: Sequence[Node], message_type: str) -> bool:
        """Say whether a node of a roster handles a message type."""
        return self.on_loop(lambda: any(message_type in self._registry.get(each.node_id).types for each in roster))

    def phase(self, run: int, number: int, message_type: str) -> Phase | None:
        """Return a phase if it is planned, with its messages, and what became of them by now."""
        found = self._keeper.read(lambda connection: messages.phase(connection, run, number, message_type))
        if found is None:
            return None
        came = self._keeper.read(lambda connection: replies.times(connection, run, number, message_type))
        roster = tuple(Node(name, number) for name, number in found.roster)
        planned = {row.message: Planned(row.node, _ended(row, came)) for row in found.messages}
        return Phase(roster, found.created_at, found.ttl, found.content, planned)

    def answer(self, run: int, fate: Fate) -> Fate:
        """Return a fate with what the ledger has as its answer."""
        given = self._keeper.read(lambda connection: replies.of_message(connection, run, fate.message))
        return lost(fate.message, _NO_ANSWER) if given is None else _fate(given, fate.seconds, fate.at)

    def whole(self, digest: str) -> object:
        """Return the same of a blob that came before this start, which is hashed again."""
        return self._keeper.whole(digest)

    def blob(self, digest: str) -> object:
        """Return the bytes of a blob, mapped."""
        return self._keeper.blob(digest)

    def plan(self, commission: Commission, content: RecordSet, make: Callable[[Content], messages.Plan]) -> Phase:
        """Plan a phase in one transaction, let the nodes have its messages, and return it."""
        now, present = _clock.now(), self._keeper.present

        def write(packed: Content) -> messages.Plan:
            plan = make(packed)
            self._keeper.write(lambda connection: messages.plan(connection, plan, now=now, present=present))
            return plan

        plan = self._keeper.store(content, write)
        self._hand_over(commission, plan, now)
        return Phase(tuple(Node(name, number) for name, number in plan.roster), now, plan.ttl, plan.content)

    def extend(self, commission: Commission, plan: messages.Plan) -> float:
        """Ask further nodes in a phase that is planned, in one transaction; return when that was."""
        now = _clock.now()
        self._keeper.write(lambda connection: messages.extend(connection, plan, now=now))
        self._hand_over(commission, plan, now)
        return now

    def _hand_over(self, commission: Commission, plan: messages.Plan, now: float) -> None:
        """Let nodes have messages that are durable."""
        failpoint("server.planned")
        self._loop.call_soon_threadsafe(self.hand_over, tasks_of(commission, plan, now, plan.round))

    def reassign(self, commission: Commission, plan: messages.Plan) -> int:
        """Ask another node for the one message of a plan, durably; who had it is told, and its reply is none any more.

        Return the number under which a reply counts.
        """
        now, (ask,) = _clock.now(), plan.asks
        key = (plan.run, ask.message)
        fence = self._keeper.write(lambda connection: messages.reassign(connection, key, node=ask.node))
        names = {number: name for name, number in plan.roster}
        row = messages.Open(plan.run, ask.message, ask.node, fence, plan.round, plan.phase, now, plan.ttl, plan.round)
        task = task_of(commission, row, names[ask.node], plan.content)

        def move() -> None:
            self._desk.close(key)
            self._desk.open(ask.node, task)

        self._loop.call_soon_threadsafe(move)
        return fence

    def reopen(
        self,
        commission: Commission,
        rows: Iterable[messages.Open],
        phases: Mapping[tuple[int, str], messages.Phase | None],
        fresh: Collection[Key],
    ) -> None:
        """Lay out messages that the ledger has as open; but for those that are fresh, nodes may have them."""
        tasks = []
        for row in rows:
            phase = phases[row.round, row.phase]
            if phase is not None and phase.content is not None:
                names = {number: name for name, number in phase.roster}
                tasks.append((row.node, task_of(commission, row, names[row.node], phase.content)))

        def lay_out() -> None:
            for member, task in tasks:
                lay = self._desk.open if key_of(task) in fresh else self._desk.reopen
                lay(member, task)

        self.on_loop(lay_out)

    def hand_over(self, tasks: Iterable[tuple[int, Task]]) -> None:
        """Let nodes have messages; the event loop alone calls this."""
        for member, task in tasks:
            self._desk.open(member, task)

    def cancel(self, run: int, message_ids: Iterable[int], reason: str) -> None:
        """Give messages up, durably, and tell the nodes that have them."""
        keys = [(run, message) for message in message_ids]
        self._keeper.write(lambda connection: messages.cancel(connection, keys, reason))
        failpoint("server.given-up")
        self._loop.call_soon_threadsafe(self.take_away, keys)

    def take_away(self, keys: Iterable[Key]) -> None:
        """Take messages away, which their nodes forget; the event loop alone calls this."""
        for key in keys:
            self._desk.close(key)

    def keep(self, run: int, flying: Collection[int]) -> None:
        """Tell nodes to forget all messages of a run but some: the ledger has closed them."""
        wanted = frozenset(flying)
        self._loop.call_soon_threadsafe(
            lambda: self.take_away([key for key in self._desk.of_run(run) if key[1] not in wanted])
        )

    def cancel_run(self, run: int, reason: str) -> None:
        """Give up all open messages of a run."""
        self.cancel(run, [message for _, message in self.on_loop(lambda: self._desk.of_run(run))], reason)


def fate_of(reply: replies.Reply, at: float) -> Fate:
    """Return the fate of a message that was answered at a time; an answer that carries much waits in the ledger."""
    parts = () if reply.content is None else (reply.content.rest, *(named.part for named in reply.content.records))
    if sum(len(part.data or b"") for part in parts) > _CARRIED:
        return Fate(reply.message, seconds=reply.seconds, stored=True, at=at, fence=reply.fence)
    return _fate(reply, reply.seconds, at)._replace(fence=reply.fence)


def _fate(given: replies.Given | replies.Reply, seconds: Mapping[str, float] | None, at: float) -> Fate:
    code = ErrorCode.UNKNOWN if given.error_code is None else given.error_code
    error = Error(code, given.error_reason or "") if given.content is None else None
    return Fate(given.message, given.content, error, seconds, at=at)


def _ended(row: messages.Row, came: Mapping[int, float]) -> Fate | None:
    """Return what became of a message that the ledger has, None if it is open."""
    if row.status in _GIVEN_UP:
        return lost(row.message, row.reason)
    answered = row.status != _OPEN and row.message in came
    return Fate(row.message, stored=True, at=came[row.message]) if answered else None


def lost(message: int, reason: str) -> Fate:
    """Return the fate of a message whose answer will not come."""
    return Fate(message, error=Error(ErrorCode.NODE_UNAVAILABLE, reason))


def tasks_of(commission: Commission, plan: messages.Plan, at: float, group: int) -> list[tuple[int, Task]]:
    """Return what was planned for each node just now; ``group`` is the round that the messages name."""
    names = {number: name for name, number in plan.roster}
    rows = [
        messages.Open(plan.run, ask.message, ask.node, 1, plan.round, plan.phase, at, plan.ttl, group)
        for ask in plan.asks
    ]
    return [(row.node, task_of(commission, row, names[row.node], plan.content)) for row in rows]


def task_of(commission: Commission, row: messages.Open, name: str, content: Content) -> Task:
    """Return an open message as its node gets it."""
    return Task(
        run=row.run,
        run_name=commission.name,
        message=row.message,
        fence=row.fence,
        round=row.group,
        message_type=row.phase,
        seed=derive_seed(commission.seed, row.group, name, row.phase),
        created_at=row.created_at,
        ttl=row.ttl,
        run_config=commission.config,
        content=content,
    )


def _missing(wanted: int | tuple[str, ...], there: Sequence[Member], message_type: str) -> str:
    names = [member.name for member in there]
    if isinstance(wanted, int):
        short = wanted - len(names)
        return f"waits for {short} of {wanted} nodes that handle {message_type!r}" if short > 0 else ""
    absent = [name for name in wanted if name not in names]
    shown = ", ".join(absent[:_LISTED]) + (f" and {len(absent) - _LISTED} more" if len(absent) > _LISTED else "")
    return f"waits for nodes that handle {message_type!r}: {shown}" if absent else ""


def _nobody(there: Sequence[Member], message_type: str) -> str:
    return "" if there else f"waits for any node that handles {message_type!r}"
