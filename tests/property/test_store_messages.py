"""Messages and replies in a ledger behave as a few lines of Python over a dictionary do, in any order."""

from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from umbel.errors import Fenced, NotFound, ReplyConflict, UmbelError, WrongState
from umbel.store import Ledger, messages, replies, runs
from umbel.testing._scene import DAY, NOW, content, join, nowhere

NAMES = count()
SLOTS = st.integers(0, 2)
NODES = st.integers(0, 1)
FENCES = st.integers(1, 4)
SAID = st.sampled_from([b"[1]", b"[2]"])


class Expected:
    """What a message is, and what was said to it."""

    def __init__(self, node):
        self.node, self.fence, self.status, self.said, self.counted = node, 1, "planned", None, False


class Machine(RuleBasedStateMachine):
    """One run on a ledger, and what it should be."""

    def __init__(self, ledger):
        super().__init__()
        self.ledger = ledger

    @initialize()
    def begin(self):
        number = next(NAMES)
        self.nodes = [join(self.ledger, f"node {number}.{each}") for each in range(2)]
        owner = join(self.ledger, f"user {number}", "user").id
        self.run = self.write(lambda c: runs.create(c, "{}", owner, now=NOW, present=nowhere)).id
        self.round, self.completed = 0, 0
        self.closed, self.open = {}, {}

    def write(self, op):
        return self.ledger.write(op).result()

    def tried(self, op):
        """What an operation returns, or the kind of error that it raises."""
        try:
            return self.write(op)
        except UmbelError as error:
            return type(error)

    def number(self, slot):
        return 10 * (self.completed + 1) + slot

    @precondition(lambda self: not self.open)
    @rule(nodes=st.lists(NODES, max_size=3))
    def plan(self, nodes):
        number = self.completed + 1
        asks = tuple(messages.Ask(10 * number + slot, slot, self.nodes[node].id) for slot, node in enumerate(nodes))
        plan = messages.Plan(self.run, number, "train", (), content(), DAY, asks)
        again = self.tried(lambda c: messages.plan(c, plan, now=NOW, present=nowhere))
        assert again is (WrongState if self.round == number else None)
        if self.round != number:
            self.round = number
            self.open = {ask.message: Expected(node) for ask, node in zip(asks, nodes, strict=True)}

    @rule(slot=SLOTS, node=NODES, fence=FENCES, said=SAID)
    def reply(self, slot, node, fence, said):
        number = self.number(slot)
        reply = replies.Reply(self.run, number, fence, content=content(said))
        found = self.tried(lambda c: replies.accept(c, reply, node=self.nodes[node].id, now=NOW + 1, present=nowhere))
        assert (found if isinstance(found, type) else found.counted) == self.replied(number, node, fence, said)

    def replied(self, number, node, fence, said):
        message = self.open.get(number)
        if message is None or message.node != node:
            return NotFound
        if message.said is not None:
            conflict = ReplyConflict if message.fence == fence else Fenced
            return message.counted if message.said == said else conflict
        if message.status == "planned" and message.fence != fence:
            return Fenced
        if message.status == "cancelled":
            return False
        message.said, message.counted = said, message.status == "planned"
        message.status = "replied" if message.counted else "lost"
        return message.counted

    @rule(slot=SLOTS, node=NODES, fence=FENCES)
    def raise_fence(self, slot, node, fence):
        number, message = self.number(slot), self.open.get(self.number(slot))
        found = self.tried(lambda c: messages.raise_fence(c, (self.run, number), node=self.nodes[node].id, fence=fence))
        if message is None or message.node != node:
            assert found is NotFound
        elif message.status != "planned":
            assert found is WrongState
        elif message.fence != fence:
            assert found is Fenced
        else:
            message.fence += 1
            assert found == message.fence

    @rule(slots=st.lists(SLOTS, unique=True), node=st.one_of(st.none(), NODES))
    def give_up(self, slots, node):
        """Cancel messages, or lose those that one node has."""
        status, keys = "cancelled" if node is None else "lost", [(self.run, self.number(slot)) for slot in slots]
        if node is None:
            found = self.write(lambda c: messages.cancel(c, keys, "why"))
        else:
            found = self.write(lambda c: messages.lose(c, keys, "why", node=self.nodes[node].id))
        ended = [
            number
            for _, number in keys
            if number in self.open and self.open[number].status == "planned" and node in (None, self.open[number].node)
        ]
        assert found == [(self.run, number) for number in ended]
        for number in ended:
            self.open[number].status = status

    @rule()
    def reopen(self):
        found = self.write(lambda c: messages.reopen(c, self.run, now=NOW))
        again = {number: each for number, each in self.open.items() if each.status in ("lost", "cancelled")}
        assert sorted(found) == [(self.run, number) for number in sorted(again)]
        for message in again.values():
            message.status, message.said, message.fence = "planned", None, message.fence + 1

    @precondition(lambda self: self.round > self.completed)
    @rule(data=st.data())
    def close(self, data):
        verdicts = {
            number: data.draw(st.sampled_from(["accepted", "refused"])) if each.status == "replied" else "lost"
            for number, each in self.open.items()
        }
        outcomes = tuple(runs.Outcome(number, status) for number, status in verdicts.items())
        closing = runs.Closing(self.round, "{}", content(b"[%d]" % self.round), f"d{self.round}", outcomes)
        for _ in range(2):
            self.write(lambda c: runs.close_round(c, self.run, closing, now=NOW, present=nowhere))
        self.closed |= {self.round: list(verdicts.values())}
        self.completed, self.open = self.round, {}

    @precondition(lambda self: hasattr(self, "run"))
    @invariant()
    def everything_is_as_expected(self):
        for number, statuses in self.closed.items():
            assert [row.status for row in self.phase(number).messages] == statuses
        if self.round > self.completed:
            rows = [(row.message, row.status, row.fence) for row in self.phase(self.round).messages]
            assert rows == [(number, each.status, each.fence) for number, each in sorted(self.open.items())]
        given = self.ledger.read(lambda c: replies.of_phase(c, self.run, self.round, "train"))
        counted = [number for number, each in sorted(self.open.items()) if each.said is not None and each.counted]
        assert [each.message for each in given] == counted
        for node, member in enumerate(self.nodes):
            waiting = self.ledger.read(lambda c, m=member: messages.open_messages(c, m.id))
            expected = [n for n, each in self.open.items() if each.status == "planned" and each.node == node]
            assert sorted(each.message for each in waiting) == sorted(expected)

    def phase(self, number):
        return self.ledger.read(lambda c: messages.phase(c, self.run, number, "train"))


@pytest.fixture
def ledger(ledger_url):
    with Ledger.open(ledger_url) as opened:
        yield opened


def test_messages_are_as_a_dictionary_would_have_them(ledger, ledger_url):
    examples = 30 if ledger_url.startswith("sqlite") else 8
    run_state_machine_as_test(
        lambda: Machine(ledger), settings=settings(max_examples=examples, stateful_step_count=25, deadline=None)
    )


@pytest.mark.slow
def test_messages_are_as_a_dictionary_would_have_them_at_length(ledger):
    run_state_machine_as_test(
        lambda: Machine(ledger), settings=settings(max_examples=400, stateful_step_count=50, deadline=None)
    )
