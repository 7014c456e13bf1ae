"""A run: what a round asks of whom."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import index
from typing import Any, Final, NamedTuple, SupportsIndex

from umbel.context import derive_seed
from umbel.errors import RoundFailed, StrategyError
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
            chosen = selector.choose(len(nodes), seed)
        else:
            chosen = selector.consult(self.memory.occasion(nodes, seed, number))
        at = "select" if phase == self.strategy.phase else phase
        positions = chosen if isinstance(chosen, range) else _sorted(chosen, selector, at)
        if positions and not 0 <= positions[0] <= positions[-1] < len(nodes):
            reach = f"from {positions[0]} to {positions[-1]}"
            message = f"expected positions among {len(nodes)} nodes from {selector.name}, got some {reach}"
            raise StrategyError(message, at=at)
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

    def require_cohort(self, question: Question, selector: Selector) -> None:
        """Raise ``RoundFailed`` before anybody works if fewer nodes are asked than updates are needed."""
        wanted, size, count = self.strategy.min_updates, question.size, len(question.nodes)
        if size >= wanted:
            return
        rules = [self.strategy.aggregator, *(companion.aggregator for companion in self.strategy.companions)]
        whose = next((rule.name for rule in rules if rule.least == wanted > 1), "min_updates of the strategy")
        hint = "start more nodes" if count < wanted else f"select more of them, such as with min_nodes={wanted}"
        raise RoundFailed(
            f"expected a cohort of at least {wanted}, as {whose} needs, got {size} of {count} nodes from "
            f"{selector.name}: {hint}; nobody was asked",
            at=f"round {question.round}",
        )

    def limits(self, question: Question) -> Limits:
        """Return what the strategy's policy says of a phase: for how long it goes on, and until how many answered."""
        policy, memory = self.strategy.policy, self.memory
        enough = None if policy.enough is None else max(policy.enough(question.size), self.strategy.min_updates)
        return Limits(memory.time_to_live(policy.deadline), enough, memory.arrived if memory.is_timed else None)


def _sorted(chosen: Iterable[SupportsIndex], selector: Selector, at: str) -> list[int]:
    """Return positions in order, each once, those of NumPy as Python's own."""
    try:
        return sorted(set(map(index, chosen)))
    except TypeError as error:
        message = f"expected positions, which are whole numbers, from {selector.name}, got {chosen!r:.80}"
        raise StrategyError(message, at=at) from error
