"""Ask a cohort and take its replies in any order, handing on what passes in canonical order.

Floating-point sums depend on their order. So replies are used in the order of the cohort, which is sorted by node name:
one that arrives early waits until all nodes before it have answered or are given up. With replies that come in
canonical order nothing ever waits, and memory holds one reply.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from umbel.errors import UmbelError
from umbel.grid import Grid, Node
from umbel.message import DEFAULT_TTL, Message, Metadata
from umbel.records import RecordSet
from umbel.rounds._events import NodeLost, UpdateAccepted, UpdateRefused

_SERVER: Final = 0
_NO_REPLY: Final = "no reply came"

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

    def node(self, slot: int) -> Node:
        """Return the node of one place in the cohort."""
        return self.nodes[self.positions[slot]]

    def messages(self) -> Iterator[Message]:
        """Yield a message for each node; all share one content."""
        for slot, position in enumerate(self.positions):
            metadata = Metadata(
                run_id=self.run_id,
                message_id=self.first_id + slot,
                src_node_id=_SERVER,
                dst_node_id=self.nodes[position].node_id,
                reply_to_message=0,
                group_id=self.round,
                ttl=DEFAULT_TTL,
                message_type=self.phase,
            )
            yield Message(metadata, self.content)

    def slot_of(self, reply: Message) -> int | None:
        """Return which place in the cohort answered; None for a reply to another question or from another node."""
        answered = reply.metadata
        slot = answered.reply_to_message - self.first_id
        known = answered.run_id == self.run_id and 0 <= slot < self.size
        return slot if known and answered.src_node_id == self.node(slot).node_id else None


def gather(
    grid: Grid, question: Question, judge: Callable[[str, RecordSet], _T], use: Callable[[list[_T]], None]
) -> Iterator[Outcome]:
    """Ask, and yield what became of each node.

    ``judge(node, content)`` turns content into something to use, or raises an ``UmbelError`` that says why not.
    ``use`` gets all of these, in canonical order, as soon as that order is certain. A second reply to one message and
    a reply to none are ignored, so that a reply counts once however often it is delivered.
    """
    order = _Order(use)
    grid.send(question.messages())
    for reply in grid.replies():
        slot = question.slot_of(reply)
        if slot is not None and not order.has(slot):
            outcome, item = _judged(question, question.node(slot).name, reply, judge)
            # Nothing here may keep a reply alive, or share its memory, while the engine makes the next one.
            del reply
            order.put(slot, item)
            del item
            yield outcome
    yield from _give_up(grid, question, order)


def _judged(
    question: Question, node: str, reply: Message, judge: Callable[[str, RecordSet], _T]
) -> tuple[Outcome, _T | None]:
    if reply.has_error():
        reason = reply.error.reason or f"error {reply.error.code}, without a reason"
        return NodeLost(question.round, question.phase, node, reason), None
    received = reply.content.count_bytes()
    try:
        item = judge(node, reply.content)
    except UmbelError as error:
        return UpdateRefused(question.round, question.phase, node, str(error), received), None
    return UpdateAccepted(question.round, question.phase, node, received), item


def _give_up(grid: Grid, question: Question, order: "_Order[_T]") -> Iterator[NodeLost]:
    missing = [slot for slot in range(question.size) if not order.has(slot)]
    if missing:
        grid.cancel(question.first_id + slot for slot in missing)
    for slot in missing:
        order.put(slot, None)
        yield NodeLost(question.round, question.phase, question.node(slot).name, _NO_REPLY)


class _Order(Generic[_T]):
    """Hands items on in the order of their slots: each as soon as everything before it is there or given up."""

    def __init__(self, use: Callable[[list[_T]], None]) -> None:
        self._use = use
        self._next = 0
        self._waiting: dict[int, _T | None] = {}

    def has(self, slot: int) -> bool:
        """Say whether the slot was put already."""
        return slot < self._next or slot in self._waiting

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
