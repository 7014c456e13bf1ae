"""Every strategy that Flower 1.41 has beside ours: time and memory from fifty replies to the next model.

    python benchmarks/bench_strategies.py [NAME ...]

Models of 46.8 MB, weights and options alike, see ``_strategies_worker.py``. That both come to the same model is for
``tests/conformance/test_flower_strategies.py`` to say. Flower is left out where it has too little memory.

Time and memory are measured twice: as what a process needs for a round whose replies are held as each server holds
them, in mapped files or in memory; and, more narrowly, as what a strategy takes with all replies in memory, beside them
and the records that are its result. The files of the first take 5 GB below the current folder.

FedXgbBagging and FedXgbCyclic are given trees of the real XGBoost, see ``_ensembles.py``: fifty replies of one tree to
a model of two hundred, and that model passed on with one tree more. Their time has the target of the others. Their
memory has none: replies are a few kilobytes and the model less than a megabyte, so what is measured is the parsed JSON
of one ensemble, on either side. Cyclic, Flower hands on what the node sent and looks at none of it; Umbel checks all.

Of Flower's strategies these are left out: wrappers for differential privacy, DPFedAvg and FedXgbNnAvg, which have no
counterpart in Umbel, and FedAvgAndroid, which is FedAvg for bytes that phones write. FaultTolerantFedAvg is there in
Flower's older interface alone; beside it runs FedAvg with a quorum.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from _ensembles import Nodes, write_round
from _figures import MB, Figure, at_least, leave, show
from _peers import PeerUnavailable, peer_python
from _strategies_worker import TREES, cohort, write
from _turns import HERE, Failed, measure, middle
from bench_aggregate import GIB, available

COUNT = 50
TURNS = 3
NEED = 16  # GiB, for replies as arrays and as bytes, and twice as much in Krum
TIMES = {"wall": "time", "files": "time from files"}
MEMORY = {"peak": "anonymous memory of a round", "extra": "extra memory"}
LEAST = 1.0  # MB: less than that is not told from noise
NAMES = (
    *("fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "qfedavg"),
    *("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"),
    *("fedprox", "faulttolerantfedavg", *TREES),
)
REPLIES = {"fedxgb_cyclic": 1}  # of the others COUNT
SIZES = {"fedxgb_bagging": "one tree", "fedxgb_cyclic": "an ensemble"}


def worker(side: str, name: str, folder: Path, way: str) -> dict[str, float]:
    python = sys.executable if side == "umbel" else str(peer_python("flwr-1.41.0"))
    count = str(REPLIES.get(name, COUNT))
    return measure([python, str(HERE / "_strategies_worker.py"), side, name, count, str(folder), way])


def both(side: str, name: str, folder: Path) -> dict[str, float]:
    """What a side takes in either way: in memory the middle of a few turns, as processes differ by half there."""
    turns = [worker(side, name, folder, "memory") for _ in range(TURNS)]
    return {what: middle(turns, what) for what in turns[0]} | worker(side, name, folder, "files")


def beside(name: str, folder: Path) -> Iterator[Figure]:
    label, ours = f"{name}, {REPLIES.get(name, COUNT)} x {SIZES.get(name, '46.8 MB')}", both("umbel", name, folder)
    yield from alone(f"{label}: umbel", ours)
    if name not in TREES and available() < NEED * GIB:
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
    yield from less(name, label, ours, theirs)


def less(name: str, label: str, ours: dict[str, float], theirs: dict[str, float]) -> Iterator[Figure]:
    for what, words in MEMORY.items():
        value, of = theirs[what] / MB / max(ours[what] / MB, LEAST), f"{label}: Flower / umbel, {words}"
        yield Figure(of, value, "x") if name in TREES else at_least(of, value, "x", 20)


def alone(label: str, found: dict[str, float]) -> Iterator[Figure]:
    for what, words in TIMES.items():
        yield Figure(f"{label}, {words}", found[what], "s")
    for what, words in MEMORY.items():
        yield Figure(f"{label}, {words}", found[what] / MB, "MB")


def prepared(names: Sequence[str], root: Path) -> dict[str, Path]:
    """Write what strategies are given; return the folder of each, without those that cannot be measured here."""
    folders = {name: root / (name if name in TREES else "models") for name in names}
    if not set(names) <= set(TREES):
        write(root / "models", cohort("resnet", COUNT)[1])
    if not set(names) & set(TREES):
        return folders
    try:
        nodes = Nodes(COUNT)
    except PeerUnavailable as error:
        print(f"  strategies of trees are left out: {error}", flush=True)
        return {name: folder for name, folder in folders.items() if name not in TREES}
    write_round(root / "fedxgb_bagging", nodes, nodes.added())
    write_round(root / "fedxgb_cyclic", nodes, nodes.passed_on())
    return folders


def main(names: list[str]) -> int:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for name, given in prepared(names or NAMES, Path(folder)).items():
            found = list(beside(name, given))
            show(found)
            figures += found
    return leave("strategies", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
