"""The app that a grid under test runs on its nodes: one message type for each thing that a handler may do."""

import sys
from typing import Any, NoReturn

import numpy as np

from umbel.app import ClientApp
from umbel.context import Context
from umbel.message import Message
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet

grid_app = ClientApp()


@grid_app.train()
def _train(message: Message, context: Context) -> Message:
    model = message.content.parameters_records["model"].to_numpy()
    rng = np.random.default_rng(context.seed)
    for name, array in model.items():
        model[name] = array + rng.standard_normal(array.shape).astype(array.dtype)
    seen = _count(context)
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 50, "seen": seen})
    return message.create_reply(RecordSet({"model": ParametersRecord.from_numpy(model)}, {"metrics": metrics}))


@grid_app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    model = message.content.parameters_records["model"].to_numpy(copy=False)
    mean = float(np.mean([array.mean(dtype=np.float64) for array in model.values()]))
    metrics = MetricsRecord({"num-examples": 1 + context.seed % 50, "mean": mean})
    return message.create_reply(RecordSet(metrics_records={"metrics": metrics}))


@grid_app.on("test.echo")
def _echo(message: Message, _context: Context) -> Message:
    return message.create_reply(message.content)


@grid_app.on("test.context")
def _tell(message: Message, context: Context) -> Message:
    told = ConfigsRecord(
        {"name": context.node_name, "id": context.node_id, "run": context.run_id, "seed": context.seed}
    )
    return message.create_reply(RecordSet(configs_records={"context": told}))


@grid_app.on("test.spoil")
def _spoil(message: Message, _context: Context) -> Message:
    """Do to the content whatever can be done to it, and say what it was."""
    found = message.content.copy()
    for record in message.content.configs_records.values():
        record["spoilt"] = True
    message.content.parameters_records.clear()
    return message.create_reply(found)


@grid_app.on("test.write")
def _write(message: Message, _context: Context) -> Message:
    for array in message.content.parameters_records["model"].to_numpy(copy=False).values():
        array[...] = 0
    return message.create_reply(message.content)


@grid_app.on("test.count")
def _counted(message: Message, context: Context) -> Message:
    return message.create_reply(RecordSet(metrics_records={"state": MetricsRecord({"seen": _count(context)})}))


@grid_app.on("test.count-and-raise")
def _count_and_raise(_message: Message, context: Context) -> NoReturn:
    _count(context)
    raise ValueError("the disk of this node is full")


@grid_app.on("test.exit")
def _exit(_message: Message, _context: Context) -> NoReturn:
    sys.exit("no more of this")


@grid_app.on("test.nothing")
def _nothing(_message: Message, _context: Context) -> Any:
    return None


@grid_app.on("test.bad-state")
def _bad_state(message: Message, context: Context) -> Message:
    context.state.parameters_records["no\nname"] = ParametersRecord.from_numpy([np.zeros(1)])
    return message.create_reply(RecordSet())


def _count(context: Context) -> int:
    """Count this message in the node's state, beside an array that is large enough to go ways of its own."""
    counts = context.state.metrics_records.setdefault("counts", MetricsRecord({"seen": 0}))
    seen = counts["seen"] = int(counts["seen"]) + 1  # type: ignore[arg-type]
    context.state.parameters_records["large"] = ParametersRecord.from_numpy([np.full(10_000, float(seen))])
    return seen
