"""The engines by the names that settings call them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from umbel.engines._local import LocalGrid
from umbel.engines._processes import ProcessGrid
from umbel.grid import Grid

#: Makes a grid: ``(client_app, population, *, seed, run_config, states)``.
Engine: TypeAlias = Callable[..., Grid]
_engines: dict[str, Any] = {"local": LocalGrid, "processes": ProcessGrid}
#: What each name stands for.
ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(_engines)
