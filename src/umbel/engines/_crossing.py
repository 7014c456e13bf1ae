"""What crosses to another process besides arrays: how to run an app, and what a node is told."""

import sys
from collections.abc import Mapping

import msgspec

from umbel.app import ClientApp
from umbel.context import derive_seed
from umbel.engines._channel import Body
from umbel.engines._frames import Config, Start, Task
from umbel.engines._population import Population
from umbel.engines._queue import Flight
from umbel.engines._reference import reference_of
from umbel.errors import UsageError

_Config = Mapping[str, bool | int | float | str]


def start_of(client_app: ClientApp, run_config: _Config | None) -> Start:
    """Return how another process runs ``client_app``; raises ``AppError`` when it cannot import it."""
    return Start(
        paths=list(map(str, sys.path)),
        app=reference_of(client_app.origin),
        tracebacks=client_app.origin is not client_app,
        run_config=_sendable(run_config or {}, "run_config"),
    )


def task_of(flight: Flight, population: Population, seed: int, *, content: int = 0, state: Body | None = None) -> Task:
    """Return a message as it crosses; raises ``UsageError`` for a node config that cannot."""
    asked, node = flight.message.metadata, flight.node
    return Task(
        metadata=asked,
        content=content,
        node=node,
        node_config=_sendable(population.config(node), f"node_config of {node.name}"),
        seed=derive_seed(seed, asked.group_id, node.name, asked.message_type),
        state=state,
    )


def _sendable(config: _Config, at: str) -> Config:
    """Return a config as it crosses; raises ``UsageError`` for values that would not be the same on the other side."""
    for key, value in config.items():
        if type(key) is not str or type(value) not in (bool, int, float, str):
            raise UsageError(
                "expected names and values of type bool, int, float or str, which other processes understand, got "
                f"{key!r:.80}: {type(value).__name__}",
                at=at,
            )
    try:
        msgspec.msgpack.encode(config)
    except (OverflowError, UnicodeEncodeError) as error:
        raise UsageError(
            f"expected numbers of 64 bits and Unicode text, got one that is not: {error}", at=at
        ) from error
    return dict(config)
