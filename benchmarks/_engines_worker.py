"""One run over one engine in a process of its own; prints what it took as JSON.

    python _engines_worker.py WORK ENGINE WORKERS ROUNDS

WORK is ``adding-N`` (N nodes a round, a model of 1 MB, clients that do nothing), ``digits`` or ``year``
(virtual clock only). The first round, in which workers start, is left out. CPU seconds are those of the whole tree of
processes. ENGINE is ``local``, ``processes``, ``ray`` or ``virtual``.
"""

# ruff: noqa: PLC0415 - each work imports what it needs

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import _engine_apps
import numpy as np
from _simulate_worker import new_model

from umbel import simulate
from umbel.engines import Population, VirtualGrid, drawn
from umbel.records import ParametersRecord
from umbel.rounds import RoundCompleted, UpdateAccepted, begin, train
from umbel.strategy import fedbuff, fixed, strategy

DEVICES, AT_ONCE, BUFFER = 100_000, 100, 10
DAY = 86_400.0

Taken = dict[str, float]


def tree_cpu() -> float:
    """Return the CPU seconds of this process and of all that it started and that are alive."""
    ticks, parents = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended in between
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    ours, found = {int(Path("/proc/self").readlink().name)}, 0
    while len(ours) > found:
        found = len(ours)
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    return sum(ticks[pid] for pid in ours) / 100


def peak_mebibytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(app: Any, model: Any, select: int, nodes: int, rounds: int, **engine: Any) -> Taken:
    marks: list[tuple[float, float]] = []

    def mark(event: object) -> None:
        if isinstance(event, RoundCompleted) and len(marks) in (0, rounds):
            marks.append((time.perf_counter(), tree_cpu()))
        elif isinstance(event, RoundCompleted):
            marks.append((0.0, 0.0))

    simulate(app, strategy(select=fixed(select)), model, nodes=nodes, rounds=rounds + 1, on_event=mark, **engine)
    (began, before), (ended, after) = marks[0], marks[-1]
    return {"seconds": ended - began, "cpu": after - before, "peak": peak_mebibytes()}


def adding(nodes: int, rounds: int, **engine: Any) -> Taken:
    return run(_engine_apps.adding, new_model(), nodes, nodes, rounds, **engine)


def digits(rounds: int, **engine: Any) -> Taken:
    import _digits_app

    from umbel.interop.torch import to_record

    model = to_record(_digits_app.new_network().state_dict())
    return run(_digits_app.app, model, _digits_app.NODES, _digits_app.NODES, rounds, **engine)


def year(**_: Any) -> Taken:
    """A year of FedBuff, with a model that does nothing: so many phones at once, a new model of every ten updates."""
    phones = drawn(seconds=1_800, online=0.3, dropout=0.05)
    grid = VirtualGrid(_engine_apps.echoing, Population(DEVICES), devices=phones)
    plan = fedbuff(concurrency=AT_ONCE, buffer=BUFFER)
    state = begin(plan, ParametersRecord.from_numpy({"w": np.zeros(10, np.float32)}))
    began, answers, models = time.process_time(), 0, 0
    with closing(grid):
        for event in train(grid, plan, state, rounds=1_000_000):
            answers += isinstance(event, UpdateAccepted)
            models += isinstance(event, RoundCompleted)
            if grid.now > 365 * DAY:
                break
    cpu = time.process_time() - began
    return {"seconds": cpu, "cpu": cpu, "peak": peak_mebibytes(), "updates": float(answers), "models": float(models)}


def main(work: str, engine: str, workers: int, rounds: int) -> None:
    options: dict[str, Any] = {"engine": engine, "workers": workers}
    if engine == "local":
        options = {"engine": engine}
    elif engine == "virtual":
        options = {"engine": partial(VirtualGrid, devices=drawn())}
    works: dict[str, Callable[..., Taken]] = {"digits": digits, "year": year}
    name, _, nodes = work.partition("-")
    if name == "adding":
        works[work] = partial(adding, int(nodes))
    print(json.dumps(works[work](rounds=rounds, **options)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
