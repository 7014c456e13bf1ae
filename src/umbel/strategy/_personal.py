"""Personalisation by keeping some arrays of the model on the nodes."""

from collections.abc import Sequence
from typing import Unpack

from umbel.errors import StrategyError
from umbel.strategy._fedavg import Options, averaged
from umbel.strategy._strategy import Strategy, tell


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
    return _keeping("fedbn", local, options)


def fedper(*, local: str | Sequence[str], **options: Unpack[Options]) -> Strategy:
    """Average the base layers, the last stay on each node (FedPer, Arivazhagan et al. 2019, arXiv:1912.00818).

    As ``fedbn``, with patterns such as ``"head.*"``.
    """
    return _keeping("fedper", local, options)


def _keeping(name: str, local: str | Sequence[str], options: Options) -> Strategy:
    patterns = [local] if isinstance(local, str) else list(local)
    if not patterns or not all(patterns):
        raise StrategyError(f"expected patterns of the names that stay local, got {local!r:.80}", at="local")
    return averaged(name, options, local=patterns, instruct=tell(local_arrays=patterns))
