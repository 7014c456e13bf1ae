"""Ask a cohort and take its replies in any order, handing on what passes in canonical order.

Floating-point sums depend on their order. So replies are used in the order of the cohort, which is sorted by node name:
one that arrives early waits until all nodes before it have answered or are given up. With replies that come in
canonical order nothing ever waits, and memory holds one reply.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from umbel.errors import UmbelError, UpdateRejected
from umbel.grid import Grid, Node
from umbel.history import Arrival
from umbel.message import DEFAULT_TTL, Message, Metadata
from umbel.records import RecordSet
from umbel.records._brief import both_ends
from umbel.rounds._events import NodeLost, UpdateAccepted, UpdateRefused

_SERVER: Final = 0
_NO_REPLY: Final = "no reply came"
_TOO_LATE: Final = "enough others had answered"
_LONGEST: Final = 20_000  # characters of a reason, which is in every report of the run

Outcome: TypeAlias = UpdateAccepted | UpdateRefused | NodeLost
_T = TypeVar("_T")


class Question(NamedTuple):
    """One phase of a round: what is asked of the nodes at some positions. Neither nodes nor positions are listed."""

    run_id: int
    round: int
    phase: str
    nodes: Sequence[Node]
    positions: Sequence[int]
    content: RecordSet
    first_id: int

    @property
    def size(self) -> int:
        """How many nodes are asked."""
        return len(self.positions)

    def asked(self) -> Iterator[Node]:
        """Yield the nodes in order."""
        if self.positions == range(len(self.nodes)):
            return iter(self.nodes)
        return map(self.nodes.__getitem__, self.positions)

    def message(self, slot: int, node: Node, ttl: float = DEFAULT_TTL) -> Message:
        """Return the message to the node of one place in the cohort; all messages share one content."""
        metadata = Metadata(
            run_id=self.run_id,
            message_id=self.first_id + slot,
            src_node_id=_SERVER,
            dst_node_id=node.node_id,
            reply_to_message=0,
            group_id=self.round,
            ttl=ttl,
            message_type=self.phase,
        )
        return Message(metadata, self.content)


class Limits(NamedTuple):
    """For how long, and until when, a phase goes on, and who hears of what comes.

    Nodes have ``ttl`` seconds. As soon as ``enough`` have sent what can be used the phase is over; None waits for all.
    ``arrived`` hears of every reply with content that counts, before it is judged.
    """

    ttl: float = DEFAULT_TTL
    enough: int | None = None
    arrived: Callable[[Arrival], None] | None = None


UNLIMITED: Final = Limits()


def gather(
    grid: Grid,
    question: Question,
    judge: Callable[[str, RecordSet], _T],
    use: Callable[[list[_T]], None],
    limits: Limits = UNLIMITED,
) -> Iterator[Outcome]:
    """Ask, and yield what became of each node.

    ``judge(node, content)`` turns content into something to use, or raises an ``UmbelError`` that says why not.
    ``use`` gets all of these, in canonical order, as soon as that order is certain. A second reply to one message and
    a reply to none are ignored, so that a reply counts once however often it is delivered.
    """
    asked, order = _Asked(question, limits.ttl), _Order(use)
    missing = limits.enough
    grid.send(asked.messages())
    for reply in grid.replies():
        slot, node = asked.answered_by(reply.metadata)
        if node is not None:
            if limits.arrived is not None and reply.has_content():
                limits.arrived(arrival(node.name, reply.metadata, limits.ttl))
            outcome, item = judged(question, node.name, reply, judge)
            # Nothing here may keep a reply alive, or share its memory, while the engine makes the next one.
            del reply
            order.put(slot, item)
            if missing is not None and item is not None:
                missing -= 1
            del item
            yield outcome
            if missing == 0:
                break
    yield from _given_up(grid, question, asked, order, _TOO_LATE if missing == 0 else _no_reply(limits.ttl))


def _given_up(grid: Grid, question: Question, asked: "_Asked", order: "_Order[_T]", reason: str) -> Iterator[Outcome]:
    missing = asked.missing()
    if missing:
        grid.cancel(question.first_id + slot for slot in missing)
    for slot, node in missing.items():
        order.put(slot, None)
        yield NodeLost(question.round, question.phase, node.name, reason)


def _no_reply(ttl: float) -> str:
    return _NO_REPLY if ttl >= DEFAULT_TTL else f"{_NO_REPLY} within the {ttl:.6g} s of the deadline"


def arrival(node: str, reply: Metadata, ttl: float) -> Arrival:
    """Return when a reply came. What is left of its message's time to live says how long it took."""
    return Arrival(node, reply.reply_to_message, reply.created_at, max(0.0, ttl - reply.ttl))


def judged(
    question: Question, node: str, reply: Message, judge: Callable[[str, RecordSet], _T]
) -> tuple[Outcome, _T | None]:
    """Return what became of a reply, and what there is of it to use."""
    if reply.has_error():
        reason = reply.error.reason or f"error {reply.error.code}, without a reason"
        return NodeLost(question.round, question.phase, node, both_ends(reason, _LONGEST)), None
    content, received = reply.content, 0
    try:
        received = _size(content)
        item = judge(node, content)
    except UmbelError as error:
        return UpdateRefused(question.round, question.phase, node, str(error), received), None
    return UpdateAccepted(question.round, question.phase, node, received), item


def _size(content: RecordSet) -> int:
    try:
        return content.count_bytes()
    except UnicodeEncodeError as error:
        raise UpdateRejected(f"expected Unicode text, got {error.object!a:.80}, which has a lone surrogate") from error


class _Asked:
    """The nodes that were asked and have not answered, by their place in the cohort."""

    def __init__(self, question: Question, ttl: float) -> None:
        self._question, self._ttl = question, ttl
        self._nodes: dict[int, Node] = {}
        self._rest = enumerate(question.asked())

    def messages(self) -> Iterator[Message]:
        """Yield a message for each node, which counts as asked from then on."""
        for slot, node in self._rest:
            self._nodes[slot] = node
            yield self._question.message(slot, node, self._ttl)

    def answered_by(self, reply: Metadata) -> tuple[int, Node | None]:
        """Return the place and the node that answered; None for a reply that answers nothing that is still open."""
        slot = reply.reply_to_message - self._question.first_id
        node = self._nodes.get(slot)
        if node is None or reply.src_node_id != node.node_id or reply.run_id != self._question.run_id:
            return slot, None
        return slot, self._nodes.pop(slot)

    def missing(self) -> dict[int, Node]:
        """Return who has not answered, by place in the cohort; an engine may not even have taken their messages."""
        self._nodes.update(self._rest)
        return dict(sorted(self._nodes.items()))


class _Order(Generic[_T]):
    """Hands items on in the order of their slots: each as soon as everything before it is there or given up."""

    def __init__(self, use: Callable[[list[_T]], None]) -> None:
        self._use = use
        self._next = 0
        self._waiting: dict[int, _T | None] = {}

    def put(self, slot: int, item: _T | None) -> None:
        """Take what a slot has, None for nothing, and hand on what is certain now."""
        self._waiting[slot] = item
        ready: list[_T] = []
        while self._next in self._waiting:
            released = self._waiting.pop(self._next)
            self._next += 1
            if released is not None:
                ready.append(released)
        if ready:
            self._use(ready)
