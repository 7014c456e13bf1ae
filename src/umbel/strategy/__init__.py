"""Strategies are values: who is asked, what they are told, how their answers become the next model."""

from umbel.strategy._analytics import histogram, kmeans, moments, quantiles
from umbel.strategy._companion import Companion
from umbel.strategy._corrected import feddyn, fednova, fedprox, scaffold
from umbel.strategy._fairness import qfedavg
from umbel.strategy._fedavg import fedavg
from umbel.strategy._informed import during, oort, power_of_choice, tiers
from umbel.strategy._named import Entry, Setting, catalogue, named
from umbel.strategy._optimized import diloco, fedadagrad, fedadam, fedavgm, fedyogi
from umbel.strategy._overlapping import fedasync, fedat, fedbuff
from umbel.strategy._personal import ditto, fedbn, fedper
from umbel.strategy._policy import Deadline, Overlap, Policy, buffered, mixed, quorum, synchronous, tiered
from umbel.strategy._robust import bulyan, centredclip, fedmedian, fedtrimmedavg, krum, multikrum, normclip, rfa
from umbel.strategy._selectors import Occasion, Selector, everyone, fixed, fraction, in_turn, these, weighted
from umbel.strategy._strategy import Strategy, strategy, tell
from umbel.strategy._trees import fedxgb_bagging, fedxgb_cyclic

__all__ = [
    "Companion",
    "Deadline",
    "Entry",
    "Occasion",
    "Overlap",
    "Policy",
    "Selector",
    "Setting",
    "Strategy",
    "buffered",
    "bulyan",
    "catalogue",
    "centredclip",
    "diloco",
    "ditto",
    "during",
    "everyone",
    "fedadagrad",
    "fedadam",
    "fedasync",
    "fedat",
    "fedavg",
    "fedavgm",
    "fedbn",
    "fedbuff",
    "feddyn",
    "fedmedian",
    "fednova",
    "fedper",
    "fedprox",
    "fedtrimmedavg",
    "fedxgb_bagging",
    "fedxgb_cyclic",
    "fedyogi",
    "fixed",
    "fraction",
    "histogram",
    "in_turn",
    "kmeans",
    "krum",
    "mixed",
    "moments",
    "multikrum",
    "named",
    "normclip",
    "oort",
    "power_of_choice",
    "qfedavg",
    "quantiles",
    "quorum",
    "rfa",
    "scaffold",
    "strategy",
    "synchronous",
    "tell",
    "these",
    "tiered",
    "tiers",
    "weighted",
]
