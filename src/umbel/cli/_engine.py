"""What runs the nodes of ``umbel run``: the engine, its workers, and the cluster of one that has a cluster."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from umbel import engines
from umbel.cli._settings import Settings
from umbel.cli._text import nearest, safe
from umbel.engines import ENGINES, Engine, RayCluster
from umbel.errors import UsageError

_RAY: Final = "ray"
_OPTIONS: Final = {"address": "--cluster", "num_cpus": "--num-cpus", "num_gpus": "--num-gpus"}


def asked_for(engine: str | None, workers: int | None, **cluster: str | float | None) -> dict[str, Any]:
    """Return what options say of the engine, as settings; a cluster alone means the engine that has one.

    The engine "local" has no workers, whatever the settings say.

    Raises:
        UsageError: for an engine that there is not, for workers or a cluster of one that has none, and for a cluster
            that cannot be.

    """
    told = {name: value for name, value in cluster.items() if value is not None}
    if engine is not None and engine not in ENGINES:
        raise UsageError(f'there is no engine "{safe(engine)}"{nearest(engine, ENGINES)}', at="--engine")
    if engine == "local" and workers is not None:
        raise UsageError("the engine local has no workers, it is this process alone; leave one out", at="--workers")
    if told and engine not in (None, _RAY):
        given = _OPTIONS[next(iter(told))]
        raise UsageError(f"the engine {engine} has no cluster, only {_RAY} has one; leave one out", at=given)
    _require_cluster(told)
    return {
        "engine": _RAY if told else engine,
        "workers": 0 if engine == "local" else workers,
        "cluster": told or None,
    }


def refuse_engine(asked: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an engine, or part of one, beside nodes that run by themselves."""
    given = ["--engine" if asked["engine"] else "", "--workers" if asked["workers"] else ""]
    options = [*(_OPTIONS[name] for name in asked["cluster"] or ()), *filter(None, given)]
    if options:
        raise UsageError("the nodes of a server are no engine's: each runs where it is; leave one out", at=options[0])


def engine_of(settings: Settings) -> Engine:
    """Return what makes the grid of a run; workers alone mean several processes."""
    name = "processes" if settings.engine == "local" and settings.workers else settings.engine
    make = engines.engine(name, settings.workers or None)
    return partial(make, cluster=RayCluster(**settings.cluster)) if name == _RAY and settings.cluster else make


def _require_cluster(told: Mapping[str, Any]) -> None:
    try:
        RayCluster(**told)
    except UsageError as error:
        raise UsageError(error.message, at=_OPTIONS[str(error.at)]) from error
