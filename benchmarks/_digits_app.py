"""A convolutional network on the digits of scikit-learn, dealt out to 100 nodes; one thread a process."""

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from umbel.app import ClientApp
from umbel.interop.torch import to_record, to_state_dict
from umbel.records import MetricsRecord, RecordSet

NODES, EPOCHS, BATCH = 100, 5, 8

torch.set_num_threads(1)
_images, _labels = load_digits(return_X_y=True)
IMAGES = torch.tensor(_images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
LABELS = torch.tensor(_labels)

app = ClientApp()


def new_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


_network = new_network()


@app.train()
def _train(message: Any, context: Any) -> Any:
    _network.load_state_dict(to_state_dict(message.content.parameters_records["model"]))
    rows = torch.from_numpy(np.arange(context.node_config["partition-id"], len(LABELS), NODES))
    generator = torch.Generator().manual_seed(context.seed % 2**32)
    optimizer = torch.optim.SGD(_network.parameters(), lr=0.1)
    for _ in range(EPOCHS):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(_network(IMAGES[batch]), LABELS[batch]).backward()
            optimizer.step()
    metrics = MetricsRecord({"num-examples": len(rows)})
    return message.create_reply(RecordSet({"model": to_record(_network.state_dict())}, {"metrics": metrics}))
