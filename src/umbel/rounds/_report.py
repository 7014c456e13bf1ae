"""From the events of a round to its report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from time import perf_counter
from typing import Any, Final

from umbel.errors import RoundFailed
from umbel.history import Arrival, RoundReport
from umbel.message import MessageType
from umbel.records import RecordSet
from umbel.rounds._events import NodeLost, UpdateRefused
from umbel.rounds._gather import Outcome, Question

_TRAIN: Final = str(MessageType.TRAIN)
_NAMED: Final = 10


class Tally:
    """What became of everyone who was asked in a round, and how long each phase took."""

    def __init__(self, phase: str = _TRAIN) -> None:
        self.accepted = 0
        self._phase = phase
        self._refused: list[tuple[str, str]] = []
        self._lost: list[tuple[str, str]] = []
        self._bytes = {"sent": 0, "received": 0}
        self._seconds: dict[str, float] = {}
        self._not_finite: dict[str, int] = {}
        self._mark = perf_counter()

    def leave_out(self, counts: Mapping[str, int]) -> None:
        """Note how many nodes were left out of the mean of a metric, which was not finite."""
        self._not_finite |= counts

    def sent(self, content: RecordSet, count: int) -> None:
        """Count content that goes out so many times."""
        self._bytes["sent"] += content.count_bytes() * count

    def watch(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Count every outcome and pass it on."""
        for outcome in outcomes:
            self._count(outcome)
            yield outcome

    def _count(self, outcome: Outcome) -> None:
        if isinstance(outcome, NodeLost):
            self._lost.append((outcome.node, self._in_phase(outcome)))
            return
        self._bytes["received"] += outcome.received
        if isinstance(outcome, UpdateRefused):
            self._refused.append((outcome.node, self._in_phase(outcome)))
        elif outcome.phase == self._phase:
            self.accepted += 1

    def _in_phase(self, outcome: UpdateRefused | NodeLost) -> str:
        return outcome.reason if outcome.phase == self._phase else f"in {outcome.phase}: {outcome.reason}"

    def take_back(self, question: Question, refused: Sequence[tuple[str, str]]) -> Iterator[Outcome]:
        """Count updates of ``question`` that were accepted, and are refused after all."""
        self.accepted -= len(refused)
        late = (UpdateRefused(question.round, question.phase, node, reason, 0) for node, reason in refused)
        return self.watch(late)

    def lap(self, phase: str) -> None:
        """Book the time since the last lap on ``phase``."""
        now = perf_counter()
        self._seconds[phase] = now - self._mark
        self._mark = now

    def require(self, wanted: int, question: Question, accepted: int) -> None:
        """Raise ``RoundFailed``, with every reason there is, unless enough nodes were accepted."""
        if accepted >= wanted:
            return
        nodes: dict[str, list[str]] = {}
        for node, reason in sorted(self._refused + self._lost):
            nodes.setdefault(reason, []).append(node)
        reasons = "".join(f"\n  {_listed(names)}: {reason}" for reason, names in nodes.items())
        raise RoundFailed(
            f"expected at least {wanted} usable {'reply' if wanted == 1 else 'replies'} to {question.phase!r}, "
            f"got {accepted} from a cohort of {question.size}; the model is as it was before the round{reasons}",
            at=f"round {question.round}",
        )

    def report(
        self, question: Question, metrics: Mapping[str, Any], digest: str, arrivals: Sequence[Arrival] = ()
    ) -> RoundReport:
        """Return the report of the round that began with ``question``."""
        return RoundReport(
            round=question.round,
            cohort=question.size,
            accepted=self.accepted,
            refused=tuple(sorted(self._refused)),
            lost=tuple(sorted(self._lost)),
            metrics={name: _finite(value) for name, value in metrics.items()},
            bytes=dict(self._bytes),
            seconds=dict(self._seconds),
            digest=digest,
            arrivals=tuple(arrivals),
            not_finite=dict(self._not_finite),
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _finite(value: Any) -> Any:
    """Put None in place of what is not finite: JSON has no other name for it."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if isfinite(value) else None
