"""Updates on their way into a fold: at once, or several in one pass where they can wait.

A pass over several updates reads each of them and writes the sums once; passes over one update after the other read and
write the sums as often as there are updates, which is twice as much again. Updates that are mapped files can wait: they
take no memory, and nobody changes them; small ones that nobody changes can, too. An update that an engine has in memory
of its own cannot.
"""

from copy import deepcopy
from typing import Any, Final

from umbel.aggregation import Fold, Update
from umbel.records import ParametersRecord
from umbel.records._array import is_mapped, is_settled

_MOST_UPDATES: Final = 16
# They were read a moment ago, by the gate; more than this may be on the disk alone when their turn comes.
_MOST_BYTES: Final = 2**31
_SMALL: Final = 2**16


def _can_wait(update: Update) -> bool:
    arrays = update.record.values()
    return all(map(is_mapped, arrays)) or (_size(update) <= _SMALL and all(map(is_settled, arrays)))


def _size(update: Update) -> int:
    return sum(len(array.data) for array in update.record.values())


class Batches:
    """The updates of one record of a round, in canonical order over all calls."""

    def __init__(self, fold: Fold, template: ParametersRecord) -> None:
        self._fold = fold
        self._sum: Any = fold.start(template)
        self._waiting: list[Update] = []
        self._bytes = 0

    def add(self, updates: list[Update]) -> None:
        """Take some more updates."""
        if not self._fold.streaming:
            # A fold that goes through all updates at the end needs them as they are now, and nodes use memory again.
            updates = [update._replace(record=deepcopy(update.record)) for update in updates]
        elif all(_can_wait(update) for update in updates):
            self._wait(updates)
            return
        self._flush()
        self._sum = self._fold.add(self._sum, updates)

    def finish(self) -> ParametersRecord:
        """Return what the fold makes of all updates."""
        return self._fold.finish(self._sum, self._waiting)

    def _wait(self, updates: list[Update]) -> None:
        size = sum(map(_size, updates))
        if len(self._waiting) + len(updates) > _MOST_UPDATES or self._bytes + size > _MOST_BYTES:
            self._flush()
        self._waiting += updates
        self._bytes += size

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            self._sum = self._fold.add(self._sum, waiting)
