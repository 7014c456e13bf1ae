"""Work side by side: functions that touch different memory, each in a thread of its own.

NumPy lets other threads run while it goes through a block, so threads are as good as processes for large arrays.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")
# The memory of one machine keeps no more than a few cores busy with sums.
_MOST = 4


@cache
def cores() -> int:
    """Return how many threads are of use here: as many cores as this process may run on, up to four."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(_MOST, len(allowed))


def side_by_side(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run all of ``tasks``, the first in this thread, and return their results in order once all have ended.

    Raises what the first of them in order raises, if one does. Where no thread can be had, this one does its work too.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    results: dict[int, _T] = {}
    errors: dict[int, Exception] = {}
    runs = [partial(_run, task, place, results, errors) for place, task in enumerate(tasks)]
    threads: list[Thread] = []
    try:
        with suppress(RuntimeError):  # no memory for another stack
            for run in runs[1:]:
                thread = Thread(target=run)
                thread.start()
                threads.append(thread)
        for run in (*runs[:1], *runs[1 + len(threads) :]):
            run()
    finally:
        for thread in threads:
            thread.join()
    try:
        if errors:
            raise errors[min(errors)]
        return [results[place] for place in range(len(tasks))]
    finally:
        errors.clear()  # an error knows the frames that it passed, and these know the errors


def _run(task: Callable[[], _T], place: int, results: dict[int, _T], errors: dict[int, Exception]) -> None:
    try:
        results[place] = task()
    except Exception as error:  # noqa: BLE001 - it is raised where all results are taken
        errors[place] = error
