"""Strategies are values: who is asked, what they are told, how their answers become the next model."""

from umbel.strategy._fedavg import fedavg
from umbel.strategy._selectors import Selector, everyone, fixed, fraction
from umbel.strategy._strategy import Strategy, strategy

__all__ = ["Selector", "Strategy", "everyone", "fedavg", "fixed", "fraction", "strategy"]
