"""Messages that share a task of a cluster: what goes to another machine, what comes back, and what runs in between."""

import sys
import time
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from umbel.engines._frames import Start, Started, Task
from umbel.engines._host import Host
from umbel.engines._memory import Segments, size_of
from umbel.engines._reference import load
from umbel.errors import UmbelError
from umbel.message import Error, Metadata
from umbel.records import RecordSet, loads

Bytes: TypeAlias = NDArray[np.uint8]

# What a Ray task is given: how to run the app, and for each message its description and the node's state.
Sent: TypeAlias = tuple[bytes, list[bytes], list[Bytes | None]]


class Returned(msgspec.Struct, frozen=True):
    """What became of a message, apart from the arrays."""

    metadata: Metadata | None
    error: Error | None


class Results(NamedTuple):
    """What a Ray task makes: why the app cannot be loaded, or what became of each message, and in how many seconds.

    That is ``Returned``, the content of the reply and the state of the node. Containers are arrays, which Ray maps.
    """

    refusal: tuple[str, str] | None
    answers: list[tuple[bytes, Bytes | None, Bytes | None]]
    seconds: float


def run_batch(sent: Sent, content: Bytes) -> tuple[object, ...]:
    """Run some messages that carry the same content, one after the other, in a process of Ray's."""
    start, tasks, states = sent
    host, began, answers = _host(start), time.perf_counter(), []
    if isinstance(host, Started):
        return Results((host.error or "", host.at), [], 0.0)
    carried = loads(content)
    for task, state in zip(tasks, states, strict=True):
        before = RecordSet() if state is None else loads(state)
        answer = host.run(msgspec.msgpack.decode(task, type=Task), carried, before)
        said = msgspec.msgpack.encode(Returned(answer.metadata, answer.error))
        answers.append((said, joined(answer.content), joined(answer.state)))
    return tuple(Results(None, answers, time.perf_counter() - began))


@lru_cache(maxsize=1)
def _host(start: bytes) -> Host | Started:
    """Return what runs nodes in this process, the same for all batches of a run."""
    begun = msgspec.msgpack.decode(start, type=Start)
    sys.path.extend(path for path in begun.paths if path not in sys.path)
    try:
        return Host(load(begun.app), begun)
    except UmbelError as error:
        return Started(error.message, error.at)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an app may raise anything when it is imported
        return Started(f"the app cannot be imported by Ray: {type(error).__name__}: {error}", str(begun.app))


def joined(segments: Segments | None) -> Bytes | None:
    """Return the segments one after the other, in an array."""
    if segments is None:
        return None
    whole, end = np.empty(size_of(segments), np.uint8), 0
    for segment in segments:
        whole[end : end + len(segment)] = np.frombuffer(segment, np.uint8)
        end += len(segment)
    return whole
