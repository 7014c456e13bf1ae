"""Replies made to break the run that reads them: refused with the reason, and the round goes on."""

from collections.abc import Callable

import numpy as np
import pytest

import umbel
from umbel.app import ClientApp
from umbel.context import Context
from umbel.history import History
from umbel.message import Message
from umbel.records import ConfigsRecord, MetricsRecord, ParametersRecord, RecordSet
from umbel.strategy import fedavg

SURROGATE = "\ud800"


def good() -> RecordSet:
    model = ParametersRecord.from_numpy({"w": np.ones(2)})
    return RecordSet({"model": model}, {"metrics": MetricsRecord({"num-examples": 3, "loss": 1.0})})


def federation(spoil: Callable[[RecordSet], object]) -> History:
    """Three nodes, one of which spoils its reply."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = good()
        if context.node_name == "node-1":
            spoil(content)
        return message.create_reply(content)

    return umbel.simulate(app, fedavg(), {"w": np.zeros(2)}, nodes=3, rounds=1)


def set_metric(name: str) -> Callable[[RecordSet], object]:
    return lambda content: content.metrics_records["metrics"].update({name: 1.0})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (set_metric(SURROGATE), "lone surrogate"),
        (set_metric(""), "metric names"),
        (set_metric("loss\n"), "metric names"),
        (set_metric("\x1b[31mloss"), "metric names"),
        (set_metric("\u202eloss"), "metric names"),
        (set_metric("a" * 257), "metric names"),
        (lambda content: content.metrics_records.update({"a\0b": MetricsRecord()}), "metric names"),
        (lambda content: content.metrics_records.update({SURROGATE: MetricsRecord()}), "lone surrogate"),
        (lambda content: content.configs_records.update({"c": ConfigsRecord({"k": SURROGATE})}), "lone surrogate"),
        (
            lambda content: content.parameters_records["model"].update(
                ParametersRecord.from_numpy({SURROGATE: np.ones(1)})
            ),
            "lone surrogate",
        ),
    ],
)
def test_names_that_cannot_be_shown_cost_one_node_its_update(spoil, reason) -> None:
    history = federation(spoil)
    assert history.rounds[0].accepted == 2
    ((node, why),) = history.rounds[0].refused
    assert node == "node-1"
    assert reason in why
    assert why.isprintable()
    assert History.from_json(history.to_json()) == history


def test_a_name_of_another_alphabet_is_fine() -> None:
    assert "train.Verlust-ä 損失" in federation(set_metric("Verlust-ä 損失")).metrics


def test_a_reason_of_bytes_that_are_no_text_is_kept_readable() -> None:
    def fail(content: RecordSet) -> None:
        raise FileNotFoundError(2, "no such file", "\udc80.csv")

    ((node, why),) = federation(fail).rounds[0].lost
    assert node == "node-1"
    assert why.isprintable()
