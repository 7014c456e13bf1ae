"""Strategies that do not wait: nodes train while the model moves on."""

from typing import Unpack

from umbel.aggregation import uniform, weighted_mean
from umbel.optimizers import replace, sgd
from umbel.strategy._fedavg import Unwaiting, averaged
from umbel.strategy._policy import buffered, mixed
from umbel.strategy._strategy import Strategy


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

    Numbers as in ``umbel.strategy.buffered``, of which ``learning_rate`` is that of the server. Each node counts the
    same unless ``aggregator`` says otherwise; nodes do not evaluate. Whoever is sent a model is one of a ``fraction``
    of the nodes, which is drawn anew for every model; how many train at a time is ``concurrency``.
    """
    return averaged(
        fedbuff,
        {"aggregator": weighted_mean(uniform), **options},
        evaluate=None,
        optimizer=replace() if learning_rate == 1 else sgd(learning_rate=learning_rate),
        policy=buffered(concurrency=concurrency, buffer=buffer, exponent=exponent, most_stale=most_stale),
    )


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
