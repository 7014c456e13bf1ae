"""FedAvg with another server optimizer."""

from typing import Unpack

from umbel import optimizers
from umbel.aggregation import uniform, weighted_mean
from umbel.errors import StrategyError
from umbel.strategy._fedavg import Options, averaged
from umbel.strategy._strategy import Strategy, tell


def fedavgm(*, learning_rate: float = 1.0, beta: float = 0.9, **options: Unpack[Options]) -> Strategy:
    """Average, with momentum on the server (Hsu, Qi and Brown 2019, arXiv:1909.06335).

    Numbers as in ``umbel.optimizers.momentum``, options as in ``fedavg``.
    """
    return averaged(fedavgm, options, optimizer=optimizers.momentum(learning_rate=learning_rate, beta=beta))


def fedadagrad(
    *, learning_rate: float = 0.1, beta1: float = 0.0, tau: float = 1e-3, **options: Unpack[Options]
) -> Strategy:
    """Average, with Adagrad on the server (Reddi et al. 2021, arXiv:2003.00295).

    Numbers as in ``umbel.optimizers.adagrad``, options as in ``fedavg``.
    """
    optimizer = optimizers.adagrad(learning_rate=learning_rate, beta1=beta1, tau=tau)
    return averaged(fedadagrad, options, optimizer=optimizer)


def fedadam(
    *,
    learning_rate: float = 0.1,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    **options: Unpack[Options],
) -> Strategy:
    """Average, with Adam on the server (Reddi et al. 2021, arXiv:2003.00295).

    Numbers as in ``umbel.optimizers.adam``, options as in ``fedavg``.
    """
    optimizer = optimizers.adam(learning_rate=learning_rate, beta1=beta1, beta2=beta2, tau=tau)
    return averaged(fedadam, options, optimizer=optimizer)


def fedyogi(
    *,
    learning_rate: float = 0.1,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    **options: Unpack[Options],
) -> Strategy:
    """Average, with Yogi on the server (Reddi et al. 2021, arXiv:2003.00295).

    Numbers as in ``umbel.optimizers.yogi``, options as in ``fedavg``.
    """
    optimizer = optimizers.yogi(learning_rate=learning_rate, beta1=beta1, beta2=beta2, tau=tau)
    return averaged(fedyogi, options, optimizer=optimizer)


def diloco(
    *, local_steps: int = 500, learning_rate: float = 0.7, beta: float = 0.9, **options: Unpack[Options]
) -> Strategy:
    """Average rarely, with Nesterov momentum on the server (DiLoCo, Douillard et al. 2023, arXiv:2311.08105).

    Nodes are told ``local-steps`` in the config and take as many, with an optimizer of their own whose state they keep
    (AdamW in the paper). Each counts the same unless ``aggregator`` says otherwise.

    Args:
        local_steps: H of the paper, at least 1.
        learning_rate: of the outer optimizer, above 0.
        beta: momentum of the outer optimizer, from 0 to below 1.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for numbers out of range.

    """
    if type(local_steps) is not int or local_steps < 1:
        raise StrategyError(f"expected a number of local steps, at least 1, got {local_steps!r}", at="local_steps")
    return averaged(
        diloco,
        {"aggregator": weighted_mean(uniform), **options},
        optimizer=optimizers.nesterov(learning_rate=learning_rate, beta=beta),
        instruct=tell(local_steps=local_steps),
    )
