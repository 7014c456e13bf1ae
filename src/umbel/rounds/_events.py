"""What happens in a run, as frozen values, in the order in which it happens."""

from dataclasses import dataclass
from typing import TypeAlias

from umbel.history import RoundReport
from umbel.records import RecordSet


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins or goes on: ``completed`` of ``rounds`` rounds are behind it."""

    run_id: int
    strategy: str
    seed: int
    rounds: int
    completed: int
    nodes: int


@dataclass(frozen=True, slots=True)
class StatisticsCollected:
    """The statistics that every instruction will carry are summed: the report, of round 0, and the state with them."""

    report: RoundReport
    state: RecordSet


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """A round begins with a cohort of so many nodes."""

    round: int
    cohort: int


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    """A node's reply of ``received`` bytes passed and counts; ``phase`` is the message type that it answers."""

    round: int
    phase: str
    node: str
    received: int


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """A node's reply came and did not pass; the round goes on as if the node had not been asked.

    It may come after an ``UpdateAccepted`` of the same node and phase, in place of which it then counts: that numbers
    are not finite, or too far from the model, may show only when they are added up.
    """

    round: int
    phase: str
    node: str
    reason: str
    received: int


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node answered with an error, or not at all; the round goes on as if it had not been asked."""

    round: int
    phase: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class EvaluationStarted:
    """The new model goes out to a cohort of so many nodes to be evaluated."""

    round: int
    cohort: int


@dataclass(frozen=True, slots=True)
class RoundCompleted:
    """A round is over: its report, and the state from which the run can go on."""

    report: RoundReport
    state: RecordSet


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """The run is over; ``state`` holds the final model and ``digest`` names it."""

    rounds: int
    digest: str
    state: RecordSet


Event: TypeAlias = (
    RunStarted
    | StatisticsCollected
    | RoundStarted
    | UpdateAccepted
    | UpdateRefused
    | NodeLost
    | EvaluationStarted
    | RoundCompleted
    | RunCompleted
)
