"""One strategy's part in one round, from replies in memory to the next model, in a process of its own.

    PYTHON _strategies_worker.py SIDE STRATEGY COUNT FOLDER memory  prints {"wall": s, "cpu": s, "extra": bytes}
    PYTHON _strategies_worker.py SIDE STRATEGY COUNT FOLDER files   prints {"peak": bytes, "files": s}

SIDE is ``umbel`` or ``flower``. Each of COUNT nodes has sent a model of 46.8 MB. The replies are there before;
``extra`` is how far memory rises at the peak of the first round, beyond the records that are the result: the next
model, and what the server optimizer keeps. The seconds are of the second round, which finds the memory of the first.

With ``files`` the replies are there in files of FOLDER, which ``write`` filled, and each side takes them as its server
does: Umbel maps them, and has its results in files too; Flower has them in memory. ``peak`` is how far the memory of
the process rises from there to the next model, all of it but pages of files, which the system may take back once they
are written: for Umbel these hold replies, model and state. ``files`` are the seconds of the same, in a second round.

Of trees, FOLDER has the model of the round too, and replies that ``_ensembles.py`` grew. There ``extra`` has the next
model in it, because that is longer than the one before.
"""

# ruff: noqa: PLC0415 - each side imports what its environment has

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _aggregate_worker import WEIGHTS, Arrays, K, anonymous, extra, models, timed

BYZANTINE, LOSS = 5, "train_loss"
#: How many records a strategy keeps beside the model: moments of its server optimizer.
KEPT = {"fedavgm": 1, "fedadagrad": 1, "fedadam": 2, "fedyogi": 2}
#: Strategies whose models are trees.
TREES = ("fedxgb_bagging", "fedxgb_cyclic")
#: What Umbel calls the one array of an ensemble, and what Flower does.
ENSEMBLE, NAMELESS = "trees", "0"

#: Makes what plays a round, which Flower's replies do not survive.
Round = Callable[[], Callable[[], Any]]
#: A model, or the file that it is in.
Reply = Arrays | Path
Side = Callable[[str, Arrays, Sequence[Reply]], Round]


def metrics(node: int) -> dict[str, Any]:
    return {"num-examples": WEIGHTS[node % K], LOSS: 0.1 + node / 100}


def umbel(name: str, current: Arrays, replies: Sequence[Reply]) -> Round:
    from umbel import strategy as made
    from umbel.aggregation import Update, aggregate, by_examples, multi_krum
    from umbel.optimizers import Cohort
    from umbel.records import MetricsRecord, ParametersRecord, load

    def record(reply: Reply) -> ParametersRecord:
        if isinstance(reply, Path):
            return load(reply).parameters_records["model"]
        return ParametersRecord.from_numpy(reply, copy=False)

    several = multi_krum(byzantine=BYZANTINE, count=K, weigh=by_examples)
    ways: dict[str, Callable[[], made.Strategy]] = {
        "faulttolerantfedavg": lambda: made.fedavg(policy=made.quorum(0.5)),
        "fedprox": lambda: made.fedprox(mu=0.1),
        "fedtrimmedavg": lambda: made.fedtrimmedavg(share=0.2),
        "krum": lambda: made.krum(byzantine=BYZANTINE),
        "multikrum": lambda: made.fedavg(aggregator=several),
        "bulyan": lambda: made.bulyan(byzantine=BYZANTINE),
        "qfedavg": lambda: made.qfedavg(q=0.2, learning_rate=0.1, loss=LOSS),
    }
    chosen = ways[name]() if name in ways else getattr(made, name)()
    aggregator, optimizer = chosen.aggregator, chosen.optimizer
    model = ParametersRecord.from_numpy(current, copy=False)
    updates = []
    for node, reply in enumerate(replies):
        told = {"metrics": MetricsRecord(metrics(node))}
        updates.append(Update(f"node-{node:03}", aggregator.weigh(told), record(reply), told))
    state = optimizer.init(model)

    def play() -> Any:
        sums = {of: sum(measure(each, model) for each in updates) for of, measure in aggregator.measures.items()}
        mean = aggregate(aggregator, model, updates)
        return optimizer.consume(state, model, mean, Cohort(len(updates), len(updates), sums))

    return lambda: play


def flower(name: str, current: Arrays, replies: Sequence[Reply]) -> Round:
    import logging

    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy as made
    from flwr.supercore.task_identity import TaskIdentity

    logging.disable(logging.CRITICAL)
    if name == "faulttolerantfedavg":
        return older(replies)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # what its messages are made from
    ways: dict[str, Callable[[], Any]] = {
        "fedavg": made.FedAvg,
        "fedprox": lambda: made.FedProx(proximal_mu=0.1),
        "fedavgm": made.FedAvgM,
        "fedadagrad": made.FedAdagrad,
        "fedadam": made.FedAdam,
        "fedyogi": made.FedYogi,
        "fedmedian": made.FedMedian,
        "fedtrimmedavg": lambda: made.FedTrimmedAvg(beta=0.2),
        "krum": lambda: made.Krum(num_malicious_nodes=BYZANTINE),
        "multikrum": lambda: made.MultiKrum(num_malicious_nodes=BYZANTINE, num_nodes_to_select=K),
        "bulyan": lambda: made.Bulyan(num_malicious_nodes=BYZANTINE),
        "qfedavg": lambda: made.QFedAvg(client_learning_rate=0.1, q=0.2),
        "fedxgb_bagging": made.FedXgbBagging,
        "fedxgb_cyclic": made.FedXgbCyclic,
    }
    chosen = ways[name]()

    class Grid:
        """As much of Flower's grid as choosing nodes takes."""

        def get_node_ids(self) -> list[int]:
            return list(range(1, max(2, len(replies)) + 1))  # for fewer it would wait, though it asks one at a time

    def record(reply: Reply) -> Any:
        arrays = numbers(reply)
        return ArrayRecord({NAMELESS if name == ENSEMBLE else name: Array(array) for name, array in arrays.items()})

    def begin() -> Callable[[], Any]:
        answers = []
        asked = chosen.configure_train(1, record(current), ConfigRecord({}), Grid())
        asked = sorted(asked, key=lambda each: each.metadata.dst_node_id)
        for node, (message, reply) in enumerate(zip(asked, replies, strict=True)):
            content = RecordDict({"arrays": record(reply), "metrics": MetricRecord(metrics(node))})
            answers.append(Message(content, reply_to=message))
        return lambda: chosen.aggregate_train(1, answers)

    return begin


def older(replies: Sequence[Reply]) -> Round:
    """The one strategy with a counterpart that is in Flower's older interface alone."""
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.server.strategy import FaultTolerantFedAvg

    chosen = FaultTolerantFedAvg()

    def answer(node: int, reply: Reply) -> Any:
        parameters = ndarrays_to_parameters(list(numbers(reply).values()))
        return FitRes(Status(Code.OK, ""), parameters, metrics(node)["num-examples"], {})

    def begin() -> Callable[[], Any]:
        results: Any = [(None, answer(node, reply)) for node, reply in enumerate(replies)]
        return lambda: chosen.aggregate_fit(1, results, [])

    return begin


def numbers(reply: Reply) -> Mapping[str, Any]:
    return np.load(reply.with_suffix(".npz")) if isinstance(reply, Path) else reply


def cohort(workload: str, count: int) -> tuple[Arrays, list[Arrays]]:
    """A model and so many others like it, of floats alone: Flower's QFedAvg takes no others."""
    made = models(workload, count + 1)
    current, *replies = [{name: array for name, array in each.items() if array.dtype.kind == "f"} for each in made]
    return current, replies


def cohort_of(name: str, folder: Path, count: int) -> tuple[Arrays, list[Arrays]]:
    """A model and the replies that a strategy is given, in memory."""
    return ensembles(folder, "model", *labels(count)) if name in TREES else cohort("resnet", count)


def small(name: str, folder: Path, count: int) -> tuple[Arrays, list[Arrays]]:
    """As little as a strategy does all its work on."""
    return ensembles(folder, "none", *["one"] * min(count, 2)) if name in TREES else cohort("simulated", count)


def ensembles(folder: Path, *names: str) -> tuple[Arrays, list[Arrays]]:
    current, *replies = [dict(np.load(folder / f"{name}.npz")) for name in names]
    return current, replies


def labels(count: int) -> list[str]:
    return [f"{node:03}" for node in range(count)]


def write(folder: Path, replies: Sequence[Arrays]) -> None:
    """Write the replies of a cohort, and the same for whoever reads NumPy's archives."""
    from umbel.records import ParametersRecord, save

    folder.mkdir()
    for label, arrays in zip(labels(len(replies)), replies, strict=True):
        save(ParametersRecord.from_numpy(arrays, copy=False), folder / label)
        np.savez(folder / f"{label}.npz", **arrays)  # type: ignore[arg-type]  # names of arrays, none an option


def from_files(side: Side, name: str, folder: Path, count: int) -> dict[str, float]:
    current, _ = cohort_of(name, folder, 0)
    files = [folder / label for label in labels(count)]

    def play() -> Any:
        if side is flower:
            return side(name, current, files)()()
        from umbel.records import scratch

        with scratch(folder):
            return side(name, current, files)()()

    return {"peak": anonymous(play), "files": timed(play)[0]}


def from_memory(side: Side, name: str, folder: Path, count: int) -> dict[str, float]:
    current, replies = cohort_of(name, folder, count)
    begin = side(name, current, replies)
    kept = 0 if name in TREES else (1 + KEPT.get(name, 0)) * sum(array.nbytes for array in current.values())
    more = extra(begin()) - kept
    wall, cpu = timed(begin())
    return {"wall": wall, "cpu": cpu, "extra": more}


def main(side: str, name: str, count: int, folder: Path, way: str) -> None:
    sides: dict[str, Side] = {"umbel": umbel, "flower": flower}
    ways = {"memory": from_memory, "files": from_files}
    sides[side](name, *small(name, folder, count))()()  # what a first call loads is not the model's
    print(json.dumps(ways[way](sides[side], name, folder, count)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
