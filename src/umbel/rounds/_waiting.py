"""Contributions that wait for one another, to go into the sums in one pass.

A pass over several updates reads each of them and writes the sums once; passes over one update after the other read and
write the sums as often as there are updates, which is twice as much again. Updates that are mapped files can wait: they
take no memory, and nobody changes them; small ones that nobody changes can, too. An update that an engine has in memory
of its own cannot.

Nobody has to look for numbers that are not finite in updates that wait: a mean of all of them that is finite proves
that they are. If the gate has a bound for norms, they are measured in the same pass. Where the mean is not finite, or
one of them is too far from the model, each is looked at, and those to blame are refused.
"""

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from umbel.aggregation import Update
from umbel.records._array import is_mapped, is_settled

# Bytes of an update in memory that may wait.
_SMALL: Final = 2**16
# What waits holds about so many bytes of memory for each update, with its metrics, and for each array; so many may be
# held by all.
_UPDATE: Final = 2**15
_ARRAY: Final = 2**9
_MOST_HELD: Final = 2**26
# Files that may wait whatever the limits of the process are.
_FEW: Final = 64


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


def _half_of_memory() -> int:
    """Return how many bytes of files surely are in the page cache yet; of more, the first may be on the disk alone."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 2**32


def _quarter_of_files() -> int:
    """Return how many files may be mapped: each takes a descriptor as long as it is."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return _FEW
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEW, soft // 4) if soft != resource.RLIM_INFINITY else _MOST_HELD // _UPDATE


_MOST_BYTES: Final = _half_of_memory()


def can_wait(update: Update) -> bool:
    """Say whether an update costs nothing while it waits."""
    arrays = update.record.values()
    return all(map(is_settled, arrays)) and (_size(update) <= _SMALL or all(map(is_mapped, arrays)))


def _size(update: Update) -> int:
    return sum(len(array.data) for array in update.record.values())


class _Taken(NamedTuple):
    """How many updates wait, how many bytes they have, and how many of memory they hold."""

    updates: int = 0
    bytes: int = 0
    held: int = 0

    def by_one_more(self, contribution: Contribution) -> "_Taken":
        """Return the same with one more that waits."""
        updates = contribution.updates
        size = sum(map(_size, updates))
        held = size if size <= _SMALL * len(updates) else 0
        held += sum(_UPDATE + _ARRAY * len(update.record) for update in updates)
        return _Taken(self.updates + len(updates), self.bytes + size, self.held + held)


class Waiting:
    """Contributions in canonical order, as many as may wait."""

    def __init__(self) -> None:
        self._waiting: list[Contribution] = []
        self._taken = _Taken()
        self._most_updates = _quarter_of_files()

    def put(self, contribution: Contribution) -> bool:
        """Let one wait, the first of all in any case; return whether there is room for it."""
        taken = self._taken.by_one_more(contribution)
        fits = taken.updates <= self._most_updates and taken.bytes <= _MOST_BYTES and taken.held <= _MOST_HELD
        if self._waiting and not fits:
            return False
        self._waiting.append(contribution)
        self._taken = taken
        return True

    def take(self) -> Sequence[Contribution]:
        """Return all that wait; none do any more."""
        taken, self._waiting, self._taken = self._waiting, [], _Taken()
        return taken
