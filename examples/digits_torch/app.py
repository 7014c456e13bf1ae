"""Twenty nodes, no two of which see the same mix of digits, train one small convolutional network.

Everything random comes from a seed, and PyTorch uses one thread, so that every run ends with the same bytes.
"""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from umbel.app import ClientApp
from umbel.context import Context
from umbel.history import History
from umbel.interop.torch import to_record, to_state_dict
from umbel.message import Message
from umbel.partition import dirichlet
from umbel.records import MetricsRecord, ParametersRecord, RecordSet

torch.set_num_threads(1)
torch.use_deterministic_algorithms(mode=True)

app = ClientApp()


@cache
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of 8 x 8 pixels between 0 and 1, and the digits they show."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)


@cache
def read_node(node: int, nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return one node's images and digits to train on, and those to test with: every fifth image."""
    images, labels = read_digits()
    own = dirichlet(labels, nodes, alpha=0.5, seed=0, min_size=10)[node]
    own = np.random.default_rng(node).permutation(own)
    test, train = own[::5], np.delete(own, np.s_[::5])
    arrays = images[train], labels[train], images[test], labels[test]
    X, y, X_test, y_test = map(torch.from_numpy, arrays)
    return X, y, X_test, y_test


def own_data(context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return read_node(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 4 * 4, 10)),
    )


def received(message: Message) -> nn.Module:
    """Return the network with the weights that came with ``message``."""
    model = network()
    model.load_state_dict(to_state_dict(message.content.parameters_records["model"]))
    return model


@app.train()
def train(message: Message, context: Context) -> Message:
    X, y, _, _ = own_data(context)
    model, config = received(message), context.run_config
    optimizer = torch.optim.SGD(model.parameters(), lr=float(config["learning-rate"]), momentum=0.9)
    generator = torch.Generator().manual_seed(context.seed)
    losses = []
    for _ in range(int(config["local-epochs"])):
        for rows in torch.randperm(len(y), generator=generator).split(int(config["batch-size"])):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    metrics = MetricsRecord({"num-examples": len(y), "loss": float(np.mean(losses))})
    return message.create_reply(RecordSet({"model": to_record(model.state_dict())}, {"metrics": metrics}))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    _, _, X, y = own_data(context)
    with torch.inference_mode():
        right = (received(message)(X).argmax(dim=1) == y).double().mean().item()
    metrics = MetricsRecord({"num-examples": len(y), "accuracy": right})
    return message.create_reply(RecordSet(metrics_records={"metrics": metrics}))


def initial(_config: dict[str, object]) -> ParametersRecord:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return to_record(network().state_dict())


def report(history: History, _config: dict[str, object]) -> str:
    accuracy = history.metrics["evaluate.accuracy"]
    return (
        f"Accuracy on the images that the nodes kept for testing: {accuracy[0]:.1%} after the first round, "
        f"{accuracy[-1]:.1%} after round {len(accuracy)}."
    )
