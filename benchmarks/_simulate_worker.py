"""One simulation in a process of its own; prints what it took as JSON.

    python _simulate_worker.py WAY NODES ROUNDS

Clients do nothing: they return the model plus a constant, 1 MB of float32 in 10 arrays, and a number of examples by
which the server weights it. The ways are ``loop`` (the bare NumPy loop: receive, add a constant, weighted mean),
``umbel``, ``umbel-copy`` (the client's reply is a snapshot, which is the default, instead of a view), ``population``
(100 of NODES virtual nodes a round), and ``flower``, run by the Python of that peer.
"""

# ruff: noqa: PLC0415 - each way imports what its environment has

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = 10
SHAPE = (250, 100)
STEP = np.float32(0.01)
SAMPLED = 100

Model = dict[str, Any]


def new_model() -> Model:
    rng = np.random.default_rng(0)
    return {f"layer{place}": rng.standard_normal(SHAPE).astype(np.float32) for place in range(ARRAYS)}


def keep_freed_memory() -> None:
    """Spare the bare loop the page faults of memory that glibc gives back between two clients; it is the rival."""
    np.empty(31 << 20, np.uint8)


def train(arrays: Model) -> Model:
    return {name: array + STEP for name, array in arrays.items()}


def loop(nodes: int, rounds: int) -> None:
    keep_freed_memory()
    model = new_model()
    for _ in range(rounds):
        total, weights = {name: np.zeros_like(array) for name, array in model.items()}, 0
        for node in range(nodes):
            weight = node + 1
            for name, array in train(model).items():
                total[name] += np.float32(weight) * array
            weights += weight
        model = {name: array / np.float32(weights) for name, array in total.items()}


def umbel(nodes: int, rounds: int, *, population: int | None = None, copy: bool = False) -> None:
    from umbel import simulate
    from umbel.app import ClientApp
    from umbel.records import MetricsRecord, ParametersRecord, RecordSet
    from umbel.strategy import fixed, strategy

    app = ClientApp()

    @app.train()
    def handle(message: Any, context: Any) -> Any:
        arrays = train(message.content.parameters_records["model"].to_numpy(copy=False))
        record = ParametersRecord.from_numpy(arrays, copy=copy)
        metrics = MetricsRecord({"num-examples": context.node_id})
        return message.create_reply(RecordSet({"model": record}, {"metrics": metrics}))

    simulate(app, strategy(select=fixed(nodes)), new_model(), nodes=population or nodes, rounds=rounds)


def flower(nodes: int, rounds: int) -> float:
    """Return the seconds of the rounds after the first, which waits for nodes to join and for Ray to start."""
    import _flower_simulated

    def train_one(arrays: list[Any], client: int, _: int) -> tuple[list[Any], int]:
        return [array + STEP for array in arrays], 1 + client % 1000

    return _flower_simulated.run(train_one, list(new_model().values()), nodes, nodes, rounds).seconds


def peak_mebibytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


WAYS: dict[str, Callable[[int, int], float | None]] = {
    "loop": loop,
    "umbel": umbel,
    "umbel-copy": lambda nodes, rounds: umbel(nodes, rounds, copy=True),
    "population": lambda nodes, rounds: umbel(SAMPLED, rounds, population=nodes),
    "flower": flower,
}


def main(way: str, nodes: int, rounds: int) -> None:
    run = WAYS[way]
    if way != "flower":  # which starts its own processes, and whose first round is left out instead
        run(SAMPLED, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    seconds = run(nodes, rounds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    taken = {"seconds": wall if seconds is None else seconds, "cpu": cpu, "peak": peak_mebibytes()}
    print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
