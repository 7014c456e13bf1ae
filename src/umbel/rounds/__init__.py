"""The training loop: state in, events out."""

from umbel.rounds._events import (
    EvaluationStarted,
    Event,
    NodeLost,
    RoundCompleted,
    RoundStarted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
    UpdateAccepted,
    UpdateRefused,
)
from umbel.rounds._state import begin, differences
from umbel.rounds._train import train

__all__ = [
    "EvaluationStarted",
    "Event",
    "NodeLost",
    "RoundCompleted",
    "RoundStarted",
    "RunCompleted",
    "RunStarted",
    "StatisticsCollected",
    "UpdateAccepted",
    "UpdateRefused",
    "begin",
    "differences",
    "train",
]
