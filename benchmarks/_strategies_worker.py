"""One strategy's part in one round, from replies in memory to the next model, in a process of its own.

    PYTHON _strategies_worker.py SIDE STRATEGY COUNT         prints {"wall": s, "cpu": s, "extra": bytes}
    PYTHON _strategies_worker.py SIDE STRATEGY COUNT FOLDER  prints {"peak": bytes, "files": s}

SIDE is ``umbel`` or ``flower``. Each of COUNT nodes has sent a model of 46.8 MB. The replies are there before;
``extra`` is how far memory rises at the peak of the first round, beyond the records that are the result: the next
model, and what the server optimizer keeps. The seconds are of the second round, which finds the memory of the first.

With a FOLDER, which ``write`` filled, the replies are there in files, and each side takes them as its server does:
Umbel maps them, and has its results in files too; Flower has them in memory. ``peak`` is how far the memory of the
process rises from there to the next model, all of it but pages of files, which the system may take back once they are
written: for Umbel these hold replies, model and state. ``files`` are the seconds of the same, in a second round.
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
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # what its messages are made from
    ways: dict[str, Callable[[], Any]] = {
        "fedavg": made.FedAvg,
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
    }
    chosen = ways[name]()

    class Grid:
        """As much of Flower's grid as choosing nodes takes."""

        def get_node_ids(self) -> list[int]:
            return list(range(1, len(replies) + 1))

    def record(reply: Reply) -> Any:
        arrays: Mapping[str, Any] = np.load(reply.with_suffix(".npz")) if isinstance(reply, Path) else reply
        return ArrayRecord({name: Array(array) for name, array in arrays.items()})

    def begin() -> Callable[[], Any]:
        answers = []
        asked = chosen.configure_train(1, record(current), ConfigRecord({}), Grid())
        for message in sorted(asked, key=lambda each: each.metadata.dst_node_id):
            node = message.metadata.dst_node_id - 1
            content = RecordDict({"arrays": record(replies[node]), "metrics": MetricRecord(metrics(node))})
            answers.append(Message(content, reply_to=message))
        return lambda: chosen.aggregate_train(1, answers)

    return begin


def cohort(workload: str, count: int) -> tuple[Arrays, list[Arrays]]:
    """A model and so many others like it, of floats alone: Flower's QFedAvg takes no others."""
    made = models(workload, count + 1)
    current, *replies = [{name: array for name, array in each.items() if array.dtype.kind == "f"} for each in made]
    return current, replies


def write(folder: Path, count: int) -> None:
    """Write the replies of a cohort, and the same for whoever reads NumPy's archives."""
    from umbel.records import ParametersRecord, save

    _, replies = cohort("resnet", count)
    for node, arrays in enumerate(replies):
        path = folder / f"{node:03}"
        save(ParametersRecord.from_numpy(arrays, copy=False), path)
        np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]  # names of arrays, none an option


def from_files(side: Side, name: str, files: Sequence[Path]) -> dict[str, float]:
    current, _ = cohort("resnet", 0)

    def play() -> Any:
        if side is flower:
            return side(name, current, files)()()
        from umbel.records import scratch

        with scratch(files[0].parent):
            return side(name, current, files)()()

    return {"peak": anonymous(play), "files": timed(play)[0]}


def main(side: str, name: str, count: int, folder: str = "") -> None:
    sides: dict[str, Side] = {"umbel": umbel, "flower": flower}
    sides[side](name, *cohort("simulated", count))()()  # what a first call loads is not the model's
    if folder:
        print(json.dumps(from_files(sides[side], name, [Path(folder) / f"{node:03}" for node in range(count)])))
        return
    current, replies = cohort("resnet", count)
    begin = sides[side](name, current, replies)
    kept = (1 + KEPT.get(name, 0)) * sum(array.nbytes for array in current.values())
    more = extra(begin()) - kept
    wall, cpu = timed(begin())
    print(json.dumps({"wall": wall, "cpu": cpu, "extra": more}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
