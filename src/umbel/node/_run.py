"""What a run has on a node: the state that counts, finished replies that follow from it, and what may be undone."""

from collections.abc import Iterator
from typing import Self

import msgspec

from umbel.envelope import Content, blobs_of
from umbel.http.wire import Answer, Task


class Finished(msgspec.Struct, frozen=True):
    """A reply that the server has not acknowledged, and the state that the run has on this node after it."""

    answer: Answer
    state: Content | None


class Before(msgspec.Struct, frozen=True):
    """The state that a run had here before a message that was acknowledged since."""

    message: int
    state: Content | None


class Run(msgspec.Struct, frozen=True):
    """What a run has on this node: the state that counts, what follows from it, and what was finished before.

    ``warm`` are the blobs of its newest instruction. ``undo`` is for a server that has lost, with its power, a reply
    that it had acknowledged: it asks again, and what was made from the same state are the same bytes.
    """

    run: int
    state: Content | None = None
    finished: tuple[Finished, ...] = ()
    done: tuple[int, ...] = ()
    warm: tuple[str, ...] = ()
    undo: tuple[Before, ...] = ()

    @property
    def newest(self) -> Content | None:
        """The state that the next handler gets."""
        return self.finished[-1].state if self.finished else self.state

    def digests(self) -> Iterator[str]:
        """Yield all blobs that the run cannot do without."""
        answers = (each.answer.content for each in self.finished)
        states = (*(each.state for each in self.finished), *(each.state for each in self.undo))
        for content in (self.state, *answers, *states):
            yield from blobs_of(content) if content is not None else ()

    def undone(self, message: int) -> Self:
        """Return the run as it was before a message that was acknowledged, if that is known; otherwise as it is."""
        done = tuple(each for each in self.done if each != message)
        numbers = [each.message for each in self.undo]
        if message not in numbers:
            return msgspec.structs.replace(self, done=done)
        place = numbers.index(message)
        return msgspec.structs.replace(self, state=self.undo[place].state, undo=self.undo[:place], done=done)

    def renumbered(self, task: Task) -> Self:
        """Return the run with the fencing number of an instruction on the reply that it has to it."""
        return msgspec.structs.replace(self, finished=tuple(_renumbered(each, task) for each in self.finished))


def _renumbered(finished: Finished, task: Task) -> Finished:
    if finished.answer.message != task.message:
        return finished
    return Finished(msgspec.structs.replace(finished.answer, fence=task.fence), finished.state)
