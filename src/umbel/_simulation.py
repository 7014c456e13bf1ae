"""Run a whole federation on this machine: an engine, the loop and a checkpoint, wired."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from types import FunctionType
from typing import Any

from numpy.typing import NDArray

from umbel import checkpoint as checkpoints
from umbel import engines
from umbel.aggregation import Aggregator
from umbel.app import ClientApp
from umbel.checkpoint import Checkpoint
from umbel.engines import Engine, NodeStates, Population
from umbel.engines._heap import keep_freed_memory
from umbel.errors import CheckpointError, UsageError
from umbel.history import History, RoundReport
from umbel.message import MessageType
from umbel.optimizers import Optimizer
from umbel.records import ParametersRecord, RecordSet
from umbel.rounds import Event, RoundCompleted, RunCompleted, StatisticsCollected, begin, differences, train
from umbel.strategy import Strategy

_ConfigValue = bool | int | float | str
_Model = ParametersRecord | Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]


def simulate(  # noqa: PLR0913 - one call wires a whole run; all but the first three have names
    client_app: ClientApp,
    strategy: Strategy,
    initial: _Model,
    *,
    nodes: int | Sequence[str] | Mapping[str, Mapping[str, _ConfigValue]],
    rounds: int,
    seed: int = 0,
    engine: str | Engine = "local",
    workers: int | None = None,
    run_config: Mapping[str, _ConfigValue] | None = None,
    evaluate: Callable[[int, ParametersRecord], Mapping[str, Any]] | None = None,
    on_event: Callable[[Event], object] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> History:
    """Train a model over the nodes of a federation, all of them on this machine.

    Args:
        client_app: what each node does.
        strategy: how a round goes, such as ``umbel.strategy.fedavg()``.
        initial: the model to begin with, a record or NumPy arrays by name or in a sequence.
        nodes: a number of virtual nodes ("node-0" ..., told their ``partition-id`` and ``num-partitions``), the names
            of nodes, or a mapping from names to what each is told as ``context.node_config``. Nodes are made when they
            are asked: a million cost nothing but the states they keep.
        rounds: how many rounds the run has, those behind a resumed one included; with 0 nobody is asked, and the
            history has the initial model alone.
        seed: decides cohorts and every ``context.seed``; the same seed gives the same model, to the bit, unless the
            strategy goes by which replies come first or how long they take: ``umbel.strategy.fedbuff``, ``fedasync``,
            ``fedat``, ``quorum``, ``tiers``, ``oort`` and ``during``. Then ``umbel.engines.replaying`` the history
            gives it.
        engine: what runs the nodes, with the same result: ``"local"`` this process, one node after the other;
            ``"processes"`` several processes, which import ``client_app`` from its module; ``"ray"`` a Ray cluster; or
            a function that makes a grid, such as ``functools.partial(RayGrid, cluster=...)``.
        workers: how many processes run nodes; by default, one for each core of this machine.
        run_config: goes to every node, as ``context.run_config`` and in every instruction.
        evaluate: called as ``evaluate(round, model)`` after every round, returns metrics, which the history calls
            ``central.<name>``.
        on_event: called with each event of ``umbel.rounds``; a completed round is in the checkpoint by then.
        checkpoint: a folder that holds the run as of its last completed round, whenever the process ends.
        resume: go on from ``checkpoint`` if it holds a run, and begin otherwise. The result is that of a run that was
            never interrupted, with the same exception.

    Returns:
        What happened in every round, the metrics as columns, and the final model.

    Raises:
        RoundFailed: when too few updates of a round could be used; it lists every reason.
        CheckpointError: when the checkpoint cannot be read, is of another run, is there without ``resume``, or is in
            use by a run that is going on.
        UsageError: for arguments that cannot be, such as fewer rounds than a resumed run has behind it.

    """
    _check(client_app, strategy, rounds)
    _check_evaluate(client_app, evaluate)
    make_grid = engines.engine(engine, workers)
    population = Population(nodes)
    keep_freed_memory()  # before the model is copied
    begun = begin(strategy, _record(initial), seed=seed, run_config=run_config)
    # Other nodes mean other cohorts and other parts of the data: to go on with them would be another run.
    begun.configs_records["run"]["nodes"] = population.description
    if not client_app.handles(MessageType.EVALUATE):
        strategy = strategy._replace(evaluate=None)
    with nullcontext() if checkpoint is None else checkpoints.hold(checkpoint):
        start = _start(begun, checkpoint, rounds, resume=resume)
        states = NodeStates(start.nodes)
        recorder = _Recorder(start, states, checkpoint)
        grid = make_grid(client_app, population, seed=seed, run_config=run_config, states=states)
        with closing(grid):
            for event in train(grid, strategy, start.state, rounds=rounds, evaluate=evaluate):
                recorder.record(event)
                if on_event is not None:
                    on_event(event)
    return recorder.history()


class _Recorder:
    """Turns the events of a run into its history, and each completed round into a checkpoint."""

    def __init__(self, start: Checkpoint, states: NodeStates, folder: str | Path | None) -> None:
        self._reports: list[RoundReport] = list(start.reports)
        self._states = states
        self._folder = folder
        self._end: RunCompleted | None = None

    def record(self, event: Event) -> None:
        """Keep what the event leaves behind."""
        if isinstance(event, StatisticsCollected | RoundCompleted):
            self._reports.append(event.report)
            self._save(event.state)
        elif isinstance(event, RunCompleted):
            self._end = event

    def _save(self, state: RecordSet) -> None:
        if self._folder is not None:
            changed = self._states.take_changes()
            checkpoints.write(self._folder, state, self._reports, nodes=self._states.kept, changed=changed)

    def history(self) -> History:
        """Return the history of the completed run."""
        if self._end is None:
            raise RuntimeError("the loop ended before the run was complete: it always ends with RunCompleted or raises")
        model = self._end.state.parameters_records["model"]
        statistics = next((report for report in self._reports if report.round == 0), None)
        rounds = tuple(report for report in self._reports if report.round)
        return History(rounds, self._end.digest, model, statistics=statistics)


def _start(begun: RecordSet, folder: str | Path | None, rounds: int, *, resume: bool) -> Checkpoint:
    if resume and folder is None:
        raise UsageError("expected the checkpoint to resume from, got none: pass checkpoint=FOLDER", at="resume")
    if folder is None or not checkpoints.exists(folder):
        return Checkpoint(begun, (), {})
    if not resume:
        raise CheckpointError(
            "expected a folder without a checkpoint, since this run does not resume: pass resume=True to go on with "
            "the run that it holds, or choose another folder",
            at=str(folder),
        )
    found = checkpoints.read(folder, most=rounds)
    differing = differences(found.state, begun)
    if differing:
        raise CheckpointError(
            f"expected the checkpoint of this run, got one of another: {'; '.join(differing)}", at=str(folder)
        )
    return found


def _record(initial: _Model) -> ParametersRecord:
    return initial if isinstance(initial, ParametersRecord) else ParametersRecord.from_numpy(initial)


def _check_evaluate(client_app: ClientApp, evaluate: object) -> None:
    handled = client_app.origin.type_of(evaluate)
    if handled is not None:
        raise UsageError(
            "expected a function (round, model) -> metrics, called on the server, got the node's handler of "
            f"{handled!r} messages: leave it out, nodes evaluate by themselves, or pass another function",
            at="evaluate",
        )


def _check(client_app: object, strategy: object, rounds: int) -> None:
    for value, kind in ((client_app, ClientApp), (strategy, Strategy)):
        if not isinstance(value, kind):
            hint = f": call it, {value.__name__}(...)" if isinstance(value, FunctionType) else ""
            if kind is Strategy and isinstance(value, Aggregator | Optimizer):
                hint = f": use fedavg({type(value).__name__.lower()}=...) of umbel.strategy"
            raise UsageError(
                f"expected a {kind.__name__}, got {type(value).__name__} {value!r:.80}{hint}", at="simulate"
            )
    if type(rounds) is not int or rounds < 0:
        raise UsageError(f"expected a number of rounds, 0 or more, got {rounds!r}", at="rounds")
