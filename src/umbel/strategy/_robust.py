"""FedAvg with an aggregator that a minority of bad updates cannot move far."""

from typing import Unpack

from umbel import aggregation
from umbel.strategy._fedavg import Options, averaged, checked
from umbel.strategy._strategy import Strategy


def fedmedian(**options: Unpack[Options]) -> Strategy:
    """Take the median of each element (Yin et al. 2018, arXiv:1803.01498).

    As in ``umbel.aggregation.median``, options as in ``fedavg``.
    """
    return averaged(fedmedian, options, aggregator=aggregation.median())


def fedtrimmedavg(*, share: float = 0.2, **options: Unpack[Options]) -> Strategy:
    """Average each element without its outermost values (Yin et al. 2018, arXiv:1803.01498).

    Numbers as in ``umbel.aggregation.trimmed_mean``, options as in ``fedavg``.
    """
    return averaged(fedtrimmedavg, options, aggregator=aggregation.trimmed_mean(share=share))


@checked
def krum(*, byzantine: int, **options: Unpack[Options]) -> Strategy:
    """Take the update nearest to its neighbours (Blanchard et al. 2017, arXiv:1703.02757).

    Numbers as in ``umbel.aggregation.krum``, options as in ``fedavg``; a round needs ``2*byzantine + 3`` updates.
    """
    return averaged(krum, options, aggregator=aggregation.krum(byzantine=byzantine))


@checked
def multikrum(*, byzantine: int, count: int | None = None, **options: Unpack[Options]) -> Strategy:
    """Average the updates nearest to their neighbours (Blanchard et al. 2017, arXiv:1703.02757).

    Numbers as in ``umbel.aggregation.multi_krum``, options as in ``fedavg``; a round needs ``2*byzantine + 3`` updates.
    """
    return averaged(multikrum, options, aggregator=aggregation.multi_krum(byzantine=byzantine, count=count))


@checked
def bulyan(*, byzantine: int, **options: Unpack[Options]) -> Strategy:
    """Average what is nearest to the median of what Krum chooses (El Mhamdi et al. 2018, arXiv:1802.07927).

    Numbers as in ``umbel.aggregation.bulyan``, options as in ``fedavg``; a round needs ``4*byzantine + 3`` updates.
    """
    return averaged(bulyan, options, aggregator=aggregation.bulyan(byzantine=byzantine))


def rfa(*, smooth: float = 1e-6, iterations: int = 200, **options: Unpack[Options]) -> Strategy:
    """Take the geometric median of the updates (RFA, Pillutla et al. 2022, arXiv:1912.13445).

    Numbers as in ``umbel.aggregation.geometric_median``, options as in ``fedavg``.
    """
    return averaged(rfa, options, aggregator=aggregation.geometric_median(smooth=smooth, iterations=iterations))


def normclip(*, bound: float | None = None, quantile: float = 0.5, **options: Unpack[Options]) -> Strategy:
    """Average updates that are drawn to within a bound of the model (Sun et al. 2019, arXiv:1911.07963).

    Numbers as in ``umbel.aggregation.clipped_mean``, which learns the bound if none is given; options as in ``fedavg``.
    """
    return averaged(normclip, options, aggregator=aggregation.clipped_mean(bound=bound, quantile=quantile))


def centredclip(*, radius: float | None = None, iterations: int = 3, **options: Unpack[Options]) -> Strategy:
    """Average updates that are clipped around their mean (Karimireddy et al. 2021, arXiv:2012.10333).

    Numbers as in ``umbel.aggregation.centred_clipping``, options as in ``fedavg``.
    """
    return averaged(centredclip, options, aggregator=aggregation.centred_clipping(radius=radius, iterations=iterations))
