"""Rounds that overlap: nodes train while the model moves on, and a new one is made of every few updates.

A round here is the time from one model to the next. Whoever answers makes room for another node, which is sent the
model of its time; so in flight there are messages of several rounds. Each was sent one version of the model, which is
kept until nobody trains from it any more. Who is in flight, and from which version, is in the run's state: a run that
goes on asks the same again, in the same order.

Given the order in which replies come, nothing here is left to chance.
"""

from bisect import bisect_left
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from umbel.context import derive_seed
from umbel.errors import StrategyError
from umbel.grid import Node
from umbel.message import DEFAULT_TTL, Message
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._events import Event, NodeLost, RoundStarted
from umbel.rounds._gather import Outcome, Question, arrival, judged
from umbel.rounds._rebase import rebased
from umbel.rounds._report import Tally
from umbel.rounds._run import Run
from umbel.rounds._state import MODEL
from umbel.rounds._training import Training
from umbel.rounds._waiting import Contribution
from umbel.strategy import Overlap

_FLIGHT: Final = "flight"
_VERSION: Final = "flight."
_NO_REPLY: Final = "no reply came"
_REJECTIONS: Final = 32


class _Sent(NamedTuple):
    """A message that is not answered yet: who has it, and from which round."""

    message_id: int
    node: Node
    round: int


class Flight:
    """The messages in flight, and the versions of the model that they carry."""

    def __init__(self, run: Run, plan: Overlap, state: RecordSet) -> None:
        if not getattr(run.grid, "overlapping", False):
            raise StrategyError(
                f"the policy {run.strategy.policy.name} asks nodes while others train, which this grid cannot: it "
                "takes one cohort at a time; use a policy that waits, such as quorum(...)",
                at="policy",
            )
        self._plan = plan
        self._versions: dict[int, ParametersRecord] = {}
        self._open: dict[int, _Sent] = {}
        self._flying: set[str] = set()
        self._waiting = _restored(run, state)
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
        draw = _Draw(run.seed, question)
        outdated = list(self._outdated(run, number))
        self._top_up(run, tally, draw, ())
        asked = len(self._open)
        yield RoundStarted(number, asked)
        yield from tally.watch(run.memory.watch(outdated))
        updates: dict[str, Contribution] = {}
        for outcome in self._outcomes(run, question, training, updates):
            yield from tally.watch(run.memory.watch([outcome]))
            if len(updates) == self._plan.buffer:
                break
            asked += self._top_up(run, tally, draw, updates)
        else:
            yield from tally.watch(run.memory.watch(self._never_came(run, number)))
        training.add([updates[node] for node in sorted(updates)])
        return question._replace(positions=range(asked)), tally, training

    def _require_filled(self, run: Run, question: Question) -> None:
        """Refuse a run that begins with fewer nodes than its buffer takes updates; later ones may come and go."""
        if question.round == 1 and not self._waiting and question.size < self._plan.buffer:
            raise StrategyError(
                f"the buffer would never be full: {run.strategy.policy.name} makes a model of {self._plan.buffer} "
                f"updates, and {run.strategy.select.name} asks {question.size} of {len(question.nodes)} nodes: start "
                "more nodes, ask more of them, or take a smaller buffer",
                at="policy",
            )

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
        return message

    def _top_up(self, run: Run, tally: Tally, draw: "_Draw", updates: Collection[str]) -> int:
        """Ask further nodes until as many train as should; nobody twice in a round, nor whose update is waiting."""
        asked: list[Message] = []
        while len(self._open) < self._plan.concurrency:
            node = draw.next(self._flying, updates)
            if node is None:
                break
            slot, question = draw.taken - 1, draw.question
            sent = _Sent(question.first_id + slot, node, question.round)
            asked.append(self._asked(sent, question.message(slot, node)))
        if asked:
            run.grid.send(asked)
        tally.sent(draw.question.content, len(asked))
        return len(asked)

    def _outcomes(
        self, run: Run, question: Question, training: Training, updates: dict[str, Contribution]
    ) -> Iterator[Outcome]:
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
                updates[sent.node.name] = item
            yield outcome

    def _landed(self, sent: _Sent) -> None:
        del self._open[sent.message_id]
        self._flying.discard(sent.node.name)

    def _judge(self, training: Training, number: int, version: int, node: str, content: RecordSet) -> Contribution:
        plan = self._plan
        sent = self._versions[version]
        share = plan.discount(number - version)
        return training.judge_late(node, content, sent, partial(_onto, sent, plan.moved, share))

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
        following.parameters_records.update(kept)
        following.parameters_records[_FLIGHT] = _packed([self._open[number] for number in sorted(self._open)])
        return following


class _Draw:
    """Nodes of a question's selection, one after the other, in an order that the run's seed and the round decide."""

    def __init__(self, seed: int, question: Question) -> None:
        self.question = question
        self.taken = 0
        self._seed = seed
        self._tries = 0
        self._asked: set[int] = set()

    def next(self, *busy: Collection[str]) -> Node | None:
        """Return a node that was not drawn before and is not busy, or None if there is none."""
        positions = self.question.positions
        for _ in range(_REJECTIONS):
            if len(positions) <= len(self._asked):
                return None
            node = self._free(positions[self._index(len(positions))], busy)
            if node is not None:
                return node
        free = [place for place in positions if place not in self._asked and not self._is_busy(place, busy)]
        return self._free(free[self._index(len(free))], busy) if free else None

    def _index(self, count: int) -> int:
        self._tries += 1
        return derive_seed(self._seed, self.question.round, "", f"draw {self._tries}") * count >> 63

    def _free(self, place: int, busy: Sequence[Collection[str]]) -> Node | None:
        if place in self._asked or self._is_busy(place, busy):
            return None
        self._asked.add(place)
        self.taken += 1
        return self.question.nodes[place]

    def _is_busy(self, place: int, busy: Sequence[Collection[str]]) -> bool:
        name = self.question.nodes[place].name
        return any(name in names for names in busy)


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
            "names": np.frombuffer(names, np.uint8),
        }
    )


def _restored(run: Run, state: RecordSet) -> list[_Sent]:
    record = state.parameters_records.get(_FLIGHT)
    if record is None or not record["message"].shape[0]:
        return []
    names = bytes(record["names"].data).decode().split("\n")
    columns = [record[name].numpy().tolist() for name in ("message", "round")]
    rosters: Mapping[int, Sequence[Node]] = {
        each: run.grid.nodes(each, run.strategy.phase) for each in sorted(set(columns[1]))
    }
    found = []
    for message, number, name in zip(*columns, names, strict=True):
        nodes = rosters[number]
        place = bisect_left(nodes, name, key=lambda node: node.name)
        if place < len(nodes) and nodes[place].name == name:  # whoever has left is as good as lost
            found.append(_Sent(message, nodes[place], number))
    return found
