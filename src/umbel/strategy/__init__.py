"""Strategies are values: who is asked, what they are told, how their answers become the next model."""

from umbel.strategy._companion import Companion
from umbel.strategy._corrected import feddyn, fednova, fedprox, scaffold
from umbel.strategy._fairness import qfedavg
from umbel.strategy._fedavg import fedavg
from umbel.strategy._named import Entry, Setting, catalogue, named
from umbel.strategy._optimized import diloco, fedadagrad, fedadam, fedavgm, fedyogi
from umbel.strategy._personal import fedbn, fedper
from umbel.strategy._robust import bulyan, centredclip, fedmedian, fedtrimmedavg, krum, multikrum, normclip, rfa
from umbel.strategy._selectors import Selector, everyone, fixed, fraction, weighted
from umbel.strategy._strategy import Strategy, strategy, tell

__all__ = [
    "Companion",
    "Entry",
    "Selector",
    "Setting",
    "Strategy",
    "bulyan",
    "catalogue",
    "centredclip",
    "diloco",
    "everyone",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedbn",
    "feddyn",
    "fedmedian",
    "fednova",
    "fedper",
    "fedprox",
    "fedtrimmedavg",
    "fedyogi",
    "fixed",
    "fraction",
    "krum",
    "multikrum",
    "named",
    "normclip",
    "qfedavg",
    "rfa",
    "scaffold",
    "strategy",
    "tell",
    "weighted",
]
