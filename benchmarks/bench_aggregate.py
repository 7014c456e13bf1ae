"""Speed and memory of the weighted mean and of the gate, beside Flower's kernels.

    python benchmarks/bench_aggregate.py [--quick]

The unit of speed is the floor: the time that reading every update once and writing the result once takes at the
bandwidth of a warm memcpy, measured in the same process, interleaved with what is judged; one thread. Ratios are of
medians, in wall time and in CPU seconds. Updates are in memory, decoding is part of the work. Peers run in
environments of their own, see ``_peers.py``.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from _aggregate_worker import SIMULATED, K
from _peers import PeerUnavailable, peer_python

HERE = Path(__file__).resolve().parent
CLOCKS = {"wall": "wall time", "cpu": "CPU s"}
MICROSECOND = 1e-6
MIB = 2**20
GIB = 2**30
BLOCK_MIB = 0.25
ARRAYS = {"tiny": 10_000, "simulated": 10}

LABELS = {
    "resnet": f"{K} x 46.8 MB",
    "huge": f"{K} x 537 MB",
    "bfloat16": f"{K} x 105 MB of bfloat16",
    "tiny": f"{K} x 10,000 arrays of 16 floats",
    "simulated": f"{SIMULATED} x 10 arrays of 100 KB",
}
ROUNDS = {"resnet": 21, "huge": 5, "bfloat16": 7, "tiny": 7, "simulated": 15}
# What each peer needs, in GiB; at 537 MB Flower 1.13 would keep 22 models, too many for this script to ask for.
NEEDS = {
    ("resnet", "flwr-1.13.1"): 2,
    ("resnet", "flwr-1.41.0"): 2,
    ("huge", "flwr-1.41.0"): 8,
    ("bfloat16", "flwr-1.13.1"): 6,
    ("bfloat16", "flwr-1.41.0"): 4,
}
PEER_WAYS = {"flwr-1.13.1": "aggregate", "flwr-1.41.0": "aggregate_arrayrecords"}


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    target: str | None = None
    met: bool | None = None


def worker(side: str, workload: str, rounds: int | str) -> dict[str, Any]:
    python = sys.executable if side == "umbel" else str(peer_python(side))
    command = [python, str(HERE / "_aggregate_worker.py"), side, workload, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def ratio(
    times: dict[str, Any], name: str, way: str, base: str = "floor", target: float | None = None
) -> Iterable[Figure]:
    for clock, words in CLOCKS.items():
        value = times[way][clock] / times[base][clock]
        unit = "x floor" if base == "floor" else "x"
        yield Figure(f"{name}, {words}", value, unit, target and f"<= {target}", target and value <= target)


def ours(workload: str, rounds: int) -> Iterable[Figure]:
    label, times = LABELS[workload], worker("umbel", workload, rounds)
    yield from ratio(times, f"{label}: mean", "mean", target=None if workload == "bfloat16" else 1.9)
    yield from ratio(times, f"{label}: mean, one update at a time", "mean, one at a time")
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
        except (PeerUnavailable, subprocess.CalledProcessError) as error:
            print(f"  {side} is left out: {error}")
            continue
        for way in times.keys() - {"floor"}:
            yield from ratio(times, f"{LABELS[workload]}: {side} {way}", way)


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
        except (PeerUnavailable, subprocess.CalledProcessError):
            continue
        yield Figure(f"{LABELS['resnet']}: extra memory, {side} {way}", found["extra"] / found["model"] - 1, "records")


def run(rounds: dict[str, int]) -> list[Figure]:
    figures: list[Figure] = []
    for workload, count in rounds.items():
        print(f"{LABELS[workload]}: {count} rounds", flush=True)
        figures += small(workload, count) if workload in ARRAYS else ours(workload, count)
        figures += theirs(workload, count)
    print("memory", flush=True)
    return [*figures, *memory()]


def show(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    for name, value, unit, target, met in figures:
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{name:<{width}}  {value:>9.3g} {unit:<22} {target or '':>9}  {mark}")


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    figures = run({workload: 2 if quick else rounds for workload, rounds in ROUNDS.items()})
    show(figures)
    result = HERE / "results" / "aggregate.json"
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps({"name": "aggregate", "figures": [f._asdict() for f in figures]}, indent=1) + "\n")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
