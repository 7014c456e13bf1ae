"""Strategies that do not wait: nodes train while the model moves on."""

from math import isfinite
from typing import Unpack

from umbel.aggregation import uniform, weighted_mean
from umbel.errors import StrategyError
from umbel.optimizers import across, replace, sgd
from umbel.strategy._fedavg import Unwaiting, averaged, checked
from umbel.strategy._policy import buffered, mixed, tiered
from umbel.strategy._strategy import Strategy, tell


@checked
def fedbuff(
    *,
    concurrency: int,
    buffer: int = 10,
    exponent: float = 0.5,
    learning_rate: float = 1.0,
    most_stale: int = 100,
    **options: Unpack[Unwaiting],
) -> Strategy:
    """Average every few updates as they come (FedBuff, Nguyen et al. 2022, arXiv:2106.06639).

    Numbers as in ``umbel.strategy.buffered``, beside ``learning_rate``, which is that of the server. Each node counts
    the same unless ``aggregator`` says otherwise, such as ``weighted_mean(by_examples)``; nodes do not evaluate.
    Whoever is sent a model is one of a ``fraction`` of the nodes, which is drawn anew for every model; how many train
    at a time is ``concurrency``. There is no deadline; ``min_updates`` says how many updates a model needs when no more
    come.
    """
    return averaged(
        fedbuff,
        {"aggregator": weighted_mean(uniform), **options},
        evaluate=None,
        optimizer=replace() if learning_rate == 1 else sgd(learning_rate=learning_rate),
        policy=buffered(concurrency=concurrency, buffer=buffer, exponent=exponent, most_stale=most_stale),
    )


@checked
def fedasync(
    *,
    concurrency: int,
    alpha: float = 0.6,
    exponent: float = 0.5,
    most_stale: int = 100,
    **options: Unpack[Unwaiting],
) -> Strategy:
    """Mix each update into the model as it comes (FedAsync, Xie, Koyejo and Gupta 2019, arXiv:1903.03934).

    Numbers as in ``umbel.strategy.mixed``; ``alpha`` is which share of the way the model goes, above 0. Nodes do not
    evaluate. ``fraction`` as in ``fedbuff``.
    """
    return averaged(
        fedasync,
        options,
        evaluate=None,
        optimizer=sgd(learning_rate=alpha),
        policy=mixed(concurrency=concurrency, exponent=exponent, most_stale=most_stale),
    )


@checked
def fedat(
    *, count: int, number: int = 5, mu: float = 0.0, most_stale: int = 100, **options: Unpack[Unwaiting]
) -> Strategy:
    """Average tiers of equally fast nodes that do not wait for one another (FedAT, Chai et al. 2020, arXiv:2010.05958).

    Numbers as in ``umbel.strategy.tiered``: ``count`` nodes of each of ``number`` tiers train together. The model is
    the mean of those of the tiers, as ``umbel.optimizers.across`` weights them; nodes do not evaluate. With a ``mu``
    above 0 nodes are told ``proximal-mu``, the weight of the paper's proximal term, as in ``fedprox``. ``fraction`` as
    in ``fedbuff``. Unlike in the paper, tiers are cut anew for each model, their counts begin at 1, and models are not
    compressed, which is for ``transforms``.
    """
    if not (mu >= 0 and isfinite(mu)):
        raise StrategyError(f"expected the weight of the proximal term, 0 or more, got {mu!r}", at="mu")
    return averaged(
        fedat,
        options,
        evaluate=None,
        optimizer=across(number),
        policy=tiered(count, number=number, most_stale=most_stale),
        # Without a term, what nodes are told is free for the caller.
        **({"instruct": tell(proximal_mu=float(mu))} if mu else {}),
    )
