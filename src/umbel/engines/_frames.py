"""What an engine and its worker say to each other."""

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from umbel.engines._channel import Body
from umbel.engines._reference import Reference
from umbel.grid import Node
from umbel.message import Error, Metadata

Config: TypeAlias = dict[str, bool | int | float | str]


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first frame to a worker: where to look for modules, which app to import, and how to run it."""

    paths: list[str]
    app: Reference
    tracebacks: bool
    run_config: Config


class Content(msgspec.Struct, frozen=True, tag="content"):
    """What several messages carry, under a number; the worker forgets those that are not ``kept``."""

    number: int
    body: Body
    kept: list[int]


class Task(msgspec.Struct, frozen=True, tag="task"):
    """One message: the node runs it with the content of that number."""

    metadata: Metadata
    content: int
    node: Node
    node_config: Mapping[str, bool | int | float | str]
    seed: int
    state: Body | None


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The last frame to a worker."""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The worker's first frame: the app is there, or why it is not."""

    error: str | None = None
    at: str = ""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What became of the oldest task: a reply, or nothing if it came too late; the node's state if it changed."""

    metadata: Metadata | None = None
    error: Error | None = None
    content: Body | None = None
    state: Body | None = None


ToWorker: TypeAlias = Start | Content | Task | Stop
ToEngine: TypeAlias = Started | Done
