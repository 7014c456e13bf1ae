"""Speed of the robust rules on one thread, in CPU seconds, each beside what it cannot do without.

    python benchmarks/bench_robust.py [--quick]

Rules by element are judged by `np.partition` of the same blocks; rules by distance by a warm copy of what is read plus
the matrix products themselves. Updates are in memory; ratios are of medians, interleaved with what they are judged by.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _figures import Figure, leave, show
from numpy.typing import NDArray

from umbel.aggregation import Aggregator, Update, aggregate, bulyan, geometric_median, krum, median, trimmed_mean
from umbel.records import ParametersRecord

SIZE = 2**22  # elements of float32
COLUMNS, RUN = 2**11, 512
COHORTS = {10: 2, 50: 10}


def seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def medians(rounds: int, **ways: Callable[[], Any]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    return {name: float(np.median(each)) for name, each in times.items()}


def partitioned(arrays: list[NDArray[Any]]) -> None:
    middle = len(arrays) // 2
    for start in range(0, SIZE, COLUMNS):
        np.partition(np.stack([array[start : start + COLUMNS] for array in arrays]), middle, axis=0)


def read_and_multiplied(arrays: list[NDArray[Any]]) -> None:
    room = np.empty((len(arrays), RUN))
    for start in range(0, SIZE, RUN):
        for row, array in zip(room, arrays, strict=True):
            np.copyto(row, array[start : start + RUN])
        np.matmul(room, room.T)


def measured(count: int, byzantine: int, rounds: int) -> Iterator[Figure]:
    rng = np.random.default_rng(count)
    arrays = [rng.standard_normal(SIZE).astype(np.float32) for _ in range(count + 1)]
    records = [ParametersRecord.from_numpy({"w": array}, copy=False) for array in arrays]
    updates = [Update(f"node-{place:03}", 1.0, record) for place, record in enumerate(records[1:])]

    def ruled(rule: Aggregator) -> Callable[[], Any]:
        return lambda: aggregate(rule, records[0], updates)

    found = medians(
        rounds,
        partition=lambda: partitioned(arrays[1:]),
        median=ruled(median()),
        trimmed_mean=ruled(trimmed_mean()),
        product=lambda: read_and_multiplied(arrays[1:]),
        krum=ruled(krum(byzantine=byzantine)),
        geometric_median=ruled(geometric_median()),
        bulyan=ruled(bulyan(byzantine=byzantine)),
    )
    for name in ("median", "trimmed_mean"):
        ratio = found[name] / found["partition"]
        yield Figure(f"{name} of {count}", ratio, "x np.partition", "<= 4", ratio <= 4)
    for name in ("krum", "geometric_median"):
        ratio = found[name] / found["product"]
        yield Figure(f"{name} of {count}", ratio, "x reading and products", "<= 2", ratio <= 2)
    ratio = found["bulyan"] / (found["product"] + found["partition"])
    yield Figure(f"bulyan of {count}", ratio, "x both", "<= 4", ratio <= 4)


def main(arguments: list[str]) -> int:
    rounds = 1 if "--quick" in arguments else 5
    figures = [figure for count, byzantine in COHORTS.items() for figure in measured(count, byzantine, rounds)]
    show(figures)
    return leave("robust", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
