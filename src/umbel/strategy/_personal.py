"""Personalisation: some arrays of the model stay on the nodes, or each trains a model of its own beside."""

from collections.abc import Sequence
from math import isfinite
from typing import Unpack

from umbel.errors import StrategyError
from umbel.strategy._fedavg import Maker, Options, averaged, checked
from umbel.strategy._strategy import Strategy, tell


@checked
def ditto(*, strength: float, **options: Unpack[Options]) -> Strategy:
    """Average models while every node trains one of its own beside (Ditto, Li et al. 2021, arXiv:2012.04221).

    Nodes are told ``ditto-strength`` in the config (lambda of the paper). Each trains the model that it received and
    replies with it, as in FedAvg, and trains a personal one, which it keeps in its state, with the term that holds it
    near the one it received: ``umbel.drift.proximal``.

    Args:
        strength: how strongly, 0 or more; the paper tunes it, from 0.05 to 2. At 0 personal models are local ones.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for a number out of range.

    """
    if not (strength >= 0 and isfinite(strength)):
        raise StrategyError(f"expected the strength of the term, 0 or more, got {strength!r}", at="strength")
    return averaged(ditto, options, instruct=tell(ditto_strength=float(strength)))


@checked
def fedbn(*, local: str | Sequence[str], **options: Unpack[Options]) -> Strategy:
    """Average all but the batch normalisation, which stays on each node (FedBN, Li et al. 2021, arXiv:2102.07623).

    The server's model has the shared arrays alone, neither sends nor takes the others, and refuses a reply that has
    them. Nodes are told the patterns as ``local-arrays`` in the config; ``umbel.personal`` splits and merges models.

    Args:
        local: patterns of the names that stay local, such as ``"*.bn?.*"``.
        options: as in ``fedavg``.

    Raises:
        StrategyError: for no pattern; a run that begins with a model in which one matches no array refuses it.

    """
    return _keeping(fedbn, local, options)


@checked
def fedper(*, local: str | Sequence[str], **options: Unpack[Options]) -> Strategy:
    """Average the base layers, the last stay on each node (FedPer, Arivazhagan et al. 2019, arXiv:1912.00818).

    As ``fedbn``, with patterns such as ``"head.*"``.
    """
    return _keeping(fedper, local, options)


def _keeping(make: Maker, local: str | Sequence[str], options: Options) -> Strategy:
    patterns = [local] if isinstance(local, str) else list(local)
    if not patterns or not all(patterns):
        raise StrategyError(f"expected patterns of the names that stay local, got {local!r:.80}", at="local")
    return averaged(make, options, local=patterns, instruct=tell(local_arrays=patterns))
