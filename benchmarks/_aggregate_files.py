"""The weighted mean over updates in mapped files, as a server has them, timed against the memory bandwidth of the run.

    PYTHON _aggregate_files.py WORKLOAD COUNT ROUNDS

Prints ``{"times": {way: {"wall": ..., "cpu": ...}}, "extra": bytes, "same": true}``: seconds, the highest rise of
anonymous memory, and whether all ways gave the same bits. The files lie in a folder below the current one, because a
temporary folder may be memory.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _aggregate_worker import WEIGHTS, Arrays, K, _other, anonymous, copies, models, timed

from umbel.aggregation import Update, weighted_mean
from umbel.gate import Gate
from umbel.records import ParametersRecord, digest, load, save, scratch

PIECE = 2**20


Other = Callable[[Arrays, np.random.Generator], Arrays]


def write(workload: str, count: int, folder: Path, other: Other = _other) -> int:
    """Write ``count`` models of one layout with different numbers, one at a time; return the bytes of one."""
    (first,) = models(workload, 1)
    random = np.random.default_rng(7)
    for turn, arrays in enumerate(_turns(first, count, random, other)):
        save(ParametersRecord.from_numpy(arrays), folder / f"{turn:03}")
    return sum(array.nbytes for array in first.values())


def _turns(first: Arrays, count: int, random: np.random.Generator, other: Other) -> Iterator[Arrays]:
    yield first
    for _ in range(count - 1):
        yield other(first, random)


def updates(folder: Path) -> list[Update]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    records = (load(path).parameters_records["model"] for path in files)
    return [Update(path.name, WEIGHTS[at % K], record) for at, (path, record) in enumerate(zip(files, records))]  # noqa: B905


def forget(folder: Path) -> None:
    """Put the files out of the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read(folder: Path) -> None:
    """Read every file once, and do nothing with it."""
    piece = bytearray(PIECE)
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass


def mean(found: list[Update], threads: int) -> ParametersRecord:
    fold = FOLDS[threads]
    return fold.finish(fold.start(found[0].record), found)


# A fold keeps the memory of a result for the next one, and that of what is measured has another size.
MEASURED = weighted_mean(threads=1).reduce
FOLDS = {threads: weighted_mean(threads=threads).reduce for threads in (1, 2, 4)}


def ways(found: list[Update]) -> dict[str, Callable[[], Any]]:
    near = {name: np.asarray(array * 1.25, array.dtype) for name, array in found[0].record.to_numpy().items()}
    model = ParametersRecord.from_numpy(near)
    check = Gate().against(found[0].record)
    cheap = Gate(finite=False).against(found[0].record)
    bounded = Gate(max_norm=1e9).against(model)
    return {
        "mean, 1 thread": lambda: mean(found, 1),
        "mean, 2 threads": lambda: mean(found, 2),
        "mean and norms, 1 thread": lambda: MEASURED.measured(model, found),
        "gate": lambda: [check(update) for update in found],
        "gate, norm": lambda: [bounded(update) for update in found],
        "gate, layout alone": lambda: [cheap(update) for update in found],
    }


def cold(folder: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Time what begins with nothing in the page cache: reading alone, and the mean.

    They take turns in who is first, because what lies below a virtual disk may remember what was read before.
    """
    ways = {"cold read": cold_read, "cold mean, 1 thread": cold_mean}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in sorted(ways, reverse=turn % 2 == 0):
            runs[name].append(ways[name](folder))
    return runs


def cold_read(folder: Path) -> tuple[float, float]:
    forget(folder)
    return timed(lambda: read(folder))


def cold_mean(folder: Path) -> tuple[float, float]:
    forget(folder)
    found = updates(folder)
    return timed(lambda: mean(found, 1))


def warm(folder: Path, size: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    everything = {"floor": copies(size), **ways(updates(folder))}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in everything}
    for turn in range(rounds + 1):
        for name, way in everything.items():
            spent = timed(way)
            if turn:
                runs[name].append(spent)
    return runs


def measure(folder: Path, size: int, count: int, rounds: int) -> dict[str, Any]:
    runs = warm(folder, size, rounds)
    runs |= cold(folder, min(max(rounds, 2), 3))  # nothing maps the files any more: pages that are mapped stay
    times = {
        name: dict(zip(("wall", "cpu"), map(median, zip(*spent, strict=True)), strict=True))
        for name, spent in runs.items()
    }
    # A memcpy moves two bytes for each byte of a model.
    times["floor"] = {clock: spent / K * (count + 1) / 2 for clock, spent in times["floor"].items()}
    return times


def main(workload: str, count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, tempfile.TemporaryDirectory(dir=".") as other:
        size = write(workload, count, Path(folder))
        with scratch(other):
            times = measure(Path(folder), size, count, rounds)
            found = updates(Path(folder))
            same = len({digest(mean(found, threads)) for threads in FOLDS}) == 1
            rise = anonymous(lambda: mean(found, 1))
    print(json.dumps({"times": times, "extra": rise, "same": same}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
