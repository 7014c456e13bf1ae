"""XGBoost: ensembles of trees to records and back, and the nodes' halves of the strategies that grow them.

A record of trees has one array, "trees", of uint8: XGBoost's own JSON. Needs ``pip install umbel[xgboost]``, or
``xgboost-cpu``, the same module without its parts for GPUs.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from umbel.errors import AppError, MissingExtra, RecordError
from umbel.records import ParametersRecord

try:
    import xgboost
except ImportError as error:
    raise MissingExtra("umbel.interop.xgboost needs XGBoost: pip install 'umbel[xgboost]'") from error

__all__ = ["first", "grow", "to_booster", "to_record"]

_NAME: Final = "trees"
# What XGBoost puts around a reason: "[12:30:59] /source/file.cc:119: reason\nStack trace:\n  [bt] (0) ...".
_AROUND: Final = re.compile(r"\A\[[\d:]+\] \S+:\d+: |\s*Stack trace:.*\Z", re.DOTALL)


def first(params: Mapping[str, Any], features: int) -> ParametersRecord:
    """Return an ensemble without trees: what a run begins with.

    Args:
        params: those of ``xgboost.train``. They must have ``base_score``, because XGBoost would otherwise take it from
            the data, and trees that were grown from different scores do not add up.
        features: how many features the rows have.

    Raises:
        AppError: without ``base_score``, and for what XGBoost refuses.

    """
    _require_score(params)
    classes = int(params.get("num_class", 0)) or 2
    rows = np.zeros((classes, features))
    data = xgboost.DMatrix(rows, label=np.arange(classes) if classes > 2 or "num_class" in params else [0, 1])  # noqa: PLR2004
    with _refusals():
        return to_record(xgboost.train(dict(params), data, num_boost_round=0))


def grow(
    params: Mapping[str, Any], data: xgboost.DMatrix, model: ParametersRecord, *, rounds: int = 1, whole: bool = False
) -> ParametersRecord:
    """Return the trees that ``rounds`` of boosting on a node's rows add to a model.

    Args:
        params: those that the run began with.
        data: the node's rows.
        model: the record "model" as received.
        rounds: how often to boost, at least 1.
        whole: return the model with the new trees, as the strategy that goes from node to node wants it; otherwise
            the new trees alone.

    Raises:
        AppError: for parameters without ``base_score``, and for what XGBoost refuses.
        RecordError: for a record that holds no ensemble.

    """
    _require_score(params)
    before = to_booster(model)
    with _refusals():
        grown = xgboost.train(dict(params), data, num_boost_round=rounds, xgb_model=before)
    return to_record(grown if whole else grown[before.num_boosted_rounds() :])


def to_record(booster: xgboost.Booster) -> ParametersRecord:
    """Return an ensemble as a record with the one array "trees"."""
    return ParametersRecord.from_numpy({_NAME: np.frombuffer(booster.save_raw("json"), np.uint8)})


def to_booster(record: ParametersRecord) -> xgboost.Booster:
    """Return the ensemble of a record, to predict with.

    Raises:
        RecordError: for a record that holds none.

    """
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(record[_NAME].numpy(copy=False).tobytes()))
    except (KeyError, xgboost.core.XGBoostError) as error:
        raise RecordError(
            f"expected an array {_NAME!r} with an ensemble that XGBoost can read, got: {_reason(error):.200}", at=_NAME
        ) from error
    return booster


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn an error of XGBoost, which travels to the server as a reason, into its reason alone."""
    try:
        yield
    except xgboost.core.XGBoostError as error:
        raise AppError(
            f"expected parameters and rows that XGBoost can grow trees from, got: {_reason(error):.400}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(_AROUND.sub("", str(error)).split())


def _require_score(params: Mapping[str, Any]) -> None:
    if "base_score" not in params:
        raise AppError(
            "expected parameters with base_score, from which all nodes grow their trees, got none: say base_score=0.5",
            at="params",
        )
