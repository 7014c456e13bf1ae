"""Speed of the robust rules on one thread, in CPU seconds, each beside what it cannot do without.

    python benchmarks/bench_robust.py [--quick]

Rules by element are judged by `np.partition` of the same blocks; rules by distance by a copy of what is read into
blocks of float64 that a matrix product is fast with, plus the products. Those have other bits with another library or
another number of threads; ours have the same ones. Updates are in memory; ratios are of medians, interleaved with what
they are judged by.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _figures import Figure, at_most, leave, show
from numpy.typing import NDArray

from umbel.aggregation import (
    Aggregator,
    Update,
    aggregate,
    bulyan,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from umbel.records import ParametersRecord

COLUMNS, FACTOR = 2**11, 2**14


class Cohort(NamedTuple):
    """So many updates of so many elements of float32, of which some may be bad."""

    count: int
    byzantine: int
    size: int


COHORTS = (Cohort(10, 2, 2**22), Cohort(50, 10, 2**22), Cohort(200, 40, 2**20))


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
    for start in range(0, arrays[0].size, COLUMNS):
        np.partition(np.stack([array[start : start + COLUMNS] for array in arrays]), middle, axis=0)


def read_and_multiplied(arrays: list[NDArray[Any]]) -> None:
    room = np.empty((len(arrays), FACTOR))
    for start in range(0, arrays[0].size, FACTOR):
        for row, array in zip(room, arrays, strict=True):
            np.copyto(row, array[start : start + FACTOR])
        np.matmul(room, room.T)


def measured(cohort: Cohort, rounds: int) -> Iterator[Figure]:
    count, byzantine, size = cohort
    rng = np.random.default_rng(count)
    arrays = [rng.standard_normal(size).astype(np.float32) for _ in range(count + 1)]
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
        multi_krum=ruled(multi_krum(byzantine=byzantine)),
        geometric_median=ruled(geometric_median()),
        bulyan=ruled(bulyan(byzantine=byzantine)),
    )
    for name in ("median", "trimmed_mean"):
        yield at_most(f"{name} of {count}", found[name] / found["partition"], "x np.partition", 4)
    for name in ("krum", "multi_krum", "geometric_median"):
        yield at_most(f"{name} of {count}", found[name] / found["product"], "x reading and products", 2)
    both = 2 * found["product"] + 4 * found["partition"]
    yield at_most(f"bulyan of {count}", found["bulyan"] / both, "x what both may cost", 1)


def main(arguments: list[str]) -> int:
    rounds = 1 if "--quick" in arguments else 5
    figures = [figure for cohort in COHORTS for figure in measured(cohort, rounds)]
    show(figures)
    return leave("robust", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
