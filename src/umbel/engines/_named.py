"""The engines by the names that settings call them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from umbel._nearest import nearest
from umbel.engines._local import LocalGrid
from umbel.engines._processes import ProcessGrid
from umbel.engines._raygrid import RayGrid
from umbel.engines._reference import refuse_while_loading
from umbel.errors import UsageError
from umbel.grid import Grid

#: Makes a grid: ``(client_app, population, *, seed, run_config, states)``.
Engine: TypeAlias = Callable[..., Grid]
_ENGINES: Final[dict[str, Any]] = {"local": LocalGrid, "processes": ProcessGrid, "ray": RayGrid}
#: What engines are called.
ENGINES: Final = tuple(_ENGINES)


def engine(name: str | Engine, workers: int | None = None) -> Engine:
    """Return the engine of that name, with so many workers; a function that makes a grid is an engine already.

    Raises ``UsageError`` for a name that no engine has, and for workers of one that has none; ``AppError`` in a worker
    process that is only importing the app, where a script must not start its run again.
    """
    refuse_while_loading()
    if isinstance(name, str) and name not in _ENGINES:
        raise UsageError(
            f"expected the name of an engine, or a function that makes a grid, got {name!r:.80}"
            f"{nearest(name, ENGINES)}",
            at="engine",
        )
    made = _ENGINES[name] if isinstance(name, str) else name
    if workers is None:
        return made
    if name == "local":
        raise UsageError(
            "expected no workers for the engine 'local', which is this process alone: leave it out", at="workers"
        )
    return partial(made, workers=workers)
