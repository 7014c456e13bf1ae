"""One side's aggregation of one workload, timed in a process of its own against the memory bandwidth of the same run.

    PYTHON _aggregate_worker.py SIDE WORKLOAD ROUNDS [K]  prints {way: {"wall": ..., "cpu": ...}, "floor": ...}, seconds
    PYTHON _aggregate_worker.py SIDE WORKLOAD WAY [K]     prints {"extra": bytes, "model": bytes of one model}

The floor is the time that the bytes of all updates, read once, and of the result, written once, take at the bandwidth
of a warm memcpy.
"""

import ctypes
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
from _workloads import make

Arrays = dict[str, np.ndarray]
Ways = dict[str, Callable[[], Any]]

K = 10
WEIGHTS = [600, 37, 128, 1024, 5, 77, 301, 64, 450, 999]
SIMULATED = 100
LARGE = 2**28


def models(workload: str, count: int) -> list[Arrays]:
    """Models of one layout with different numbers."""
    random = np.random.default_rng(7)
    if workload == "simulated":
        return [{f"w{i}": random.standard_normal(25_000, np.float32) for i in range(10)} for _ in range(count)]
    if workload == "huge":
        first = {f"layer{i}.weight": random.standard_normal((2048, 4096), np.float32) for i in range(16)}
    else:
        first = {name: np.asarray(array) for name, array in make(workload).items()}
    return [first, *(_other(first, random) for _ in range(count - 1))]


def _other(model: Arrays, random: np.random.Generator) -> Arrays:
    scale = 1 + random.random()
    return {name: np.asarray(array * scale, array.dtype) for name, array in model.items()}


def umbel(found: list[Arrays]) -> Ways:
    from umbel.aggregation import Update, weighted_mean  # noqa: PLC0415 - not in a peer's environment
    from umbel.gate import Gate  # noqa: PLC0415 - likewise
    from umbel.records import ParametersRecord  # noqa: PLC0415 - likewise

    records = [ParametersRecord.from_numpy(arrays, keep_input=False) for arrays in found]
    updates = [Update(f"node{i:03}", WEIGHTS[i % K], record) for i, record in enumerate(records)]
    fold, template = weighted_mean(threads=1).reduce, records[0]
    check = Gate().against(template)

    def one_by_one() -> Any:
        acc = fold.start(template)
        for update in updates:
            acc = fold.add(acc, (update,))
        return fold.finish(acc)

    def bare() -> Any:
        total = {name: np.zeros(array.shape, array.dtype) for name, array in decoded[0].items()}
        for arrays, update in zip(decoded, updates, strict=True):
            for name, array in arrays.items():
                total[name] += array * update.weight
        return {name: array / sum(WEIGHTS) for name, array in total.items()}

    decoded = [record.to_numpy(copy=False) for record in records]
    return {
        "mean": lambda: fold.finish(fold.start(template), updates),
        "mean, one at a time": one_by_one,
        "gate": lambda: [check(update) for update in updates],
        "gate, in cache": lambda: [check(updates[0]) for _ in updates],
        "bare loop": bare,
        "reading": lambda: [array.max() for arrays in decoded for array in arrays.values()],
    }


def flower_1_13(found: list[Arrays]) -> Ways:
    from flwr.server.strategy.aggregate import aggregate  # noqa: PLC0415 - only in the peer's environment

    results = [(list(arrays.values()), WEIGHTS[i % K]) for i, arrays in enumerate(found)]
    return {"aggregate": lambda: aggregate(results)}


def flower_1_41(found: list[Arrays]) -> Ways:
    from flwr.app import ArrayRecord, MetricRecord, RecordDict  # noqa: PLC0415 - only in the peer's environment
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords  # noqa: PLC0415 - likewise

    metrics = [MetricRecord({"num-examples": WEIGHTS[i % K]}) for i in range(len(found))]
    decoded = [
        SimpleNamespace(
            metric_records={"metrics": metric},
            array_records={
                "arrays": {name: SimpleNamespace(numpy=lambda array=array: array) for name, array in arrays.items()}
            },
        )
        for arrays, metric in zip(found, metrics, strict=True)
    ]
    ways: Ways = {"decoding left out": lambda: aggregate_arrayrecords(decoded, "num-examples")}
    kinds = {array.dtype.kind for array in found[0].values()}
    if (
        kinds <= set("fi") and sum(array.nbytes for array in found[0].values()) < LARGE
    ):  # the rest it cannot carry, or needs 20 GB for
        replies = [
            RecordDict({"arrays": ArrayRecord(list(arrays.values())), "metrics": metric})
            for arrays, metric in zip(found, metrics, strict=True)
        ]
        ways["aggregate_arrayrecords"] = lambda: aggregate_arrayrecords(replies, "num-examples")
    return ways


SIDES: dict[str, Callable[[list[Arrays]], Ways]] = {
    "umbel": umbel,
    "flwr-1.13.1": flower_1_13,
    "flwr-1.41.0": flower_1_41,
}


def timed(way: Callable[[], Any]) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = way()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    del result  # after the clocks have stopped, for all ways alike
    return spent


def copies(size: int) -> Callable[[], None]:
    """Copy ten models of ``size`` bytes, each from its own memory, into one warm target."""
    sources = [np.full(size, i, np.uint8) for i in range(3)]
    target = np.zeros(size, np.uint8)

    def run() -> None:
        for turn in range(K):
            np.copyto(target, sources[turn % 3])

    return run


def measure(ways: Ways, size: int, count: int, rounds: int) -> dict[str, Any]:
    """Return medians of interleaved runs."""
    everything = {"floor": copies(size), **ways}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in everything}
    for turn in range(rounds + 1):
        for name, way in everything.items():
            spent = timed(way)
            if turn:
                runs[name].append(spent)
    found = {
        name: dict(zip(("wall", "cpu"), map(median, zip(*spent, strict=True)), strict=True))
        for name, spent in runs.items()
    }
    # A memcpy moves two bytes for each byte of a model.
    found["floor"] = {clock: spent / K * (count + 1) / 2 for clock, spent in found["floor"].items()}
    return found


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def extra(way: Callable[[], Any]) -> int:
    """Return how far memory rose above where it was before, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # so that nothing fits into memory that was let go of but not given back
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is in use now
    before = status("VmRSS")
    result = way()
    rise = status("VmHWM") - before
    del result
    return rise


def anonymous(way: Callable[[], Any]) -> int:
    """Return how far anonymous memory, which is no page of a file, rose at most while something was done, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    seen, over = [status("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            seen.append(status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = way()
    over.set()
    watcher.join()
    del result
    return max(seen) - seen[0]


def main(arguments: list[str]) -> None:
    side, workload, rounds, *given = arguments
    found = models(workload, int(given[0]) if given else SIMULATED if workload == "simulated" else K)
    count, size = len(found), sum(array.nbytes for array in found[0].values())
    ways = SIDES[side](found)
    if rounds.isdigit():
        answer = measure(ways, size, count, int(rounds))
    else:
        SIDES[side](models("simulated", 2))[rounds]()  # what a first call loads is not the model's
        answer = {"extra": extra(ways[rounds]), "model": size}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
