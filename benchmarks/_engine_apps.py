"""Apps that engines are measured with, in a module of their own, because workers import them."""

import time
from pathlib import Path
from typing import Any

import _flute
import numpy as np

from umbel.app import ClientApp
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

STEP = np.float32(0.01)

adding, flute, echoing, sleeping = ClientApp(), ClientApp(), ClientApp(), ClientApp()


def _reply(message: Any, arrays: Any, weight: int) -> Any:
    record = ParametersRecord.from_numpy(arrays, copy=False)
    return message.create_reply(RecordSet({"model": record}, {"metrics": MetricsRecord({"num-examples": weight})}))


@adding.train()
def _add(message: Any, context: Any) -> Any:
    """A client that does nothing: the model plus a constant."""
    arrays = message.content.parameters_records["model"].to_numpy(copy=False)
    return _reply(message, {name: array + STEP for name, array in arrays.items()}, context.node_id)


@flute.train()
def _train(message: Any, context: Any) -> Any:
    model = message.content.parameters_records["model"].to_numpy()
    trained = _flute.train(model, context.node_config["partition-id"], context.seed)
    return _reply(message, trained, _flute.SAMPLES)


@echoing.train()
def _echo(message: Any, _context: Any) -> Any:
    metrics = MetricsRecord({"num-examples": 1})
    return message.create_reply(RecordSet(message.content.parameters_records, {"metrics": metrics}))


@sleeping.train()
def _sleep(_message: Any, context: Any) -> Any:
    Path(f"asleep-{context.node_name}").touch()
    time.sleep(600)
