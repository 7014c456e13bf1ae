"""Engines run the nodes; each has the five verbs of ``umbel.grid.Grid``."""

from umbel.engines._local import LocalGrid
from umbel.engines._named import ENGINES, Engine, engine
from umbel.engines._population import Population
from umbel.engines._processes import ProcessGrid
from umbel.engines._states import NodeStates

__all__ = ["ENGINES", "Engine", "LocalGrid", "NodeStates", "Population", "ProcessGrid", "engine"]
