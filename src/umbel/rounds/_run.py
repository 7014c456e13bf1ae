"""A run: what a round asks of whom."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from umbel.context import derive_seed
from umbel.errors import StrategyError
from umbel.grid import Grid
from umbel.message import MessageType
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds._gather import Limits, Question
from umbel.rounds._memory import Memory
from umbel.rounds._state import MODEL, instruction
from umbel.strategy import Selector, Strategy
from umbel.transforms import announced

# Message ids: two phases a round, up to 2**32 nodes each, from 1 on.
_PHASE: Final = 2**32


class Run(NamedTuple):
    """What stays the same from round to round, and what is remembered from one to the next."""

    grid: Grid
    strategy: Strategy
    evaluate: Callable[[int, ParametersRecord], Mapping[str, Any]] | None
    run_id: int
    seed: int
    memory: Memory

    def question(self, number: int, phase: str, selector: Selector, content: RecordSet) -> Question:
        """Return what a cohort, chosen by run seed, round, phase and what is remembered, is asked in a phase."""
        nodes = self.grid.nodes(number, phase)
        seed = derive_seed(self.seed, number, "", f"select {phase}")
        if selector.consult is None:
            positions = selector.choose(len(nodes), seed)
        else:
            positions = selector.consult(self.memory.occasion(nodes, seed, number))
        if not isinstance(positions, range):
            positions = sorted(set(positions))
        if positions and not 0 <= positions[0] <= positions[-1] < len(nodes):
            reach = f"from {positions[0]} to {positions[-1]}"
            message = f"expected positions among {len(nodes)} nodes from {selector.name}, got some {reach}"
            raise StrategyError(message, at="select" if phase == self.strategy.phase else phase)
        first_id = (2 * number + (phase == MessageType.EVALUATE)) * _PHASE + 1
        return Question(self.run_id, number, str(phase), nodes, positions, content, first_id)

    def instruct(self, state: RecordSet, number: int, companions: Sequence[str] = ()) -> RecordSet:
        """Return what a cohort of a round is sent."""
        content: object = self.strategy.instruct(instruction(state, number, companions), number)
        if not isinstance(content, RecordSet):
            message = f"expected a RecordSet, the content to send, got {type(content).__name__}: return it"
            raise StrategyError(message, at="instruct")
        return content

    def instruct_training(self, state: RecordSet, number: int, companions: Sequence[str] = ()) -> RecordSet:
        """Return what a cohort that trains is sent: the same, and which transforms its replies go through."""
        content = self.instruct(state, number, companions)
        if not self.strategy.transforms:
            return content
        if content.parameters_records.get(MODEL) != state.parameters_records[MODEL]:
            raise StrategyError(
                "transforms work from the model that nodes are sent, and this function sends another one than the "
                "round's: leave it as it is",
                at="instruct",
            )
        return announced(content, self.strategy.transforms)

    def limits(self, question: Question) -> Limits:
        """Return what the strategy's policy says of a phase: for how long it goes on, and until how many answered."""
        policy, memory = self.strategy.policy, self.memory
        enough = None if policy.enough is None else max(policy.enough(question.size), self.strategy.min_updates)
        return Limits(memory.time_to_live(policy.deadline), enough, memory.arrived if memory.is_timed else None)
