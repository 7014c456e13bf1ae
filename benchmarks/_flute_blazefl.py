"""The benchmark of FLUTE in blazefl: its own FedAvg, one client after the other, with the training of `_flute`.

    python _flute_blazefl.py ROUNDS

Run by the Python of that peer. With its trainer of several threads it takes half as much CPU time again.
"""

import sys
from types import SimpleNamespace

import _flute
import torch
from blazefl.contrib import FedAvgBaseClientTrainer, FedAvgBaseServerHandler
from blazefl.contrib.fedavg import FedAvgUplinkPackage

WEIGHTS = _flute.FEATURES * _flute.CLASSES


def network(_: str) -> torch.nn.Module:
    """A container of the arrays of the model: its server and its trainer copy parameters in and out of a module."""
    module = torch.nn.Module()
    for name, array in _flute.new_model().items():
        module.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array), requires_grad=False))
    return module


class Trainer(FedAvgBaseClientTrainer):
    number = 0

    def train(self, model_parameters: torch.Tensor, train_loader: int, cid: int) -> FedAvgUplinkPackage:
        del train_loader
        flat = model_parameters.clone()
        weight, bias = flat[:WEIGHTS].numpy(), flat[WEIGHTS:].numpy()
        _flute.train({"weight": weight.reshape(_flute.FEATURES, -1), "bias": bias}, cid, self.number)
        return FedAvgUplinkPackage(cid, flat, _flute.SAMPLES)


def run(rounds: int) -> _flute.Model:
    select = SimpleNamespace(select_model=network)
    data = SimpleNamespace(get_dataloader=lambda **_: None)
    clients, batch = _flute.CLIENTS, _flute.BATCH
    server = FedAvgBaseServerHandler(select, "", data, rounds, clients, _flute.SAMPLED / clients, "cpu", batch, 0)
    trainer = Trainer(select, "", data, "cpu", clients, 1, batch, float(_flute.RATE), 0)
    while not server.if_stop():
        trainer.number = server.round
        trainer.local_process(server.downlink_package(), server.sample_clients())
        for package in trainer.uplink_package():
            server.load(package)
    return {name: tensor.numpy() for name, tensor in server.model.state_dict().items()}


if __name__ == "__main__":
    _flute.measure(run, int(sys.argv[1]))
