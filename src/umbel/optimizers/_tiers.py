"""The mean of tiers that do not wait for one another: each has the model that it made last."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from umbel.aggregation import Update, weighted_mean
from umbel.errors import StrategyError
from umbel.optimizers._optimizer import ALONE, Cohort, Optimizer, OptimizerState
from umbel.records import ParametersRecord

_TIERS: Final = "tiers"
_MADE: Final = "made"
_MEAN: Final = weighted_mean().reduce


def across(number: int = 5) -> Optimizer:
    """Return the optimizer that averages the last models of tiers: FedAT, Chai et al. 2020, arXiv:2010.05958.

    The aggregate is the new model of one tier. With M tiers, of which m made ``T[m]`` models, the next model is
    ``sum(T[M+1-m] * model of tier m) / sum(T)``: the slowest tier counts as often as the fastest has answered, so that
    fast nodes do not have the model to themselves. Every ``T`` begins at 1, and every tier with the first model; the
    paper's begin at 0, so that nothing moves until a tier of the slower half has answered.

    It goes with the policy ``umbel.strategy.tiered`` of as many tiers. Integers are averaged, and bools go by majority.
    The state is a model for each tier, "tier-1" for the fastest and so on, and how many each has made, "tiers".

    Args:
        number: M, at least 1.

    Raises:
        StrategyError: for a number below 1. ``update`` raises ``AggregationError`` if the model, the aggregate and the
            state have different layouts, or the next model is not finite.

    >>> import numpy as np
    >>> from umbel.records import ParametersRecord
    >>> first, trained = (ParametersRecord.from_numpy({"w": np.array([x])}) for x in (0.0, 3.0))
    >>> optimizer = across(2)
    >>> state, model = optimizer.update(optimizer.init(first), first, trained, Cohort(tier=0))
    >>> model.to_numpy()["w"]
    array([1.])

    """
    if type(number) is not int or number < 1:
        raise StrategyError(f"expected a number of tiers, at least 1, got {number!r}", at="across")
    whole = _Across(number)
    return Optimizer(f"across({number})", whole.init, whole.update, by_element=True, trains=True, tiers=number)


@dataclass(frozen=True)
class _Across:
    number: int

    def init(self, model: ParametersRecord) -> OptimizerState:
        """Return the state before the first update: the first model in every place."""
        made = ParametersRecord.from_numpy({_MADE: np.ones(self.number, np.int64)})
        return {_TIERS: made, **{_place(tier): model for tier in range(self.number)}}

    def update(
        self, state: OptimizerState, model: ParametersRecord, aggregate: ParametersRecord, cohort: Cohort = ALONE, /
    ) -> tuple[OptimizerState, ParametersRecord]:
        """Return the state with the aggregate in its place, and the mean of all tiers."""
        made = state[_TIERS][_MADE].numpy()
        made[cohort.tier] += 1
        following = {
            **state,
            _TIERS: ParametersRecord.from_numpy({_MADE: made}),
            _place(cohort.tier): aggregate,
        }
        tiers = [
            Update(f"tier {tier + 1:09}", int(weight), following[_place(tier)])
            for tier, weight in enumerate(made[::-1])
        ]
        return following, _MEAN.finish(_MEAN.start(model), tiers)


def _place(tier: int) -> str:
    return f"tier-{tier + 1}"
