"""The benchmark of FLUTE in pfl-research: its own FedAvg over its simulated backend, with the training of `_flute`.

    python _flute_pfl.py ROUNDS

Run by the Python of that peer.
"""

import sys
from typing import Any

import _flute
import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel


class Network(torch.nn.Module):
    """The arrays of the model. pfl asks for a loss, which is not called here, and for metrics, called in round 1."""

    def __init__(self) -> None:
        super().__init__()
        for name, array in _flute.new_model().items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array)))

    def loss(self, *_: Any) -> torch.Tensor:
        raise NotImplementedError

    def metrics(self, *_: Any) -> dict[str, Any]:
        return {}


class Averaging(FederatedAveraging):
    def train_one_user(self, initial_model_state: Any, model: Any, user_dataset: Any, central_context: Any) -> Any:
        arrays = {name: tensor.detach().numpy() for name, tensor in model.variable_map.items()}
        _flute.train(arrays, user_dataset.user_id, central_context.current_central_iteration)
        return model.get_model_difference(initial_model_state), Metrics()


def run(rounds: int) -> _flute.Model:
    network, draw = Network(), np.random.default_rng(0)
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    cohorts = (draw.choice(_flute.CLIENTS, _flute.SAMPLED, replace=False) for _ in range(rounds))
    clients = (int(client) for cohort in cohorts for client in cohort)
    users = FederatedDataset(lambda client: Dataset(_flute.data(client), user_id=client), lambda: next(clients))
    backend = SimulatedBackend(users, users, postprocessors=[WeightByDatapoints()])
    plan = NNAlgorithmParams(rounds, rounds, _flute.SAMPLED, None)
    local = NNTrainHyperParams(
        local_batch_size=_flute.BATCH, local_num_epochs=1, local_learning_rate=float(_flute.RATE)
    )
    Averaging().run(plan, backend, model, local, send_metrics_to_platform=False)
    return {name: tensor.detach().numpy() for name, tensor in network.named_parameters()}


if __name__ == "__main__":
    _flute.measure(run, int(sys.argv[1]))
