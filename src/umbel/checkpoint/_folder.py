"""The folder of a run.

    state.safetensors                    the run's state; renaming it into place completes a round
    rounds.jsonl                         a line of JSON for each round; lines beyond the state's round do not count. The
                                         first is of round 0 if statistics were collected
    nodes-<round>-<all|new>-<part>.safetensors   what nodes keep, see `_nodes`

Everything a state refers to is on disk before the state is. So a crash at any instant leaves the round before it or
the round itself, and a folder is never in between.
"""

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umbel.checkpoint import _nodes, _reports
from umbel.errors import CheckpointError, RecordError, UsageError
from umbel.history import RoundReport
from umbel.records import RecordSet, load, save
from umbel.records._files import sync_folder

_STATE = "state.safetensors"
_ROUNDS = "rounds.jsonl"


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds: the run's state, the reports of its rounds, and what nodes keep, by node name.

    An engine with a clock of its own keeps that as a node without a name would. The first report is of round 0 if
    statistics were collected before training.
    """

    state: RecordSet
    reports: tuple[RoundReport, ...]
    nodes: Mapping[str, RecordSet]


def exists(folder: str | Path) -> bool:
    """Say whether ``folder`` holds a checkpoint."""
    return (Path(folder) / _STATE).is_file()


@contextlib.contextmanager
def hold(folder: str | Path) -> Iterator[None]:
    """Keep other runs, of this process and of others, from using ``folder``, which is made if it is not there.

    The end of the block lets go of it, and so does the end of the process, however it ends. Raises ``CheckpointError``
    when another run holds the folder, or it cannot be made.
    """
    try:
        _make(Path(folder))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(f"expected a folder to write checkpoints to, got: {error}", at=str(folder)) from error
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: str | Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CheckpointError(
            "expected a folder that no other run uses, got one in use, by another process or another call in this one: "
            "wait for that run or stop it, or choose another folder",
            at=str(folder),
        ) from None


def write(
    folder: str | Path,
    state: RecordSet,
    reports: Sequence[RoundReport] = (),
    *,
    nodes: Mapping[str, RecordSet] | None = None,
    changed: Collection[str] | None = None,
) -> None:
    """Make ``folder`` hold ``state``, durably, under new names that are renamed when they are complete.

    ``reports`` are all reports so far; only those not yet in the folder are written. ``nodes`` are all states that
    nodes keep, ``changed`` the names of those that differ from the last call (None: all of them). ``state`` must have
    ``configs_records["run"]["round"]``. Raises ``CheckpointError`` when the folder cannot be written, or holds that
    round or a later one: files of nodes are named by rounds, and could not be replaced at one instant.
    """
    folder = Path(folder)
    kept = {} if nodes is None else nodes
    number = round_of(state)
    _check_follows(folder, number)
    try:
        _prepare(folder)
        _reports.append(folder / _ROUNDS, reports)
        _nodes.write(folder, number, kept, kept.keys() if changed is None else changed)
        save(state, folder / _STATE)
        _nodes.forget_older(folder, number)
    except OSError as error:
        raise CheckpointError(f"expected a folder to write checkpoints to, got: {error}", at=str(folder)) from error


def _check_follows(folder: Path, number: int) -> None:
    if not exists(folder):
        return
    held = round_of(_load(folder))
    if number <= held:
        raise CheckpointError(
            f"expected a round after {held}, which the folder holds, got round {number}: go on from what read(...) "
            "returns, or write to another folder",
            at=str(folder),
        )


def _load(folder: Path) -> RecordSet:
    try:
        return load(folder / _STATE)
    except (OSError, RecordError) as error:
        raise CheckpointError(f"expected a checkpoint, got: {error}", at=str(folder)) from error


def _make(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def _prepare(folder: Path) -> None:
    """Make the folder, durably, and delete what a killed process left in it under temporary names."""
    _make(folder)
    for pattern in (f".{_STATE}.*.tmp", ".nodes-*.tmp"):
        for path in folder.glob(pattern):
            path.unlink()


def read(folder: str | Path, *, most: int | None = None) -> Checkpoint:
    """Return what ``folder`` holds, to go on up to round ``most`` or just to look.

    Raises ``CheckpointError`` when that is no checkpoint or cannot be read, ``UsageError`` when it is beyond ``most``.
    """
    folder = Path(folder)
    state = _load(folder)
    number = round_of(state)
    if most is not None and number > most:
        raise UsageError(
            f"expected at least the {number} rounds that the run has behind it, got {most}: ask for more rounds, or "
            "begin another run",
            at=str(folder),
        )
    try:
        return Checkpoint(state, _reports.read(folder / _ROUNDS, number), _nodes.read(folder, number))
    except (OSError, RecordError) as error:
        raise CheckpointError(f"expected a checkpoint, got: {error}", at=str(folder)) from error


def round_of(state: RecordSet) -> int:
    """Return how many rounds the state has behind it."""
    run = state.configs_records.get("run")
    number = None if run is None else run.get("round")
    if type(number) is not int or number < 0:
        raise CheckpointError(
            f"expected the number of completed rounds, got {number!r}", at="configs_records.run.round"
        )
    return number
