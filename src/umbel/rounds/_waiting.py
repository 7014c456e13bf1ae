"""Contributions that wait for one another, to go into the sums in one pass.

A pass over several updates reads each of them and writes the sums once; passes over one update after the other read and
write the sums as often as there are updates, which is twice as much again. Updates that are mapped files can wait: they
take no memory, and nobody changes them; small ones that nobody changes can, too. An update that an engine has in memory
of its own cannot.

Nobody has to look for numbers that are not finite in updates that wait: a mean of all of them that is finite proves
that they are. If the gate has a bound for norms, they are measured in the same pass. Where the mean is not finite, or
one of them is too far from the model, each is looked at, and those to blame are refused.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from umbel.aggregation import Update
from umbel.records._array import is_mapped, is_settled

_MOST_UPDATES: Final = 64
# They came a moment ago; of more than this, the first may be on the disk alone when their turn comes.
_MOST_BYTES: Final = 2**32
_SMALL: Final = 2**16


class Contribution(NamedTuple):
    """What one node adds to a round: an update of each record, the model first, and what was measured of it.

    ``unproven`` says that nobody has looked yet whether its numbers are finite, and near enough to the model.
    """

    updates: tuple[Update, ...]
    measured: tuple[float, ...] = ()
    unproven: bool = False

    @property
    def node(self) -> str:
        """Whose it is."""
        return self.updates[0].node

    @property
    def size(self) -> int:
        """How many bytes its arrays have."""
        return sum(map(_size, self.updates))


def can_wait(update: Update) -> bool:
    """Say whether an update costs nothing while it waits."""
    arrays = update.record.values()
    return all(map(is_settled, arrays)) and (_size(update) <= _SMALL or all(map(is_mapped, arrays)))


def _size(update: Update) -> int:
    return sum(len(array.data) for array in update.record.values())


class Waiting:
    """Contributions in canonical order, as many as may wait."""

    def __init__(self) -> None:
        self._waiting: list[Contribution] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def has_room(self, contribution: Contribution) -> bool:
        """Say whether one more may wait."""
        return len(self._waiting) < _MOST_UPDATES and self._bytes + contribution.size <= _MOST_BYTES

    def put(self, contribution: Contribution) -> None:
        """Let one wait."""
        self._waiting.append(contribution)
        self._bytes += contribution.size

    def take(self) -> Sequence[Contribution]:
        """Return all that wait; none do any more."""
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken
