"""One side of the comparison, alive in a process of its own: does what it is asked, and says what it cost.

    PYTHON _records_worker.py SIDE FOLDER

Requests and answers are JSON, one a line: ``{"prepare": WORKLOAD}``, ``{"time": WAY}``, ``{"memory": CASE, ...}``.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _ways import WAYS
from _workloads import make

#: CPU seconds that a run lasts, or one call of what takes longer.
RUN = 0.02


class Clock:
    """Times a way over as many calls as make a run long enough to be measured, the same number in every run.

    A run begins with a call that is not timed, so what is timed is warm, for all sides alike. A virtual machine may
    give memory that is free for some seconds back to its host: whoever asks first would pay for all who follow.
    """

    def __init__(self, way: Callable[[], Any]) -> None:
        self._way = way
        self._calls = 1
        self._calls = max(1, min(100, round(RUN / self.run()["cpu"])))

    def run(self) -> dict[str, float]:
        gc.collect()
        result = self._way()
        result = None
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self._calls):
            result = self._way()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # The last result is let go of after the clocks have stopped: for all sides alike.
        del result
        return {"wall": wall / self._calls, "cpu": cpu / self._calls}


def status(field: str) -> int:
    """Return a field of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_of(work: Callable[[], Any]) -> int:
    """Return how far memory rose above where it was; pages of mapped files are the system's, and left out."""
    gc.collect()
    # Sets the high-water mark back to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    before, files = status("VmRSS"), status("RssFile")
    result = work()
    extra = status("VmHWM") - before - (status("RssFile") - files)
    del result
    return extra


def memory(case: str, workload: str, folder: Path) -> dict[str, float]:
    """Measure one case in a process that has done nothing else."""
    from umbel.records import ParametersRecord, array_from_numpy, load, save  # noqa: PLC0415 - not in a peer's environment

    # What the first call costs (imports, caches, the allocator's own) is no part of a model.
    np.random.default_rng()
    ParametersRecord.from_numpy({"w": np.ones(8)}).to_numpy()
    path = folder / workload
    empty = status("VmRSS")
    arrays = {} if case == "load" else make(workload)

    def record_and_views() -> Any:
        record = ParametersRecord.from_numpy(arrays)
        return record, record.to_numpy(copy=False)

    def load_and_read() -> Any:
        record = load(path).parameters_records["model"]
        return record, [np.bitwise_or.reduce(np.frombuffer(array.data, np.uint64)) for array in record.values()]

    cases: dict[str, Callable[[], Any]] = {
        "record": record_and_views,
        "arrays": lambda: [(array, array.numpy(copy=False)) for array in map(array_from_numpy, arrays.values())],
        "emptied": lambda: ParametersRecord.from_numpy(arrays, keep_input=False),
        "save": lambda: save(ParametersRecord.from_numpy(arrays, copy=False), path),
        "load": load_and_read,
    }
    largest = max((array.nbytes for array in arrays.values()), default=0)
    before = status("VmRSS") - empty
    size = sum(array.nbytes for array in arrays.values()) or path.stat().st_size
    if case == "emptied":
        return {"total": (before + peak_of(cases[case])) / size, "bound": 1 + largest / size}
    return {"extra": peak_of(cases[case]) / size}


def serve(side: str, folder: Path) -> None:
    # Libraries may print; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    ways: dict[str, Callable[[], Any]] = {}
    clocks: dict[str, Clock] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                clocks.clear()
                ways = WAYS[side](make(request["prepare"]), folder)
                answer: dict[str, Any] = {"ways": list(ways)}
            elif "memory" in request:
                answer = memory(request["memory"], request["workload"], folder)
            else:
                name = request["time"]
                clocks[name] = clocks.get(name) or Clock(ways[name])
                answer = clocks[name].run()
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; that is its figure
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
