"""Engines run the nodes; each has the five verbs of ``umbel.grid.Grid``."""

from umbel.engines._devices import Devices, Trace, drawn, traced
from umbel.engines._local import LocalGrid
from umbel.engines._named import ENGINES, Engine, engine
from umbel.engines._population import Population
from umbel.engines._processes import ProcessGrid
from umbel.engines._raycluster import RayCluster
from umbel.engines._raygrid import RayGrid
from umbel.engines._replay import Replay, replaying
from umbel.engines._states import NodeStates
from umbel.engines._virtual import VirtualGrid

__all__ = [
    "ENGINES",
    "Devices",
    "Engine",
    "LocalGrid",
    "NodeStates",
    "Population",
    "ProcessGrid",
    "RayCluster",
    "RayGrid",
    "Replay",
    "Trace",
    "VirtualGrid",
    "drawn",
    "engine",
    "replaying",
    "traced",
]
