"""Rounds that overlap: nodes train while the model moves on, and a new one is made of every few updates.

A round here is the time from one model to the next. Whoever answers makes room for another node, which is sent the
model of its time; so in flight there are messages of several rounds. Each was sent one version of the model, which is
kept until nobody trains from it any more. Who is in flight, and from which version, is in the run's state: a run that
goes on asks the same again, in the same order.

Where nodes are in tiers, those of one wait for one another, and for nobody else. What they have sent until then is in
the run's state, too. Without tiers all nodes are of one, and nobody waits.

Given the order in which replies come, nothing here is left to chance.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from umbel.errors import StrategyError
from umbel.grid import Node
from umbel.message import DEFAULT_TTL, Message
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._draw import Draw
from umbel.rounds._events import Event, NodeLost, RoundStarted, UpdateAccepted
from umbel.rounds._gather import Outcome, Question, arrival, judged
from umbel.rounds._held import Held, packed
from umbel.rounds._memory import Memory
from umbel.rounds._rebase import rebased
from umbel.rounds._report import Tally
from umbel.rounds._run import Run
from umbel.rounds._state import MODEL
from umbel.rounds._training import Training
from umbel.rounds._turns import turns_of
from umbel.rounds._waiting import Contribution
from umbel.strategy import Overlap

_FLIGHT: Final = "flight"
_VERSION: Final = "flight."
_NO_REPLY: Final = "no reply came"
_LEFT: Final = "it was asked before the run was stopped, and has left since"


class _Sent(NamedTuple):
    """A message that is not answered yet: who has it, from which round, and whose turn it is."""

    message_id: int
    node: Node
    round: int
    tier: int


class Flight:
    """The messages in flight, and the versions of the model that they carry."""

    def __init__(self, run: Run, plan: Overlap, state: RecordSet) -> None:
        if not getattr(run.grid, "overlapping", False):
            raise StrategyError(
                f"the policy {run.strategy.policy.name} asks nodes while others train, which this grid cannot: it "
                "takes one cohort at a time; use a policy that waits, such as quorum(...)",
                at="policy",
            )
        self._plan, self._turns = plan, turns_of(plan, max(1, run.strategy.min_updates))
        self._tiers = range(max(1, plan.tiers))
        self._versions: dict[int, ParametersRecord] = {}
        self._open: dict[int, _Sent] = {}
        self._flying: set[str] = set()
        self._busy: Counter[int] = Counter()
        self._held = Held(state, len(self._tiers))
        self._waiting, self._left = _restored(run, state)
        for sent in self._waiting:
            self._versions[sent.round] = state.parameters_records[f"{_VERSION}{sent.round}"]

    def train_phase(
        self, run: Run, state: RecordSet, number: int
    ) -> Generator[Event, None, tuple[Question, Tally, Training]]:
        """Keep nodes busy until there are enough updates for the next model."""
        content = run.instruct_training(state, number)
        question = run.question(number, run.strategy.phase, run.strategy.select, content)
        self._require_filled(run, question)
        tally, training = Tally(run.strategy.phase), Training(run.strategy, state, len(question.nodes))
        self._versions[number] = state.parameters_records[MODEL]
        self._resume(run, state)
        draw = Draw(run.seed, question, self._turns.groups(question, run.memory), self._is_busy)
        outdated = [*self._gone(run, number), *self._outdated(run, number)]
        self._top_up(run, tally, draw)
        asked = len(self._open)
        yield RoundStarted(number, asked)
        yield from tally.watch(run.memory.watch(outdated))
        outcomes = self._outcomes(run, question, training)
        while self._full() is None:
            outcome = next(outcomes, None)
            if outcome is None:
                yield from tally.watch(run.memory.watch(self._never_came(run, number)))
                break
            yield from tally.watch(run.memory.watch([outcome]))
            # Whose update is accepted is as busy as before, since it waits; with tiers another may ask that node.
            if self._plan.tiers or not isinstance(outcome, UpdateAccepted):
                draw.look_again()
            if self._full() is None:
                asked += self._top_up(run, tally, draw)
        training.tier = self._full() or 0
        training.add(self._held.take(training.tier))
        return question._replace(positions=range(asked)), tally, training

    def _require_filled(self, run: Run, question: Question) -> None:
        """Refuse a run that begins with fewer nodes than a model takes updates; later ones may come and go."""
        if question.round > 1 or self._waiting or question.size >= self._plan.wanted:
            return
        asks = f"{run.strategy.select.name} asks {question.size} of {len(question.nodes)} nodes"
        sentence = self._plan.never_full(run.strategy.policy.name, f"{asks}: start more nodes, ask more of them")
        raise StrategyError(sentence, at="policy")

    def _is_busy(self, tier: int, node: str) -> bool:
        """Say whether a node trains, or has done so; where it waits for nobody, other tiers may ask it."""
        waits = (each for each in self._tiers if each == tier or self._busy[each])
        return node in self._flying or any(self._held.has(each, node) for each in waits)

    def _full(self) -> int | None:
        return self._turns.full(self._held, self._busy)

    def _resume(self, run: Run, state: RecordSet) -> None:
        """Ask again what was in flight when the run was left, in the order in which it went out."""
        for sent in self._waiting:
            before = state.copy()
            before.parameters_records[MODEL] = self._versions[sent.round]
            content = run.instruct_training(before, sent.round)
            question = Question(run.run_id, sent.round, run.strategy.phase, (), (), content, sent.message_id)
            run.grid.send([self._asked(sent, question.message(0, sent.node))])
        self._waiting = []

    def _asked(self, sent: _Sent, message: Message) -> Message:
        self._open[sent.message_id] = sent
        self._flying.add(sent.node.name)
        self._busy[sent.tier] += 1
        return message

    def _top_up(self, run: Run, tally: Tally, draw: Draw) -> int:
        """Ask further nodes until as many train as should; nobody twice in a round, nor whose update is waiting."""
        asked = [message for tier in self._tiers for message in self._further(tier, draw, run.memory)]
        if asked:
            run.grid.send(asked)
        tally.sent(draw.question.content, len(asked))
        return len(asked)

    def _further(self, tier: int, draw: Draw, memory: Memory) -> Iterator[Message]:
        for _ in range(self._turns.room(tier, self._held, self._busy)):
            drawn = draw.next(tier)
            if drawn is None:
                return
            node, message = drawn
            memory.asked(node.name, draw.question.round)
            yield self._asked(_Sent(message.metadata.message_id, node, draw.question.round, tier), message)

    def _outcomes(self, run: Run, question: Question, training: Training) -> Iterator[Outcome]:
        for reply in run.grid.replies():
            sent = self._open.get(reply.metadata.reply_to_message)
            if sent is None or (reply.metadata.src_node_id, reply.metadata.run_id) != (sent.node.node_id, run.run_id):
                continue
            self._landed(sent)
            note = run.memory.arrived if reply.has_content() else run.memory.lost
            note(arrival(sent.node.name, reply.metadata, DEFAULT_TTL))
            judge = run.memory.listening(partial(self._judge, training, question.round, sent.round))
            outcome, item = judged(question, sent.node.name, reply, judge)
            del reply
            if item is not None:
                self._held.put(sent.tier, item)
            yield outcome

    def _landed(self, sent: _Sent) -> None:
        del self._open[sent.message_id]
        self._flying.discard(sent.node.name)
        self._busy[sent.tier] -= 1

    def _judge(self, training: Training, number: int, version: int, node: str, content: RecordSet) -> Contribution:
        plan, sent = self._plan, self._versions[version]
        share = plan.discount(number - version)
        contribution = training.judge_late(node, content, sent, partial(_onto, sent, plan.moved, share))
        if plan.tiers:
            packed(content.metrics_records)  # so that the node is to blame for what cannot be kept
        return contribution

    def _gone(self, run: Run, number: int) -> Iterator[Outcome]:
        """Give up nodes that were in flight when the run was left, and are there no more."""
        for node in self._left:
            yield NodeLost(number, run.strategy.phase, node, _LEFT)
        self._left = []

    def _outdated(self, run: Run, number: int) -> Iterator[Outcome]:
        """Give up messages whose model is too old for their answer to count."""
        old = [sent for sent in self._open.values() if number - sent.round > self._plan.most_stale]
        if old:
            run.grid.cancel([sent.message_id for sent in old])
        for sent in old:
            self._landed(sent)
            reason = f"the model that it was sent is more than {self._plan.most_stale} versions old"
            yield NodeLost(number, run.strategy.phase, sent.node.name, reason)

    def _never_came(self, run: Run, number: int) -> Iterator[Outcome]:
        for sent in list(self._open.values()):
            self._landed(sent)
            yield NodeLost(number, run.strategy.phase, sent.node.name, _NO_REPLY)

    def kept_in(self, state: RecordSet) -> RecordSet:
        """Return the state with who is in flight, and the versions that they train from."""
        wanted = {sent.round for sent in self._open.values()}
        self._versions = {number: model for number, model in self._versions.items() if number in wanted}
        following = state.copy()
        for name in [name for name in following.parameters_records if name.startswith(_VERSION)]:
            del following.parameters_records[name]
        kept = {f"{_VERSION}{number}": model.copy() for number, model in self._versions.items()}
        following.parameters_records.update({**kept, **self._held.records()})
        following.parameters_records[_FLIGHT] = _packed([self._open[number] for number in sorted(self._open)])
        return following


def _onto(
    sent: ParametersRecord,
    moved: bool,  # noqa: FBT001 - a part of the plan
    share: float,
    model: ParametersRecord,
    update: ParametersRecord,
) -> ParametersRecord:
    return rebased(update, sent if moved else model, model, share)


def _packed(flight: Sequence[_Sent]) -> ParametersRecord:
    names = "\n".join(sent.node.name for sent in flight).encode()
    return ParametersRecord.from_numpy(
        {
            "message": np.array([sent.message_id for sent in flight], np.int64),
            "round": np.array([sent.round for sent in flight], np.int64),
            "tier": np.array([sent.tier for sent in flight], np.int64),
            "names": np.frombuffer(names, np.uint8),
        }
    )


def _restored(run: Run, state: RecordSet) -> tuple[list[_Sent], list[str]]:
    """Return who was in flight, and the names of those among them that have left since."""
    record = state.parameters_records.get(_FLIGHT)
    if record is None or not record["message"].shape[0]:
        return [], []
    names = bytes(record["names"].data).decode().split("\n")
    columns = [record[name].numpy().tolist() for name in ("message", "round")]
    # A state from before there were tiers has none.
    tiers = record["tier"].numpy().tolist() if "tier" in record else [0] * len(names)
    rosters: Mapping[int, Sequence[Node]] = {
        each: run.grid.nodes(each, run.strategy.phase) for each in sorted(set(columns[1]))
    }
    found, left = [], []
    for message, number, tier, name in zip(*columns, tiers, names, strict=True):
        nodes = rosters[number]
        place = bisect_left(nodes, name, key=lambda node: node.name)
        if place < len(nodes) and nodes[place].name == name:
            found.append(_Sent(message, nodes[place], number, tier))
        else:
            left.append(name)
    return found, left
