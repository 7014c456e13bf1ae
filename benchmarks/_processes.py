"""What processes use, as the kernel counts it: CPU seconds of whole trees, and anonymous memory sampled to its peak."""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and everything below it."""
    found = [root]
    with suppress(OSError):
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the trees so far, with that of children that have ended."""
    ticks = 0
    for root in roots:
        for process in tree(root):
            with suppress(OSError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
                ticks += sum(map(int, fields[11:15])) if process == root else sum(map(int, fields[11:13]))
    return ticks / _TICKS


def anonymous(process: int) -> int:
    """RssAnon in bytes; 0 for a process that has ended."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return 0


class Peak:
    """Samples the anonymous memory of trees every few milliseconds: of each root alone, and of all together."""

    def __init__(self, roots: Iterable[int], seconds: float = 0.01) -> None:
        self._roots = list(roots)
        self._seconds = seconds
        self._end = threading.Event()
        self.idle = {root: anonymous(root) for root in self._roots}
        self.idle_together = self._together()
        self.alone = dict(self.idle)
        self.together = self.idle_together

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _together(self) -> int:
        return sum(anonymous(process) for root in self._roots for process in tree(root))

    def _sample(self) -> None:
        while not self._end.wait(self._seconds):
            for root in self._roots:
                self.alone[root] = max(self.alone[root], anonymous(root))
            self.together = max(self.together, self._together())

    def growth(self, root: int) -> int:
        """How many bytes the process alone had at its peak, above where it began."""
        return self.alone[root] - self.idle[root]
