"""Tasks in as many threads as are of use, however many tasks there are."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeVar

from umbel.records._threads import cores, side_by_side

_T = TypeVar("_T")


def in_turns(tasks: Sequence[Callable[[], _T]], threads: int | None = None) -> list[_T]:
    """Run tasks that touch different memory, in at most ``threads``, None for as many as there are cores.

    Each thread runs some that follow one another. Returns their results in order, or raises what the first of them in
    order raises.
    """
    count = max(1, min(cores() if threads is None else threads, len(tasks)))
    ends = [len(tasks) * turn // count for turn in range(count + 1)]
    shares = [tasks[start:end] for start, end in pairwise(ends)]
    return [result for share in side_by_side([partial(_run, share) for share in shares]) for result in share]


def _run(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    return [task() for task in tasks]
