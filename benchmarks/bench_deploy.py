"""What a deployed round costs: a server and nodes as real processes on loopback, with and without TLS.

    python benchmarks/bench_deploy.py [--quick]

Nodes do not train: each sends back the model plus a constant, so that what is measured is what the system adds. Bytes a second are compared
with bare sockets that move the same bytes from a file to a file in the same run, see ``_raw_sockets.py``.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np
from _processes import Peak, cpu_seconds

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "faults"))

from federation import Federation  # noqa: E402 - it stands beside the tests that break it

MB = 10**6
MODES = ("plain",)


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    target: str | None = None
    met: bool | None = None


def at_least(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


@contextmanager
def federation(nodes: int, *, tls: bool):
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="umbel-bench-") as folder:
        here = Federation(Path(folder), HERE / "deployed", app="deployed_app:app", plain=not tls)
        try:
            server = here.serve()
            others = [here.node(f"node-{number}") for number in range(nodes)]
            wait_online(here, nodes)
            yield here, server.process.pid, [node.process.pid for node in others]
        finally:
            here.close()


def wait_online(here: Federation, nodes: int) -> None:
    deadline = time.monotonic() + 60
    while sum(node.status == "online" for node in here.call("list_nodes").nodes) < nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{nodes} nodes were not online within 60 s")
        time.sleep(0.1)


def model(size: int, arrays: int) -> dict[str, Any]:
    """Random float32 arrays of so many bytes together."""
    rng = np.random.default_rng(1)
    each = size // arrays // 4
    return {f"layer.{number}": rng.random(each, np.float32) for number in range(arrays)}


class Taken(NamedTuple):
    """Seconds of each round, CPU seconds a round over all processes, and anonymous bytes above idle."""

    rounds: list[float]
    cpu: float
    server: int
    node: int
    together: int
    laps: dict[str, float]


def train(size: int, arrays: int, nodes: int, rounds: int, *, tls: bool) -> Taken:
    with federation(nodes, tls=tls) as (here, server, others):
        everyone = [server, *others]
        here.completed(here.submit(model(4 * arrays, arrays), nodes=nodes, rounds=2), 600)
        initial, before = model(size, arrays), cpu_seconds(everyone)
        with Peak(everyone, 0.02) as peak:
            run = here.submit(initial, nodes=nodes, rounds=rounds)
            view = here.completed(run, 3600)
        reports = view.reports[1:] or view.reports  # the first round brings the model to the disks
        seconds = [sum(report["seconds"].values()) for report in reports]
        return Taken(
            seconds,
            (cpu_seconds(everyone) - before) / rounds,
            peak.growth(server),
            max(peak.growth(other) for other in others),
            peak.together - peak.idle_together,
            {k: median(r["seconds"].get(k, 0) for r in reports) for k in reports[0]["seconds"]},
        )


def raw(size: int, nodes: int, mode: str) -> float:
    command = [sys.executable, str(HERE / "_raw_sockets.py"), str(size), str(nodes), mode]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


def tiny(*, rounds: int) -> list[Figure]:
    figures = []
    for mode, bound in zip(MODES, (50, 80)):
        taken = train(36, 1, 2, rounds, tls=mode == "tls")
        figures += [
            at_most(f"9 floats, 2 nodes, {mode}: a round, median", 1e3 * median(taken.rounds), "ms", bound),
            at_most(f"9 floats, 2 nodes, {mode}: a round, p99", 1e3 * quantiles(taken.rounds, n=100)[98], "ms", 250),
        ]
    return figures


def large(size: int, arrays: int, nodes: int, rounds: int) -> list[Figure]:
    figures = []
    for mode in MODES:
        bare, taken = raw(size, nodes, mode), train(size, arrays, nodes, rounds, tls=mode == "tls")
        label, seconds = f"{size // MB} MB in {arrays} arrays, {nodes} nodes, {mode}", median(taken.rounds)
        print(label, [round(s, 2) for s in taken.rounds], taken.laps, "raw", bare, flush=True)
        figures += [
            Figure(f"{label}: a round", seconds, "s"),
            Figure(f"{label}: a round, all processes", taken.cpu, "CPU s"),
            at_least(f"{label}: share of bare sockets", 2 * bare / seconds, "x", 0.5),
            at_most(f"{label}: server above idle", taken.server / MB, "MB", 120),
            Figure(f"{label}: node above idle, without its handler", taken.node / MB, "MB"),
            Figure(f"{label}: all processes above idle", taken.together / MB, "MB"),
        ]
    return figures


def show(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    for name, value, unit, target, met in figures:
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{name:<{width}}  {value:>9,.4g} {unit:<8} {target or '':>8}  {mark}")


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    figures = tiny(rounds=40 if quick else 200)
    show(figures)
    figures += large(100 * MB, 148, 2, 4)
    show(figures)
    result = HERE / "results" / "deploy.json"
    result.parent.mkdir(exist_ok=True)
    result.write_text(
        json.dumps({"name": "deploy", "figures": [figure._asdict() for figure in figures]}, indent=1) + "\n"
    )
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
