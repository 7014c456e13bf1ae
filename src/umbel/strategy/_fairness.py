"""Fairness: nodes on which the model does badly count for more."""

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Final, Unpack

from umbel.aggregation import Update, squared_distance, weighted_mean
from umbel.errors import StrategyError, UpdateRejected
from umbel.optimizers import Cohort, replace, scaled
from umbel.records import MetricsRecord, ParametersRecord
from umbel.strategy._fedavg import Options, averaged, checked
from umbel.strategy._strategy import Strategy

_WEIGHT: Final = "loss**q / learning rate"
_H: Final = "h"
_TINY: Final = 1e-10  # keeps the powers of a loss of 0 finite


@checked
def qfedavg(*, q: float, learning_rate: float, loss: str = "loss-before", **options: Unpack[Options]) -> Strategy:
    """Average so that losses become even: q-FedAvg (q-FFL, Li et al. 2020, arXiv:1905.10497, Algorithm 2).

    Nodes report the loss of the model as they received it, before training. With F that loss, L the inverse of the
    learning rate and D = L*(model - update), the next model is ``model - sum(F**q * D) / sum(h)``, where
    ``h = q * F**(q-1) * |D|**2 + L * F**q``. q of 0 is the plain mean; the larger it is, the fairer. An ``optimizer``
    among the options takes the result as its aggregate.

    Args:
        q: 0 or more; the paper tunes it, from 0.001 to 15.
        learning_rate: of the nodes, above 0.
        loss: the metric with the loss, in the record "metrics".
        options: as in ``fedavg``.

    Raises:
        StrategyError: for numbers out of range.

    """
    if not (0 <= q < inf and 0 < learning_rate < inf):
        raise StrategyError(f"expected q from 0 and a learning rate above 0, got {q!r} and {learning_rate!r}", at="q")
    inner = options.pop("optimizer", replace())
    numbers = (q, 1 / learning_rate, loss)
    return averaged(
        qfedavg,
        options,
        aggregator=weighted_mean(partial(_loss_power, q, loss))._replace(
            measures={_WEIGHT: partial(_scaled_weight, 1 / learning_rate), _H: partial(_h, *numbers)}
        ),
        optimizer=scaled(inner, _step, name=f"q-fair(q={q!r}, learning_rate={learning_rate!r})", needs=(_WEIGHT, _H)),
    )


def _step(cohort: Cohort) -> float:
    return cohort.sums[_WEIGHT] / cohort.sums[_H]


def _loss(name: str, metrics: Mapping[str, MetricsRecord]) -> float:
    found = metrics["metrics"].get(name) if "metrics" in metrics else None
    if not isinstance(found, int | float) or not 0 <= found < inf:
        raise UpdateRejected(
            f"expected the loss before training, 0 or more, got {found!r:.40}; report it as the metric {name!r}",
            at=f"metrics_records['metrics'][{name!r}]",
        )
    return found + _TINY


def _loss_power(q: float, name: str, metrics: Mapping[str, MetricsRecord]) -> float:
    return _power(_loss(name, metrics), q)


def _power(number: float, exponent: float) -> float:
    try:
        return float(number**exponent)
    except OverflowError:
        return inf


def _scaled_weight(lipschitz: float, update: Update, model: ParametersRecord) -> float:
    del model
    return lipschitz * update.weight


def _h(q: float, lipschitz: float, name: str, update: Update, model: ParametersRecord) -> float:
    norm = lipschitz**2 * squared_distance(model, update.record)
    return q * _power(_loss(name, update.metrics), q - 1) * norm + lipschitz * update.weight
