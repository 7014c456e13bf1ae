"""Federated trees: an ensemble grows by what nodes add to it; `umbel.interop.xgboost` has the nodes' halves."""

from typing import Unpack

from umbel.aggregation import bagged_trees, last_trees
from umbel.gate import Gate
from umbel.strategy._fedavg import Options, averaged
from umbel.strategy._selectors import in_turn
from umbel.strategy._strategy import Strategy, tell

_GATE = Gate(any_length=("trees",))


def fedxgb_bagging(*, local_rounds: int = 1, most: int | None = None, **options: Unpack[Options]) -> Strategy:
    """Let all nodes add trees to one ensemble (bagging; of XGBoost, Chen and Guestrin 2016, arXiv:1603.02754).

    A run begins with ``umbel.interop.xgboost.first``; nodes are told ``local-rounds`` in the config and reply with the
    new trees that ``grow`` makes of the model. Every tree corrects the ensemble by itself, so the learning rate is to
    be divided by about the number of nodes.

    Args:
        local_rounds: how often a node boosts in a round.
        most: how many trees it may add, at least 1; None for those of ``local_rounds``. More of them are refused.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for numbers below 1.

    """
    options = {"gate": _GATE, **options}
    return averaged(
        "fedxgb_bagging",
        options,
        aggregator=bagged_trees(**_limit(local_rounds, most)),
        instruct=tell(local_rounds=local_rounds),
    )


def fedxgb_cyclic(*, local_rounds: int = 1, most: int | None = None, **options: Unpack[Options]) -> Strategy:
    """Pass one ensemble from node to node (cyclic; of XGBoost, Chen and Guestrin 2016, arXiv:1603.02754).

    Numbers as in ``fedxgb_bagging``. In each round one node, the next by name, replies with the model and its new
    trees: ``grow(..., whole=True)``.
    """
    options = {"gate": _GATE, **options}
    return averaged(
        "fedxgb_cyclic",
        options,
        select=in_turn(),
        aggregator=last_trees(**_limit(local_rounds, most)),
        instruct=tell(local_rounds=local_rounds),
    )


def _limit(local_rounds: int, most: int | None) -> dict[str, int]:
    return {"rounds": local_rounds} if most is None else {"most": most}
