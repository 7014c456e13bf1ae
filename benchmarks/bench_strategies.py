"""Every strategy that Flower 1.41 has beside ours: time and memory from fifty replies to the next model.

    python benchmarks/bench_strategies.py [NAME ...]

Models of 46.8 MB, weights and options alike, see ``_strategies_worker.py``. That both come to the same model is for
``tests/conformance/test_flower_strategies.py`` to say. Flower is left out where it has too little memory.

Time and memory are measured twice: as what a process needs for a round whose replies are held as each server holds
them, in mapped files or in memory; and, more narrowly, as what a strategy takes with all replies in memory, beside them
and the records that are its result. The files of the first take 5 GB below the current folder.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from _figures import MB, Figure, at_least, leave, show
from _peers import PeerUnavailable, peer_python
from _strategies_worker import write
from _turns import HERE, Failed, measure
from bench_aggregate import GIB, available

COUNT = 50
NEED = 16  # GiB, for replies as arrays and as bytes, and twice as much in Krum
TIMES = {"wall": "time", "files": "time from files"}
MEMORY = {"peak": "anonymous memory of a round", "extra": "extra memory"}
LEAST = 1.0  # MB: less than that is not told from noise
NAMES = (
    *("fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "qfedavg"),
    *("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"),
)


def worker(side: str, name: str, *folder: str) -> dict[str, float]:
    python = sys.executable if side == "umbel" else str(peer_python("flwr-1.41.0"))
    return measure([python, str(HERE / "_strategies_worker.py"), side, name, str(COUNT), *folder])


def both(side: str, name: str, folder: str) -> dict[str, float]:
    return worker(side, name) | worker(side, name, folder)


def beside(name: str, folder: str) -> Iterator[Figure]:
    label, ours = f"{name}, {COUNT} x 46.8 MB", both("umbel", name, folder)
    yield from alone(f"{label}: umbel", ours)
    if available() < NEED * GIB:
        print(f"  Flower is left out: it needs {NEED} GiB here", flush=True)
        return
    try:
        theirs = both("flower", name, folder)
    except (PeerUnavailable, Failed) as error:
        print(f"  Flower is left out: {error}", flush=True)
        return
    yield from alone(f"{label}: Flower 1.41", theirs)
    for what, words in TIMES.items():
        yield at_least(f"{label}: Flower / umbel, {words}", theirs[what] / ours[what], "x", 3)
    for what, words in MEMORY.items():
        less = theirs[what] / MB / max(ours[what] / MB, LEAST)
        yield at_least(f"{label}: Flower / umbel, {words}", less, "x", 20)


def alone(label: str, found: dict[str, float]) -> Iterator[Figure]:
    for what, words in TIMES.items():
        yield Figure(f"{label}, {words}", found[what], "s")
    for what, words in MEMORY.items():
        yield Figure(f"{label}, {words}", found[what] / MB, "MB")


def main(names: list[str]) -> int:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        write(Path(folder), COUNT)
        for name in names or NAMES:
            found = list(beside(name, folder))
            show(found)
            figures += found
    return leave("strategies", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
