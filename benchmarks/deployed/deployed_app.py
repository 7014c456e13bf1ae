"""The app of `bench_deploy`: a node that does nothing but send back a model of other bytes.

Every reply differs from every other one, because what the server has already does not travel again.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.app import ClientApp
from umbel.context import Context
from umbel.message import Message
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

app = ClientApp()
_model: dict[str, NDArray[Any]] = {}


@app.train()
def train(message: Message, context: Context) -> Message:
    step = np.float32(context.seed % 1_000 + 1) * np.float32(1e-6)
    arrays = message.content.parameters_records["model"].to_numpy(copy=False)
    if {name: array.shape for name, array in arrays.items()} != {name: room.shape for name, room in _model.items()}:
        _model.clear()
        _model.update({name: np.empty_like(array) for name, array in arrays.items()})
    for name, array in arrays.items():  # the handler's own model, in memory that is used again
        np.add(array, step, out=_model[name])
    metrics = MetricsRecord({"num-examples": 1})
    return message.create_reply(
        RecordSet({"model": ParametersRecord.from_numpy(_model, copy=False)}, {"metrics": metrics})
    )
