"""Flower's simulation (Ray) with a training of one's own. Run by the Python of that peer."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flwr.app as fa
from _processes import cpu_seconds
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

# An actor for each core; by default one takes two.
RESOURCES = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}

Arrays = list[Any]


class Run(NamedTuple):
    """What the rounds after the first took: that one waits for nodes to join and for Ray to start."""

    seconds: float
    cpu: float  # of all processes
    arrays: Arrays
    trained: list[tuple[int, int]]  # each client of each round, the first included, and the number of the round


class Watched(NamedTuple):
    clients: list[list[int]]  # of each round
    marks: dict[int, tuple[float, float, Arrays]]

    def mark(self, number: int, arrays: Any) -> None:
        self.marks[number] = time.perf_counter(), cpu_seconds([os.getpid()]), arrays.to_numpy_ndarrays()

    def gather(self, replies: Any, _: str) -> fa.MetricRecord:
        self.clients.append([int(reply["metrics"]["client"]) for reply in replies])
        return fa.MetricRecord()


def run(
    train: Callable[[Arrays, int, int], tuple[Arrays, int]], model: Arrays, nodes: int, sampled: int, n: int
) -> Run:
    """Run n rounds and one before. ``train(arrays, client, round)`` returns arrays and a number of examples."""
    client, server, watched = ClientApp(), ServerApp(), Watched([], {})

    @client.train()
    def handle(message: Any, context: Any) -> Any:
        number, place = message.content["config"]["server-round"], context.node_config["partition-id"]
        arrays, examples = train(message.content["arrays"].to_numpy_ndarrays(), place, number)
        metrics = fa.MetricRecord({"num-examples": examples, "client": place})
        return fa.Message(fa.RecordDict({"arrays": fa.ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        del context
        cohort = {"min_train_nodes": sampled, "min_available_nodes": nodes, "train_metrics_aggr_fn": watched.gather}
        strategy = FedAvg(fraction_train=sampled / nodes, fraction_evaluate=0.0, **cohort)
        strategy.start(grid=grid, initial_arrays=fa.ArrayRecord(model), num_rounds=n + 1, evaluate_fn=watched.mark)

    run_simulation(server, client, nodes, backend_config=RESOURCES)
    (began, before, _), (ended, after, arrays) = watched.marks[1], watched.marks[n + 1]
    trained = [(each, number) for number, cohort in enumerate(watched.clients, start=1) for each in cohort]
    return Run(ended - began, after - before, arrays, trained)
