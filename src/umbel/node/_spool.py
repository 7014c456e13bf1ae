"""What a node has in hand, on its disk: instructions, what its runs keep there, and replies not yet acknowledged.

    tasks/<run>-<message>.json   an instruction, from its arrival until the server has the reply
    runs/<run>.json              a run on this node: its state, and finished replies, each with the state it leads to
    damaged/<run>.json           such a file that was damaged; while it is there the run cannot go on here
    blobs/ incoming/ work/       see ``_shelf``

All small files carry their digest. A message is finished when the rename of its run's file says so, which makes the
reply and the state visible at one instant; the blobs of the state are on the disk before, and those of the reply are
found to be damaged if they are not. So a crash leaves a message finished or not begun. A state counts once the server
has counted the reply that it came with, and is given up with a reply that did not count.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self, TypeAlias

import msgspec

from umbel.envelope import Content, blobs_of
from umbel.errors import SpoolDamaged, SpoolError, SpoolInUse
from umbel.http.wire import Answer, Assignment, Task
from umbel.node import _sealed
from umbel.node._jobs import Outcome
from umbel.node._run import Before, Finished, Run
from umbel.node._shelf import Shelf

_Key: TypeAlias = tuple[int, int]  # run and message

_FOLDERS: Final = ("tasks", "runs", "damaged")
# So many runs have the blobs of their newest instruction kept: an evaluation or the next round may ask for them again.
_WARM: Final = 2
# For so many acknowledged messages the state before them is kept: the train and the evaluate message of a round.
_UNDO: Final = 2
# So many acknowledged messages are remembered by a run, in case their instructions outlive a crash.
_DONE: Final = 16


class Spool:
    """The folder in which a node keeps its work; one process uses it at a time, one thread changes it.

    Raises ``SpoolInUse`` if another process does, ``SpoolError`` if the folder cannot be made. ``damaged`` names what
    was found to be damaged and given up: it is fetched or made again.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []
        try:
            for path in (self.folder, *(self.folder / name for name in _FOLDERS)):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise SpoolError(
                f"expected a folder for what the node has in hand, got: {error}", at=str(folder)
            ) from error
        try:
            _hold(self._lock, self.folder)
            self._shelf = Shelf(self.folder)
            self._runs = self._read_runs()
            self._tasks = self._read_tasks()
            self._forget_runs()
            self._collect()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What there is.

    @property
    def holding(self) -> list[Assignment]:
        """Every message that the server has not acknowledged the reply to."""
        held = {key: task.fence for key, task in self._tasks.items()}
        held |= {_key(each.answer): each.answer.fence for each in self.finished}
        return [Assignment(run=run, message=message, fence=fence) for (run, message), fence in held.items()]

    @property
    def finished(self) -> list[Finished]:
        """Replies that the server has not acknowledged, the oldest of each run first."""
        return [each for run in self._runs.values() for each in run.finished]

    @property
    def waiting(self) -> list[Task]:
        """Messages that are not finished, the oldest first."""
        finished = {_key(each.answer) for each in self.finished}
        return [task for key, task in self._tasks.items() if key not in finished]

    def next_task(self) -> Task | None:
        """Return the message to handle next: the oldest of a run of which every reply is acknowledged."""
        return next((task for task in self.waiting if not self._run(task.run).finished), None)

    def state(self, run: int) -> Content | None:
        """Return the state that the next handler of a run gets, None for an empty one.

        Raises ``SpoolDamaged`` if it is not what was written: the run cannot go on here without it.
        """
        state, file = self._run(run).newest, self._file(run)
        marker = self.folder / "damaged" / file.name
        if marker.exists():
            raise SpoolDamaged(_LOST.format(marker), at=str(marker))
        for digest, size in (blobs_of(state) if state is not None else {}).items():
            if not self._shelf.has(digest, size):
                raise SpoolDamaged(_LOST.format(file), at=str(self._shelf.path(digest)))
        return state

    @property
    def blobs(self) -> Path:
        """The folder of the blobs, each named by the hex digits of its digest."""
        return self._shelf.blobs

    # Blobs.

    def missing(self, content: Content) -> dict[str, int]:
        """Return the blobs of ``content``, with their sizes, that must be fetched; damaged ones are among them."""
        return {digest: size for digest, size in blobs_of(content).items() if not self._shelf.has(digest, size)}

    def is_read(self, run: int, content: Content) -> bool:
        """Say whether ``missing(content)`` and ``state(run)`` answer at once, with no blob to be read first."""
        newest = self._run(run).newest
        return self._shelf.trusts([*blobs_of(content), *(blobs_of(newest) if newest is not None else ())])

    def incoming(self, digest: str) -> Path:
        """Return the file to which the bytes of a blob are appended while it is fetched."""
        return self._shelf.incoming(digest)

    def arrived(self, digest: str, size: int, *, checked: bool = False) -> None:
        """Take in a blob that was fetched; raises ``DigestMismatch``, and deletes it, if it is another.

        It is not read again if whoever fetched it has ``checked`` its digest.
        """
        self._shelf.arrived(digest, size, checked=checked)

    def desk(self) -> Path:
        """Return a new folder, into which the blobs of a reply and a state are written."""
        return self._shelf.desk()

    # What happens to a message.

    def accept(self, task: Task) -> None:
        """Take a message in hand, or its next fencing number. One that is finished is not begun again."""
        key = _key(task)
        run = self._run(task.run)
        held = self._tasks.get(key)
        if held is not None and held.fence >= task.fence:
            return
        if any(_key(each.answer) == key for each in run.finished):
            self._store(run.renumbered(task))
        elif task.message in run.done:
            self._store(run.undone(task.message))
        _sealed.write(self._task_file(key), task, durable=False)
        self._tasks[key] = task

    def begin(self, task: Task) -> None:
        """Let go of what was kept warm for the last instruction of a run, now that all of this one is there.

        What is let go of before a reply is written is memory and disk that the reply can have.
        """
        run = self._run(task.run)
        # The disk hears of it with the reply. A crash before that leaves names of blobs that are gone: no harm.
        self._runs[task.run] = msgspec.structs.replace(run, warm=tuple(blobs_of(task.content)))
        self._collect()

    def finish(self, task: Task, outcome: Outcome, desk: Path | None = None) -> Answer | None:
        """Make the reply and the new state visible at one instant; return the reply, or None if it is not wanted.

        ``desk`` has the blobs of the outcome. An error leaves the state as it was.
        """
        held = self._tasks.get(_key(task))
        if held is None:
            self.discard(desk)
            return None
        run = self._run(task.run)
        failed = outcome.error_code is not None
        if desk is not None and not failed:
            self._shelf.adopt(desk)
        state = run.newest if failed else outcome.state
        answer = _answer(held, outcome)
        done = msgspec.structs.replace(run, finished=(*run.finished, Finished(answer, state)))
        self._store(done)
        self.discard(desk)
        return answer

    def discard(self, desk: Path | None) -> None:
        """Delete a desk."""
        if desk is not None:
            self._shelf.clear(desk)

    def is_whole(self, finished: Finished) -> bool:
        """Say whether the blobs of a reply and of the state it leads to are what was written."""
        contents = (finished.answer.content, finished.state)
        return not any(self.missing(content) for content in contents if content is not None)

    def retract(self, finished: Finished) -> None:
        """Give up a reply that was damaged since; its message, if it is still here, is handled again."""
        self.damaged.append(f"the reply to message {finished.answer.message} of run {finished.answer.run}")
        self._drop(finished.answer, counted=False)
        self._collect()

    def replace(self, finished: Finished, outcome: Outcome) -> None:
        """Put an error in the place of a reply that the server does not take; the state is the one before it."""
        run = self._run(finished.answer.run)
        task = self._tasks.get(_key(finished.answer))
        if task is None:
            self.acknowledge(finished.answer, counted=False)
            return
        instead = Finished(_answer(task, outcome), run.state)
        kept = tuple(instead if _key(each.answer) == _key(finished.answer) else each for each in run.finished)
        self._store(msgspec.structs.replace(run, finished=kept))
        self._collect()

    def acknowledge(self, answer: Answer, *, counted: bool) -> None:
        """Let go of a message that the server has the reply to; its state counts if the reply did."""
        self._drop(answer, counted=counted, done=True)
        self._forget(_key(answer))
        self._collect()

    def cancel(self, assignments: Iterable[Assignment]) -> list[_Key]:
        """Forget messages that are no longer wanted and not finished; return which they were.

        A finished one stays until the server has said whether its reply counted: it may have it already.
        """
        finished = {_key(each.answer) for each in self.finished}
        keys = [_key(each) for each in assignments]
        gone = [key for key in keys if key in self._tasks and key not in finished]
        for key in gone:
            self._forget(key)
        self._collect()
        return gone

    # Files.

    def _run(self, number: int) -> Run:
        return self._runs.get(number) or Run(number)

    def _store(self, run: Run) -> None:
        _sealed.write(self._file(run.run), run, durable=True)
        self._runs.pop(run.run, None)  # the newest is the last
        self._runs[run.run] = run

    def _drop(self, answer: Answer, *, counted: bool, done: bool = False) -> None:
        run = self._run(answer.run)
        mine = next((each for each in run.finished if each.answer.message == answer.message), None)
        if mine is None:
            return
        rest = tuple(each for each in run.finished if each is not mine)
        behind = (*run.done, answer.message)[-_DONE:] if done else run.done
        state = mine.state if counted else run.state
        undo = (*run.undo, Before(answer.message, run.state))[-_UNDO:] if counted else run.undo
        self._store(msgspec.structs.replace(run, state=state, finished=rest, done=behind, undo=undo))

    def _forget(self, key: _Key) -> None:
        self._tasks.pop(key, None)
        self._task_file(key).unlink(missing_ok=True)

    def _file(self, run: int) -> Path:
        return self.folder / "runs" / f"{run}.json"

    def _task_file(self, key: _Key) -> Path:
        return self.folder / "tasks" / f"{key[0]}-{key[1]}.json"

    def _read_runs(self) -> dict[int, Run]:
        runs = {}
        for path in _by_age(self.folder / "runs"):
            try:
                run = _sealed.read(path, Run)
            except SpoolDamaged as error:
                self.damaged.append(str(error))
                path.replace(self.folder / "damaged" / path.name)
                continue
            runs[run.run] = run
        return runs

    def _read_tasks(self) -> dict[_Key, Task]:
        tasks = {}
        for path in _by_age(self.folder / "tasks"):
            try:
                task = _sealed.read(path, Task)
            except SpoolDamaged as error:
                self.damaged.append(str(error))  # the server sees that it is not held, and hands it out again
                path.unlink()
                continue
            if task.message in self._run(task.run).done:
                path.unlink()
                continue
            tasks[_key(task)] = task
        return tasks

    def _forget_runs(self) -> None:
        """Forget older runs that keep nothing here; their files would go on growing in number."""
        busy = {run for run, _ in self._tasks}
        for number, run in list(self._runs.items())[:-_WARM]:
            if run.state is None and not run.finished and number not in busy:
                self._file(number).unlink(missing_ok=True)
                del self._runs[number]

    def _collect(self) -> None:
        """Delete the blobs that nothing here needs."""
        needed = {digest for task in self._tasks.values() for digest in blobs_of(task.content)}
        needed.update(digest for run in self._runs.values() for digest in run.digests())
        needed.update(digest for run in list(self._runs.values())[-_WARM:] for digest in run.warm)
        self._shelf.keep(needed)


_LOST: Final = (
    "expected the state of the run as this node left it, got a file that was damaged since: restore the node's folder "
    "from a copy, or delete {} and let the node begin again with an empty state, which changes the result of the run"
)


def _hold(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = (
            "expected a folder that no other node uses, got one in use by another process: stop that one, or give this "
            "one a folder and a name of its own"
        )
        raise SpoolInUse(message, at=str(folder)) from None


def _by_age(folder: Path) -> list[Path]:
    _sealed.clean(folder)
    return sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _key(of: Task | Answer | Assignment) -> _Key:
    return of.run, of.message


def _answer(task: Task, outcome: Outcome) -> Answer:
    return Answer(
        run=task.run,
        message=task.message,
        fence=task.fence,
        content=outcome.content if outcome.error_code is None else None,
        error_code=outcome.error_code,
        error_reason=outcome.error_reason,
        seconds=outcome.seconds,
    )
