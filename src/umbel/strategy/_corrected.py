"""Strategies against client drift; `umbel.drift` has the nodes' halves."""

from collections.abc import Mapping
from math import isfinite
from typing import Final, Unpack

from umbel.aggregation import Update, by_examples, uniform, weighted_mean
from umbel.errors import StrategyError, UpdateRejected
from umbel.optimizers import Cohort, accumulate, dynamic, replace, scaled, sgd
from umbel.records import MetricsRecord, ParametersRecord
from umbel.strategy._companion import Companion, zeros_of_floats
from umbel.strategy._fedavg import Options, averaged, checked
from umbel.strategy._strategy import Strategy, tell

_EXAMPLES: Final = "examples"
# As with the gate's largest weight: more steps than this are a mistake, or greed.
_FURTHEST: Final = 1e9
_AHEAD: Final = "examples times normaliser"
_BACK: Final = "examples over normaliser"


@checked
def fedprox(*, mu: float, **options: Unpack[Options]) -> Strategy:
    """Average models that are held near the one they began with (Li et al. 2020, arXiv:1812.06127).

    Nodes are told ``proximal-mu`` in the config; ``umbel.drift.proximal`` adds the term to a gradient.

    Args:
        mu: weight of the proximal term, 0 or more; the paper tunes it between 0.001 and 1.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for a number out of range.

    """
    if not (mu >= 0 and isfinite(mu)):
        raise StrategyError(f"expected the weight of the proximal term, 0 or more, got {mu!r}", at="mu")
    return averaged(fedprox, options, instruct=tell(proximal_mu=float(mu)))


def fednova(**options: Unpack[Options]) -> Strategy:
    """Average updates each divided by how far its node went (Wang et al. 2020, arXiv:2007.07481).

    Nodes report the metric ``normaliser``, which ``umbel.drift.normaliser`` computes from the number of local steps,
    beside ``num-examples``. With p the shares of the examples of the cohort and a the normalisers, the step is
    ``sum(p*a) * sum(p/a * (update - model))``. An ``optimizer`` among the options takes the result as its aggregate.
    """
    inner = options.pop("optimizer", replace())
    names = (_EXAMPLES, _AHEAD, _BACK)
    return averaged(
        fednova,
        options,
        aggregator=weighted_mean(_examples_over_normaliser)._replace(
            measures={_EXAMPLES: _examples, _AHEAD: _examples_times_normaliser, _BACK: _weight}
        ),
        optimizer=scaled(inner, _effective_steps, name="normalised", needs=names),
    )


def scaffold(*, learning_rate: float = 1.0, **options: Unpack[Options]) -> Strategy:
    """Average models that were trained with control variates (SCAFFOLD, Karimireddy et al. 2020, arXiv:1910.06378).

    Every instruction carries the server's control variate as the record ``control``, and every reply the difference by
    which the node's own has changed, under the same name and with the same layout: ``umbel.drift`` has ``controlled``
    and ``next_control`` (option II). Each node counts the same unless ``aggregator`` says otherwise.

    Args:
        learning_rate: of the server, above 0; 1 in the paper's experiments.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for a number out of range.

    """
    return averaged(
        scaffold,
        {"aggregator": weighted_mean(uniform), **options},
        optimizer=replace() if learning_rate == 1 else sgd(learning_rate=learning_rate),
        companions=[Companion("control", zeros_of_floats, weighted_mean(uniform), accumulate())],
    )


def feddyn(*, alpha: float = 0.01, **options: Unpack[Options]) -> Strategy:
    """Average models that were trained with a dynamic regulariser (FedDyn, Acar et al. 2021, arXiv:2111.04263).

    Nodes are told ``dynamic-alpha`` in the config; ``umbel.drift`` has ``dynamic`` and ``next_linear``, of which a node
    keeps the latter. Each node counts the same unless ``aggregator`` says otherwise.

    Args:
        alpha: strength of the regulariser, above 0; the paper tries 0.1, 0.01 and 0.001.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for a number out of range.

    """
    return averaged(
        feddyn,
        {"aggregator": weighted_mean(uniform), **options},
        optimizer=dynamic(alpha=alpha),
        instruct=tell(dynamic_alpha=float(alpha)),
    )


def _effective_steps(cohort: Cohort) -> float:
    """Return by how much FedNova's step is longer than that to the mean weighted with examples over normaliser."""
    examples, ahead, back = (cohort.sums[name] for name in (_EXAMPLES, _AHEAD, _BACK))
    return (ahead / examples) * (back / examples)


def _normaliser(metrics: Mapping[str, MetricsRecord]) -> float:
    found = metrics["metrics"].get("normaliser") if "metrics" in metrics else None
    if not isinstance(found, int | float) or not 0 < found <= _FURTHEST:
        raise UpdateRejected(
            f"expected how far the local steps went, above 0 and at most {_FURTHEST:g}, got {found!r:.40}; report it "
            "as the metric 'normaliser', with umbel.drift.normaliser(steps)",
            at="metrics_records['metrics']['normaliser']",
        )
    return found


def _examples_over_normaliser(metrics: Mapping[str, MetricsRecord]) -> float:
    return by_examples(metrics) / _normaliser(metrics)


def _examples(update: Update, model: ParametersRecord) -> float:
    del model
    return by_examples(update.metrics)


def _examples_times_normaliser(update: Update, model: ParametersRecord) -> float:
    del model
    return by_examples(update.metrics) * _normaliser(update.metrics)


def _weight(update: Update, model: ParametersRecord) -> float:
    del model
    return update.weight
