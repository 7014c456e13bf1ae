"""How long devices take, when they are there and how reliable they are: drawn from a seed, or given as traces."""

import struct
from collections.abc import Callable, Mapping, Sequence
from math import exp, inf
from statistics import NormalDist
from typing import Final, NamedTuple, TypeAlias

from blake3 import blake3

from umbel.errors import UsageError
from umbel.grid import Node
from umbel.message import Metadata

#: ``(node, message, at) -> time``: when the reply to a message that reaches the node at ``at`` arrives; None for never.
Devices: TypeAlias = Callable[[Node, Metadata, float], float | None]

_DAY: Final = 86_400.0
_NORMAL: Final = NormalDist()
_PAIR: Final = struct.Struct("<QQ")
_KEY: Final = struct.Struct("<qq")


def drawn(
    *,
    seconds: float = 60.0,
    spread: float = 1.0,
    jitter: float = 0.25,
    online: float = 1.0,
    dropout: float = 0.0,
    seed: int = 0,
) -> Devices:
    """Return devices drawn from ``seed``, each the same whenever it is asked, none of them stored.

    Args:
        seconds: what a message takes the median device, communication included.
        spread: how much devices differ: the standard deviation of the logarithm of their seconds. With 1, one in six
            is more than 2.7 times slower than the median.
        jitter: how much the messages of one device differ, likewise.
        online: the part of a day for which a device is there, in one window that begins at an hour of its own. Work
            waits for the window, and goes on in the next one if it does not fit.
        dropout: the probability that a reply never comes.
        seed: decides all of it.

    Raises:
        UsageError: for a number out of range.

    """
    _check("seconds", seconds, 0.0, inf)
    _check("spread", spread, 0.0, inf)
    _check("jitter", jitter, 0.0, inf)
    _check("online", online, 1e-6, 1.0)
    _check("dropout", dropout, 0.0, 1.0)

    def arrival(node: Node, message: Metadata, at: float) -> float | None:
        slowness, begin = _uniform(b"device", seed, node.name, 0)
        luck, fate = _uniform(b"message", seed, node.name, message.message_id)
        if fate < dropout:
            return None
        work = seconds * exp(spread * _NORMAL.inv_cdf(slowness) + jitter * _NORMAL.inv_cdf(luck))
        return at + work if online == 1.0 else _in_windows(at, work, begin * _DAY, online * _DAY)

    return arrival


def _in_windows(at: float, work: float, begin: float, length: float) -> float:
    """Return when work that goes on in one window a day is done."""
    since = (at - begin) % _DAY
    if since >= length:
        at, since = at + _DAY - since, 0.0
    if work <= length - since:
        return at + work
    work -= length - since
    days = work // length
    return at + _DAY - since + days * _DAY + (work - days * length)


class Trace(NamedTuple):
    """One device: seconds that a message takes it, and the windows ``(begin, end)`` in which it is there, in order."""

    seconds: float
    windows: Sequence[tuple[float, float]] = ((-inf, inf),)


def traced(traces: Mapping[str, Trace]) -> Devices:
    """Return the devices of given traces, by node name; work goes on in the windows of its device, and nowhere else.

    A device that is not there long enough any more never replies. Raises ``UsageError`` for a trace that cannot be,
    and, when a node is asked, for one without a trace.
    """
    for name, trace in traces.items():
        _check(f"seconds of {name!r}", trace.seconds, 0.0, inf)
        ends = [time for window in trace.windows for time in window]
        if ends != sorted(ends):
            raise UsageError(
                f"expected windows in order of time, got {list(trace.windows)!r:.200}", at=f"trace of {name}"
            )

    def arrival(node: Node, _message: Metadata, at: float) -> float | None:
        if node.name not in traces:
            raise UsageError("expected a trace for every node that is asked, got none", at=f"trace of {node.name}")
        work = traces[node.name].seconds
        for begin, end in traces[node.name].windows:
            start = max(at, begin)
            if start < end and work <= end - start:
                return start + work
            work -= max(0.0, end - start)
        return None

    return arrival


def _uniform(domain: bytes, seed: int, name: str, number: int) -> tuple[float, float]:
    """Return two numbers between 0 and 1, both excluded, that depend on the arguments alone."""
    digest = blake3(domain + _KEY.pack(seed, number) + name.encode()).digest(16)
    first, second = _PAIR.unpack(digest)
    return ((first >> 11) + 0.5) * 2.0**-53, ((second >> 11) + 0.5) * 2.0**-53


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most or value == inf:
        above = f" to {most:g}" if most < inf else ", finite"
        raise UsageError(f"expected a number from {least:g}{above}, got {value!r}", at=name)
