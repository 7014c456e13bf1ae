"""Speed and memory of the weighted mean and of the gate, beside Flower's kernels.

    python benchmarks/bench_aggregate.py [--quick | --files]

The unit of speed is the floor: the time that reading every update once and writing the result once takes at the
bandwidth of a warm memcpy, measured in the same process, interleaved with what is judged; one thread. Ratios are of
medians, in wall time and in CPU seconds. Updates are in memory, and then in mapped files, as a server has them; to
decode them is part of the work. Where the mean proves that its updates are finite, the gate looks at names, dtypes and
shapes alone, and that is what it costs beside the mean; norms that it has a bound for are measured in the pass of the
mean, if updates are in files. Cold files, dropped from the page cache, are timed beside the disk's own read of the same
files in the same run. Peers run in environments of their own, see ``_peers.py``. ``--files`` is the part with files
alone: 200 models of 46.8 MB, and 10 of 537 MB, for which it needs 10 GB of disk.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _aggregate_worker import SIMULATED, K
from _figures import Figure, at_most, leave, show
from _peers import PeerUnavailable, peer_python
from _turns import HERE, Failed, answer

CLOCKS = {"wall": "wall time", "cpu": "CPU s"}
MICROSECOND = 1e-6
MIB = 2**20
GIB = 2**30
BLOCK_MIB = 1
GATE = 0.1
ARRAYS = {"tiny": 10_000, "simulated": 10}

LABELS = {
    "resnet": f"{K} x 46.8 MB",
    "huge": f"{K} x 537 MB",
    "bfloat16": f"{K} x 105 MB of bfloat16",
    "tiny": f"{K} x 10,000 arrays of 16 floats",
    "simulated": f"{SIMULATED} x 10 arrays of 100 KB",
}
ROUNDS = {"resnet": 21, "huge": 5, "bfloat16": 7, "tiny": 7, "simulated": 15}
FILES = {("resnet", 10): 9, ("resnet", 50): 3, ("resnet", 200): 1, ("huge", 10): 2}
MANY, MANY_NEED = 50, 12
# What each peer needs, in GiB; at 537 MB Flower 1.13 would keep 22 models, too many for this script to ask for.
NEEDS = {
    ("resnet", "flwr-1.13.1"): 2,
    ("resnet", "flwr-1.41.0"): 2,
    ("huge", "flwr-1.41.0"): 8,
    ("bfloat16", "flwr-1.13.1"): 6,
    ("bfloat16", "flwr-1.41.0"): 4,
}
PEER_WAYS = {"flwr-1.13.1": "aggregate", "flwr-1.41.0": "aggregate_arrayrecords"}


def worker(side: str, workload: str, rounds: int | str, *count: int) -> dict[str, Any]:
    python = sys.executable if side == "umbel" else str(peer_python(side))
    command = [python, str(HERE / "_aggregate_worker.py"), side, workload, str(rounds), *map(str, count)]
    found: dict[str, Any] = answer(command)
    return found


def ratio(
    times: dict[str, Any], name: str, way: str, base: str = "floor", target: float | None = None
) -> Iterable[Figure]:
    for clock, words in CLOCKS.items():
        value = times[way][clock] / times[base][clock]
        unit = "x floor" if base == "floor" else "x"
        yield Figure(f"{name}, {words}", value, unit, target and f"<= {target}", target and value <= target)


def ours(workload: str, rounds: int) -> Iterable[Figure]:
    label, times = LABELS[workload], worker("umbel", workload, rounds)
    yield from ratio(times, f"{label}: mean", "mean", target=None if workload == "bfloat16" else 1.8)
    yield from ratio(times, f"{label}: mean, one update at a time", "mean, one at a time")
    if workload != "bfloat16":  # of which NumPy's maximum is no measure of memory
        yield from ratio(times, f"{label}: reading every number once, the maximum of each array", "reading")
    yield from ratio(times, f"{label}: gate, finite, share of the mean", "gate", "mean")


def small(workload: str, rounds: int) -> Iterable[Figure]:
    """Overhead in Python, where arrays are small: microseconds for each array of each update."""
    label, times = LABELS[workload], worker("umbel", workload, rounds)
    pairs = ARRAYS[workload] * (SIMULATED if workload == "simulated" else K)
    for way in ("mean", "mean, one at a time", "gate, in cache", "bare loop"):
        for clock, words in CLOCKS.items():
            value = times[way][clock] / pairs / MICROSECOND
            yield Figure(f"{label}: {way}, {words}", value, "us an array and update")


def theirs(workload: str, rounds: int) -> Iterable[Figure]:
    for (wanted, side), need in NEEDS.items():
        if wanted != workload:
            continue
        if available() < need * GIB:
            print(f"  {side} is left out: it needs {need} GiB here, and {available() / GIB:.0f} are free")
            continue
        try:
            times = worker(side, workload, max(1, rounds // 4))
        except (PeerUnavailable, Failed) as error:
            print(f"  {side} is left out: {error}")
            continue
        for way in times.keys() - {"floor"}:
            yield from ratio(times, f"{LABELS[workload]}: {side} {way}", way)


def many() -> Iterable[Figure]:
    """Flower beside Umbel at 50 updates: time, and memory beyond the updates and the result."""
    side, way = "flwr-1.41.0", "aggregate_arrayrecords"
    if available() < MANY_NEED * GIB:
        print(f"  {side} at {MANY} updates is left out: it needs {MANY_NEED} GiB here")
        return
    try:
        theirs, extra = (worker(side, "resnet", what, MANY) for what in (1, way))
    except (PeerUnavailable, Failed) as error:
        print(f"  {side} is left out: {error}")
        return
    times, bytes_ = worker("umbel", "resnet", 3, MANY), worker("umbel", "resnet", "mean", MANY)
    faster = theirs[way]["wall"] / times["mean"]["wall"]
    yield Figure(f"{MANY} x 46.8 MB: {side} / umbel, time", faster, "x", ">= 3", faster >= 3)
    less = (extra["extra"] - extra["model"]) / max(bytes_["extra"] - bytes_["model"], MIB)
    yield Figure(f"{MANY} x 46.8 MB: {side} / umbel, extra memory", less, "x", ">= 20", less >= 20)


def files(rounds: dict[tuple[str, int], int]) -> Iterable[Figure]:
    """Updates in mapped files."""
    for (workload, count), turns in rounds.items():
        label = f"{count} x {LABELS[workload].split(' x ')[1]} in files"
        print(f"{label}: {turns} rounds", flush=True)
        command = [sys.executable, str(HERE / "_aggregate_files.py"), workload, str(count), str(turns)]
        yield from _of_files(label, count, answer(command))


def _of_files(label: str, count: int, found: dict[str, Any]) -> Iterable[Figure]:
    times = found["times"]
    yield from ratio(times, f"{label}: mean, 1 thread", "mean, 1 thread", target=1.8)
    value = times["mean, 2 threads"]["wall"] / times["mean, 1 thread"]["wall"]
    yield Figure(f"{label}: mean, 2 threads / 1 thread, wall time", value, "x", "< 1", value < 1)
    value = times["gate, layout alone"]["cpu"] / times["mean, 1 thread"]["cpu"]
    yield Figure(f"{label}: gate beside the mean, CPU s", value, "x", "<= 0.1", value <= GATE)
    again = times["gate"]["cpu"] / times["mean, 1 thread"]["cpu"]
    yield Figure(f"{label}: gate that reads every number, CPU s", again, "x mean")
    value = times["gate, norm"]["cpu"] / times["mean, 1 thread"]["cpu"]
    yield Figure(f"{label}: gate that measures norms by itself, CPU s", value, "x mean")
    value = times["mean and norms, 1 thread"]["cpu"] / times["mean, 1 thread"]["cpu"] - 1
    # A target of its own: what is found in the pass that reads the bytes costs less than to read them again.
    yield at_most(f"{label}: norms in the pass of the mean, CPU s beside it", value, "x mean", again)
    value = times["cold mean, 1 thread"]["wall"] / times["cold read"]["wall"]
    yield Figure(f"{label}: mean of files that are not in memory, wall time", value, "x reading them")
    bound = (count + 4) * BLOCK_MIB
    value = found["extra"] / MIB
    yield Figure(f"{label}: anonymous memory", value, "MiB", f"<= {bound:g}", value <= bound)
    yield Figure(f"{label}: same bits with 1, 2 and 4 threads", found["same"], "", "yes", found["same"])


def available() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def memory() -> Iterable[Figure]:
    """Peak of a process that does one thing, above what it held before and the result."""
    bound = 1 + K * BLOCK_MIB
    for workload in ("resnet", "huge"):
        for way in ("mean", "mean, one at a time"):
            found = worker("umbel", workload, way)
            value = (found["extra"] - found["model"]) / MIB
            name = f"{LABELS[workload]}: extra memory, {way}"
            yield Figure(name, value, "MiB", f"<= {bound:g}", value <= bound)
    for side, way in PEER_WAYS.items():
        try:
            found = worker(side, "resnet", way)
        except (PeerUnavailable, Failed):
            continue
        yield Figure(f"{LABELS['resnet']}: extra memory, {side} {way}", found["extra"] / found["model"] - 1, "records")


def run(rounds: dict[str, int]) -> list[Figure]:
    figures: list[Figure] = []
    for workload, count in rounds.items():
        print(f"{LABELS[workload]}: {count} rounds", flush=True)
        figures += small(workload, count) if workload in ARRAYS else ours(workload, count)
        figures += theirs(workload, count)
    print("memory", flush=True)
    return [*figures, *memory(), *many()]


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    figures = [] if "--files" in arguments else run({name: 2 if quick else rounds for name, rounds in ROUNDS.items()})
    figures += files({("resnet", 10): 3} if quick else FILES)
    show(figures)
    return leave("aggregate", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
