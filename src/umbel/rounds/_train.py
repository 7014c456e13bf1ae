"""The training loop of McMahan et al. 2017 (arXiv:1602.05629), with every part a value of the strategy."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from umbel.errors import AppError, RecordError, RecordTypeError
from umbel.grid import Grid
from umbel.message import MessageType
from umbel.records import MetricsRecord, ParametersRecord, RecordSet, digest
from umbel.rounds._events import (
    EvaluationStarted,
    Event,
    RoundCompleted,
    RoundStarted,
    RunCompleted,
    RunStarted,
    StatisticsCollected,
)
from umbel.rounds._flight import Flight
from umbel.rounds._gather import Question, gather
from umbel.rounds._memory import Memory
from umbel.rounds._metrics import MetricMeans, check_weights
from umbel.rounds._report import Tally
from umbel.rounds._run import Run
from umbel.rounds._state import MODEL, STATISTICS, instruction, round_and_seed, with_parameters
from umbel.rounds._statistics import Totals, judge_statistics
from umbel.rounds._training import Training
from umbel.strategy import Strategy, everyone

Evaluate: TypeAlias = Callable[[int, ParametersRecord], Mapping[str, Any]]


def train(
    grid: Grid,
    strategy: Strategy,
    state: RecordSet,
    *,
    rounds: int,
    evaluate: Evaluate | None = None,
    run_id: int = 1,
) -> Iterator[Event]:
    """Train from ``state`` until ``rounds`` rounds are complete, yielding what happens.

    ``state`` comes from ``begin`` or from the ``RoundCompleted`` after which the run goes on: both give the same bits.
    ``evaluate(round, model)`` returns metrics of each new model, measured by whoever runs the loop. Events carry
    copies: whatever is done to a state in one, the run goes on from its own.

    Raises ``RoundFailed``, with every reason, when too few updates of a round are accepted. Nodes that fail, answer
    with what cannot be used, or do not answer, are reported by events, and the round equals one without them.
    """
    completed, seed = round_and_seed(state)
    run = Run(grid, strategy, evaluate, run_id, seed, Memory(strategy, state))
    yield RunStarted(run_id, strategy.name, seed, rounds, completed, len(grid.nodes(completed + 1, strategy.phase)))
    if strategy.statistics and STATISTICS not in state.parameters_records:
        state = yield from _collect_statistics(run, state)
    name = None
    flight = None if strategy.policy.overlap is None else Flight(run, strategy.policy.overlap, state)
    for number in range(completed + 1, rounds + 1):
        state, name = yield from _play_round(run, flight, state, number)
    yield RunCompleted(max(rounds, completed), name or digest(state.parameters_records[MODEL]), state.copy())


def _collect_statistics(run: Run, state: RecordSet) -> Generator[Event, None, RecordSet]:
    question = run.question(0, MessageType.QUERY, everyone(), instruction(state, 0))
    run.require_cohort(question, everyone())
    tally, totals = Tally(), Totals()
    tally.sent(question.content, question.size)
    yield from tally.watch(gather(run.grid, question, judge_statistics, totals.add))
    record, count, refused = totals.finish(question)
    yield from tally.watch(refused)
    tally.lap("query")
    tally.require(max(1, run.strategy.min_updates), question, count)
    state = with_parameters(state, {STATISTICS: record}, completed=0)
    report = tally.report(question, {}, digest(state.parameters_records[MODEL]))
    yield StatisticsCollected(replace(report, accepted=count), state.copy())
    return state


def _play_round(
    run: Run, flight: Flight | None, state: RecordSet, number: int
) -> Generator[Event, None, tuple[RecordSet, str]]:
    run.memory.arrivals.clear()
    phase = _train_phase if flight is None else flight.train_phase
    question, tally, training = yield from phase(run, state, number)
    tally.lap(run.strategy.phase)
    yield from run.memory.watch(tally.take_back(question, training.settle()))
    tally.require(max(1, run.strategy.min_updates), question, training.accepted)
    state = with_parameters(state, {**training.finish(), **run.memory.records()}, completed=number)
    if flight is not None:
        state = flight.kept_in(state)
    name = digest(state.parameters_records[MODEL])
    tally.lap("aggregate")
    metrics: dict[str, Any] = training.metrics.result(f"{run.strategy.phase}.")
    tally.leave_out(training.metrics.not_finite(f"{run.strategy.phase}."))
    metrics |= yield from _evaluate_on_nodes(run, state, number, tally)
    metrics |= _evaluate_centrally(run, state, number, tally)
    yield RoundCompleted(tally.report(question, metrics, name, run.memory.arrivals), state.copy())
    return state, name


def _train_phase(run: Run, state: RecordSet, number: int) -> Generator[Event, None, tuple[Question, Tally, Training]]:
    companions = [companion.name for companion in run.strategy.companions]
    content = run.instruct_training(state, number, companions)
    question = run.question(number, run.strategy.phase, run.strategy.select, content)
    run.require_cohort(question, run.strategy.select)
    yield RoundStarted(number, question.size)
    tally, training, memory = Tally(run.strategy.phase), Training(run.strategy, state, len(question.nodes)), run.memory
    tally.sent(content, question.size)
    judge, limits = memory.listening(training.judge), run.limits(question)
    outcomes = gather(run.grid, question, judge, training.add, limits)
    yield from tally.watch(memory.watch(outcomes))
    return question, tally, training


def _evaluate_on_nodes(run: Run, state: RecordSet, number: int, tally: Tally) -> Generator[Event, None, dict[str, Any]]:
    selector = run.strategy.evaluate
    if selector is None:
        return {}
    question = run.question(number, MessageType.EVALUATE, selector, run.instruct(state, number))
    yield EvaluationStarted(number, question.size)
    means = MetricMeans()
    tally.sent(question.content, question.size)
    yield from tally.watch(gather(run.grid, question, _judge_metrics, means.add_all))
    tally.lap("evaluate")
    tally.leave_out(means.not_finite("evaluate."))
    return means.result("evaluate.")


def _judge_metrics(_node: str, content: RecordSet) -> Mapping[str, MetricsRecord]:
    check_weights(content.metrics_records)
    return content.metrics_records


def _evaluate_centrally(run: Run, state: RecordSet, number: int, tally: Tally) -> dict[str, Any]:
    if run.evaluate is None:
        return {}
    returned: object = run.evaluate(number, state.parameters_records[MODEL].copy())
    if not isinstance(returned, Mapping):
        msg = f"expected metrics by name from evaluate, such as {{'accuracy': 0.9}}, got {type(returned).__name__}"
        raise AppError(msg, at=f"round {number}")
    try:
        record = MetricsRecord(dict(returned))
    except (RecordError, RecordTypeError) as error:
        raise AppError(f"a metric from evaluate: {error.message}", at=f"round {number}, {error.at}") from error
    tally.lap("central")
    return {f"central.{name}": value for name, value in record.items()}
