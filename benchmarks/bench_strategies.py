"""Every strategy that Flower 1.41 has beside ours: time and memory from fifty replies to the next model.

    python benchmarks/bench_strategies.py [NAME ...]

Models of 46.8 MB in memory, weights and options alike, see ``_strategies_worker.py``. That both come to the same model
is for ``tests/conformance/test_flower_strategies.py`` to say. Flower is left out where it has too little memory.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from _figures import MB, Figure, at_least, leave, show
from _peers import PeerUnavailable, peer_python
from bench_aggregate import GIB, available

HERE = Path(__file__).resolve().parent
COUNT = 50
NEED = 16  # GiB, for replies as arrays and as bytes, and twice as much in Krum
LEAST = 1.0  # MB: less than that is not told from noise
NAMES = (
    *("fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "qfedavg"),
    *("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"),
)


def worker(side: str, name: str) -> dict[str, float]:
    python = sys.executable if side == "umbel" else str(peer_python("flwr-1.41.0"))
    command = [python, str(HERE / "_strategies_worker.py"), side, name, str(COUNT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def beside(name: str) -> Iterator[Figure]:
    label, ours = f"{name}, {COUNT} x 46.8 MB", worker("umbel", name)
    yield Figure(f"{label}: umbel", ours["wall"], "s")
    yield Figure(f"{label}: umbel, extra memory", ours["extra"] / MB, "MB")
    if available() < NEED * GIB:
        print(f"  Flower is left out: it needs {NEED} GiB here", flush=True)
        return
    try:
        theirs = worker("flower", name)
    except (PeerUnavailable, subprocess.CalledProcessError) as error:
        print(f"  Flower is left out: {error}", flush=True)
        return
    yield Figure(f"{label}: Flower 1.41", theirs["wall"], "s")
    yield Figure(f"{label}: Flower 1.41, extra memory", theirs["extra"] / MB, "MB")
    yield at_least(f"{label}: Flower / umbel, time", theirs["wall"] / ours["wall"], "x", 3)
    less = theirs["extra"] / MB / max(ours["extra"] / MB, LEAST)
    yield at_least(f"{label}: Flower / umbel, extra memory", less, "x", 20)


def main(names: list[str]) -> int:
    figures: list[Figure] = []
    for name in names or NAMES:
        found = list(beside(name))
        show(found)
        figures += found
    return leave("strategies", figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
