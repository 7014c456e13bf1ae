"""Histories: columns, JSON that loses nothing but the model, and errors that say what came."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from umbel.errors import CheckpointError, MissingExtra, RecordError
from umbel.history import History, RoundReport
from umbel.records import ParametersRecord, digest

MODEL = ParametersRecord.from_numpy({"w": np.ones(2)})


def report(number=1, **metrics):
    return RoundReport(
        round=number,
        cohort=3,
        accepted=1,
        refused=(("b", "not finite\u2028: \N{SNOWMAN}"),),
        lost=(("c", "ValueError: no"),),
        metrics=metrics,
        bytes={"sent": 10, "received": 20},
        seconds={"train": 0.5},
        digest=digest(MODEL),
    )


def history():
    reports = (
        report(1, **{"train.loss": 0.5}),
        report(2, **{"train.loss": 0.25, "evaluate.confusion": [1, 2.5], "central.auc": None}),
    )
    return History(reports, digest(MODEL), MODEL)


def test_metrics_are_columns_of_one_length():
    assert history().metrics.to_dict() == {
        "round": [1, 2],
        "train.loss": [0.5, 0.25],
        "evaluate.confusion": [None, [1, 2.5]],
        "central.auc": [None, None],
    }


def test_columns_are_a_mapping_of_copies():
    columns = history().metrics
    assert list(columns) == ["round", "train.loss", "evaluate.confusion", "central.auc"]
    columns["train.loss"].append(1.0)
    columns.to_dict()["round"].append(3)
    assert columns["train.loss"] == [0.5, 0.25]
    assert columns["round"] == [1, 2]
    assert len(columns) == 4
    assert "train.loss" in repr(columns)


def test_to_pandas_is_indexed_by_round():
    pytest.importorskip("pandas", reason="pandas is optional")
    frame = history().metrics.to_pandas()
    assert list(frame.index) == [1, 2]
    assert frame["train.loss"].tolist() == [0.5, 0.25]


def test_to_pandas_without_pandas_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pip install pandas.*to_dict"):
        history().metrics.to_pandas()


def test_json_keeps_everything_but_the_model():
    read = History.from_json(history().to_json())
    assert read == history()
    assert type(read.rounds[1].metrics["evaluate.confusion"][0]) is int
    with pytest.raises(RecordError, match=rf"{digest(MODEL)}.*umbel\.records\.load"):
        _ = read.model
    assert History.from_json(history().to_json(), MODEL).model is MODEL


@pytest.mark.parametrize(
    ("model", "came"),
    [
        (ParametersRecord.from_numpy({"w": np.zeros(2)}), "blake3:"),
        (ParametersRecord.from_numpy({"z": np.ones(2)}), "blake3:"),
        ({"w": np.ones(2)}, "a dict: give the record"),
    ],
)
def test_a_model_of_another_history_is_refused(model, came):
    with pytest.raises(
        CheckpointError, match=f"expected the model {digest(MODEL)}, .* got {came}.* - at History.model"
    ):
        History.from_json(history().to_json(), model)


def test_json_keeps_the_report_of_the_statistics():
    first = dataclasses.replace(history(), statistics=report(0))
    assert History.from_json(first.to_json()) == first
    assert first != history()


def test_json_is_strict_and_readable():
    text = history().to_json()
    assert json.loads(text, parse_constant=pytest.fail)["umbel-history"] == 1
    assert '\n      "round": 2,' in text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"umbel-history":1,"digest":"","rounds":[{}]}', '{"umbel-history":"1"}']
)
def test_what_is_no_history_is_refused(text):
    with pytest.raises(CheckpointError, match=r"expected the JSON that to_json.* - at History$"):
        History.from_json(text)


def test_another_form_is_refused_by_number():
    with pytest.raises(CheckpointError, match="got form 2"):
        History.from_json('{"umbel-history":2,"digest":"","rounds":[]}')


def test_a_report_is_one_line():
    line = report(1, loss=1.0).to_json()
    assert "\n" not in line
    assert RoundReport.from_json(line) == report(1, loss=1.0)
