"""Engines run the nodes; each has the five verbs of ``umbel.grid.Grid``."""

from umbel.engines._local import LocalGrid
from umbel.engines._population import Population
from umbel.engines._replay import Replay, replaying
from umbel.engines._states import NodeStates

__all__ = ["LocalGrid", "NodeStates", "Population", "Replay", "replaying"]
