"""One simulation in a process of its own; prints what it took as JSON.

    python _simulate_worker.py WAY NODES ROUNDS

Clients do nothing: they return the model plus a constant, 1 MB of float32 in 10 arrays, and a number of examples by
which the server weights it. The ways are ``loop`` (the bare NumPy loop: receive, add a constant, weighted mean),
``umbel``, ``umbel-copy`` (the client's reply is a snapshot, which is the default, instead of a view), ``population``
(100 of NODES virtual nodes a round), and ``flower``, run by the Python of that peer. ``flute``, ``flute-loop`` and
``flute-flower`` are another benchmark, see ``_flute.py``; NODES is then what it says.
"""

# ruff: noqa: PLC0415 - each way imports what its environment has

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _flute
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


def flute(_: int, rounds: int) -> None:
    from _engine_apps import flute as app

    from umbel import simulate
    from umbel.strategy import fixed, strategy

    plan = strategy(select=fixed(_flute.SAMPLED))
    simulate(app, plan, _flute.new_model(), nodes=_flute.CLIENTS, rounds=rounds)


def flower(nodes: int, rounds: int) -> float:
    """Return the seconds of the rounds after the first, which waits for nodes to join and for Ray to start."""

    def train_one(arrays: list[Any], _: int, __: int) -> list[Any]:
        return [array + STEP for array in arrays]

    return flower_run(train_one, new_model(), nodes, nodes, rounds)


def flute_flower(_: int, rounds: int) -> float:
    names = list(_flute.new_model())

    def train_one(arrays: list[Any], client: int, number: int) -> list[Any]:
        model = dict(zip(names, arrays, strict=True))
        return list(_flute.train(model, client % _flute.CLIENTS, number).values())

    return flower_run(train_one, _flute.new_model(), _flute.CLIENTS, _flute.SAMPLED, rounds)


def flower_run(train_one: Callable[..., list[Any]], model: Model, nodes: int, sampled: int, rounds: int) -> float:
    import flwr.app as fa
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server, marks = ClientApp(), ServerApp(), {}

    @client.train()
    def handle(message: Any, context: Any) -> Any:
        number = message.content["config"]["server-round"]
        arrays = train_one(message.content["arrays"].to_numpy_ndarrays(), context.node_config["partition-id"], number)
        metrics = fa.MetricRecord({"num-examples": 1 + context.node_id % 1000})
        return fa.Message(fa.RecordDict({"arrays": fa.ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        del context
        cohort = {"min_train_nodes": sampled, "min_available_nodes": nodes}
        FedAvg(fraction_train=sampled / nodes, fraction_evaluate=0.0, **cohort).start(
            grid=grid,
            initial_arrays=fa.ArrayRecord(list(model.values())),
            num_rounds=rounds + 1,
            evaluate_fn=lambda number, _: marks.__setitem__(number, time.perf_counter()),
        )

    run_simulation(server, client, nodes)
    return marks[rounds + 1] - marks[1]


def peak_mebibytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


WAYS: dict[str, Callable[[int, int], float | None]] = {
    "loop": loop,
    "umbel": umbel,
    "umbel-copy": lambda nodes, rounds: umbel(nodes, rounds, copy=True),
    "population": lambda nodes, rounds: umbel(SAMPLED, rounds, population=nodes),
    "flower": flower,
    "flute": flute,
    "flute-loop": lambda _, rounds: _flute.loop(rounds),
    "flute-flower": flute_flower,
}


def main(way: str, nodes: int, rounds: int) -> None:
    run = WAYS[way]
    if way.startswith("flute") and way != "flute-flower":
        _flute.load()
    if "flower" not in way:  # which starts its own processes, and whose first round is left out instead
        run(SAMPLED, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    seconds = run(nodes, rounds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    taken = {"seconds": wall if seconds is None else seconds, "cpu": cpu, "peak": peak_mebibytes()}
    print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
