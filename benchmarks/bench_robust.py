"""Speed of the robust rules on one thread, in CPU seconds, each beside what it cannot do without.

    python benchmarks/bench_robust.py [--quick]

Rules by element are judged by `np.partition` of the same blocks; rules by distance by a copy of what is read into
blocks of float64 that a matrix product is fast with, plus the products. Those have other bits with another library or
another number of threads; ours have the same ones. Updates are in memory, and then in mapped files, as a server has
them: models of 46.8 MB in 122 arrays, the same for both sides. That a rule sees on its way what is not finite, in place
of the gate, is measured too. Ratios are of medians, interleaved with what they are judged by. The files of 50 models
take 2.4 GB below the current folder; ``--quick`` has those of 10.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _aggregate_files import updates, write
from _aggregate_worker import Arrays
from _figures import Figure, at_most, leave, show
from numpy.typing import NDArray

from umbel.aggregation import (
    Aggregator,
    Proving,
    Update,
    aggregate,
    bulyan,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from umbel.records import ParametersRecord, scratch

COLUMNS, FACTOR = 2**11, 2**14


Model = list[NDArray[Any]]


class Cohort(NamedTuple):
    """So many updates of so many elements of float32, of which some may be bad."""

    count: int
    byzantine: int
    size: int


COHORTS = (Cohort(10, 2, 2**22), Cohort(50, 10, 2**22), Cohort(200, 40, 2**20))
# How many updates in files, how many may be bad, and how many rounds.
FILES = ((10, 2, 5), (50, 10, 3))


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


def partitioned(models: list[Model]) -> None:
    middle = len(models) // 2
    for arrays in zip(*models, strict=True):
        for start in range(0, arrays[0].size, COLUMNS):
            np.partition(np.stack([array[start : start + COLUMNS] for array in arrays]), middle, axis=0)


def read_and_multiplied(models: list[Model]) -> None:
    room = np.empty((len(models), FACTOR))
    for arrays in zip(*models, strict=True):
        for start in range(0, arrays[0].size, FACTOR):
            part = room[:, : min(FACTOR, arrays[0].size - start)]
            for row, array in zip(part, arrays, strict=True):
                np.copyto(row, array[start : start + FACTOR])
            np.matmul(part, part.T)


def in_memory(cohort: Cohort, rounds: int) -> Iterator[Figure]:
    count, byzantine, size = cohort
    rng = np.random.default_rng(count)
    records = [
        ParametersRecord.from_numpy({"w": rng.standard_normal(size).astype(np.float32)}, copy=False)
        for _ in range(count + 1)
    ]
    model, *found = [Update(f"node-{place:03}", 1.0, record) for place, record in enumerate(records)]
    yield from judged(f"{count}", model.record, found, byzantine, rounds)


def in_files(count: int, byzantine: int, rounds: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(dir=".") as folder, tempfile.TemporaryDirectory(dir=".") as other:
        write("resnet", count + 1, Path(folder), independent)
        with scratch(other):
            model, *found = updates(Path(folder))
            yield from judged(f"{count} x 46.8 MB in files", model.record, found, byzantine, rounds)


def independent(model: Arrays, random: np.random.Generator) -> Arrays:
    """Return other numbers: with those of one model and a factor, every element would have the same order of nodes."""
    return {
        name: random.standard_normal(array.shape, np.float32) if array.dtype.kind == "f" else array.copy()
        for name, array in model.items()
    }


def judged(label: str, model: ParametersRecord, found: list[Update], byzantine: int, rounds: int) -> Iterator[Figure]:
    """Measure each rule on some updates, beside what it is judged by on the same."""
    models = [[array.ravel() for array in each.record.to_numpy(copy=False).values()] for each in found]

    def ruled(rule: Aggregator) -> Callable[[], Any]:
        return lambda: aggregate(rule, model, found)

    def proven(rule: Aggregator) -> Callable[[], Any]:
        fold = rule.reduce
        assert isinstance(fold, Proving)
        return lambda: fold.proven(model, found)

    times = medians(
        rounds,
        partition=lambda: partitioned(models),
        median=ruled(median()),
        trimmed_mean=ruled(trimmed_mean()),
        product=lambda: read_and_multiplied(models),
        krum=ruled(krum(byzantine=byzantine)),
        multi_krum=ruled(multi_krum(byzantine=byzantine)),
        geometric_median=ruled(geometric_median()),
        bulyan=ruled(bulyan(byzantine=min(byzantine, (len(found) - 3) // 4))),
        proven_median=proven(median()),
        proven_krum=proven(krum(byzantine=byzantine)),
    )
    for name in ("median", "trimmed_mean"):
        yield at_most(f"{name} of {label}", times[name] / times["partition"], "x np.partition", 4)
    for name in ("krum", "multi_krum", "geometric_median"):
        yield at_most(f"{name} of {label}", times[name] / times["product"], "x reading and products", 2)
    for name in ("median", "krum"):
        label_of_proof = f"{name} of {label}, with the proof that all numbers are finite"
        yield at_most(label_of_proof, times[f"proven_{name}"] / times[name], "x the same without", 1.1)
    both = 2 * times["product"] + 4 * times["partition"]
    yield at_most(f"bulyan of {label}", times["bulyan"] / both, "x what both may cost", 1)


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    figures = [figure for cohort in COHORTS for figure in in_memory(cohort, 1 if quick else 5)]
    for count, byzantine, rounds in FILES[: 1 if quick else None]:
        figures += in_files(count, byzantine, 1 if quick else rounds)
    show(figures)
    return leave("robust", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
