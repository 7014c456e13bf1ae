"""What a deployed round costs: a server and nodes as real processes on loopback, with and without TLS.

    python benchmarks/bench_deploy.py [--quick]

Nodes do not train: each sends back the model plus a constant, so that what is measured is what the system adds. Bytes a
second are compared with bare sockets that move the same bytes from a file to a file, see ``_raw_sockets.py``: in each
direction by itself, as nodes time it, and over the whole round, where two directions of bare sockets stand beside all
that a round does: training, hashes, aggregation and the flush of the new model too. Flower 1.41 does the same work
beside it. Clocks of a machine that does other things too say little; CPU seconds and bytes do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import NamedTuple

from _deploy_many import many
from _deploy_rounds import HERE, Taken, federation, idle, measure, model
from _figures import MB, Figure, at_least, at_most, show
from _flower_deployed import rounds as flower_rounds
from _peers import PeerUnavailable

MODES = ("plain", "TLS")
GIB = 2**30
LIMIT = 512 * MB  # RLIMIT_DATA of the server


class Load(NamedTuple):
    """A model, how many nodes take it, and what a round may cost; None where no target is set."""

    size: int
    nodes: int
    rounds: int
    seconds: float | None = None
    cpu: float | None = None
    limited: bool = False

    @property
    def label(self) -> str:
        limit = f", server within {LIMIT // MB} MB" if self.limited else ""
        return f"{self.size // MB} MB, {self.nodes} nodes{limit}"


def tiny(*, rounds: int, seconds: float) -> list[Figure]:
    figures = []
    for mode, bound in zip(MODES, (50, 80), strict=True):
        with federation(2, tls=mode == "TLS") as cluster:
            taken = measure(cluster, model(36, 1), rounds)
            server, *nodes = idle(cluster, seconds)
        label = f"9 floats, 2 nodes, {mode}"
        figures += [
            at_most(f"{label}: a round, median", 1e3 * median(taken.rounds), "ms", bound),
            at_most(f"{label}: a round, p99", 1e3 * quantiles(taken.rounds, n=100)[98], "ms", 250),
            Figure(f"{label}: a round, all processes", 1e3 * taken.cpu, "CPU ms"),
            at_most(f"{label}: idle server", server, "% core", 1),
            at_most(f"{label}: idle node", max(nodes), "% core", 1),
        ]
    return figures


def large(load: Load, mode: str) -> list[Figure]:
    bare = raw(load.size, load.nodes, mode)
    limits = {"rlimits": {"RLIMIT_DATA": LIMIT}} if load.limited else {}
    with federation(load.nodes, tls=mode == "TLS", **limits) as cluster:
        taken = measure(cluster, model(load.size, 148), load.rounds)
    seconds, label = median(taken.rounds), f"{load.label}, {mode}"
    print(f"{label}: rounds {rounded(taken.rounds)}, bare sockets {bare:.2f} s a direction, {story(taken)}", flush=True)
    return [
        bounded(f"{label}: a round", seconds, "s", load.seconds),
        bounded(f"{label}: a round, all processes", taken.cpu, "CPU s", load.cpu),
        at_least(f"{label}: down, share of bare sockets", bare / taken.down, "x", 0.5),
        at_least(f"{label}: up, share of bare sockets", bare / taken.up, "x", 0.5),
        Figure(f"{label}: both and the rest of the round, share of bare sockets", 2 * bare / seconds, "x"),
        at_most(f"{label}: server above idle", taken.server / MB, "MB", 120),
        at_most(f"{label}: node beyond its handler, in models", taken.node / load.size, "models", 1.3),
        at_most(
            f"{label}: all processes, beyond handlers", taken.together / MB - load.nodes * load.size / MB, "MB", 1000
        ),
    ]


def arrays(rounds: int) -> list[Figure]:
    """The same bytes in many arrays and in few."""
    taken = {}
    with federation(2, tls=False) as cluster:
        for count in (4, 1000):
            taken[count] = measure(cluster, model(MB, count), rounds)
    few, many_ = taken[4], taken[1000]
    label = "1 MB, 2 nodes, plain"
    return [
        Figure(f"{label}: a round of 4 arrays", 1e3 * median(few.rounds), "ms"),
        at_most(f"{label}: 1,000 arrays / 4 arrays, seconds", median(many_.rounds) / median(few.rounds), "x", 1.5),
        Figure(f"{label}: 1,000 arrays / 4 arrays, CPU seconds", many_.cpu / few.cpu, "x"),
    ]


def ledger(count: int) -> list[Figure]:
    command = [sys.executable, str(HERE / "_ledger_worker.py"), str(count), "256"]
    found = float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
    return [at_least("ledger, every commit flushed, 256 on their way: replies", found, "1/s", 2000)]


def flower() -> list[Figure]:
    figures = []
    for size, rounds in ((36, 3), (100 * MB, 2)):
        label = f"Flower 1.41, {'9 floats' if size == 36 else f'{size // MB} MB'}, 2 nodes"
        try:
            taken = flower_rounds(size, 148 if size > MB else 1, rounds)
        except PeerUnavailable as error:
            print(f"Flower is left out: {error}", flush=True)
            return figures
        figures += [
            Figure(f"{label}: a round", taken.seconds, "s"),
            Figure(f"{label}: a round, all processes", taken.cpu, "CPU s"),
            Figure(f"{label}: all processes, peak", taken.together / MB, "MB"),
        ]
    return figures


def raw(size: int, nodes: int, mode: str) -> float:
    command = [sys.executable, str(HERE / "_raw_sockets.py"), str(size), str(nodes), mode.lower()]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


def bounded(name: str, value: float, unit: str, bound: float | None) -> Figure:
    return Figure(name, value, unit) if bound is None else at_most(name, value, unit, bound)


def rounded(seconds: list[float]) -> list[float]:
    return [round(each, 2) for each in seconds]


def story(taken: Taken) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in taken.laps.items())


def parts(*, quick: bool) -> Iterator[Callable[[], list[Figure]]]:
    """What is measured, one after the other."""
    yield lambda: tiny(rounds=40 if quick else 200, seconds=5 if quick else 20)
    for mode in MODES:
        yield lambda mode=mode: large(Load(100 * MB, 2, 2 if quick else 5, 1.2, 2.0), mode)
    yield lambda: arrays(5 if quick else 20)
    yield lambda: ledger(4_000 if quick else 20_000)
    yield lambda: many(100 if quick else 1_000, 3, seconds=5 if quick else 30)
    if not quick:
        for load in (
            Load(100 * MB, 6, 3),
            Load(475 * MB, 2, 3),
            Load(475 * MB, 6, 2, limited=True),
            Load(GIB, 2, 2, 12.0),
        ):
            yield lambda load=load: large(load, "TLS")
        yield flower


def main(arguments: list[str]) -> int:
    figures: list[Figure] = []
    for part in parts(quick="--quick" in arguments):
        found = part()
        show(found)
        figures += found
    write(figures)
    print(f"load of the machine: {', '.join(f'{each:.1f}' for each in os.getloadavg())}")
    return int(any(figure.met is False for figure in figures))


def write(figures: list[Figure]) -> None:
    result = HERE / "results" / "deploy.json"
    result.parent.mkdir(exist_ok=True)
    said = {"name": "deploy", "load": os.getloadavg(), "figures": [figure._asdict() for figure in figures]}
    result.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
