"""Rounds over a server and nodes that are real processes: how long they take, and what they use."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from _processes import Peak, cpu_seconds
from _turns import HERE, PATIENCE

sys.path.insert(0, str(HERE.parent / "tests" / "faults"))

from federation import Federation


class Cluster(NamedTuple):
    """A server and its nodes: what speaks to them, and their processes."""

    here: Federation
    server: int
    nodes: list[int]

    @property
    def everyone(self) -> list[int]:
        return [self.server, *self.nodes]


@contextmanager
def federation(nodes: int, *, tls: bool, **settings: Any) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="umbel-bench-") as folder:
        here = Federation(Path(folder), HERE / "deployed", app="deployed_app:app", plain=not tls, settings=settings)
        try:
            server = here.serve()
            others = [here.node(f"node-{number}") for number in range(nodes)]
            wait_online(here, nodes)
            yield Cluster(here, server.process.pid, [node.process.pid for node in others])
        finally:
            here.close()


def wait_online(here: Federation, nodes: int) -> None:
    deadline = time.monotonic() + 300
    while sum(node.status == "online" for node in here.call("list_nodes").nodes) < nodes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{nodes} nodes were not online within 300 s")
        time.sleep(0.2)


def wait_ended(here: Federation, run: int) -> Any:
    """Wait until a run is completed, and return it in full."""
    return followed(here, run)[0]


def followed(here: Federation, run: int) -> tuple[Any, list[float]]:
    """Follow a run to its end; return it in full, and when each of its rounds was told to be on the server's disk.

    Raises ``TimeoutError`` for a run that hangs.
    """
    heard = []

    async def follow(client: Any) -> None:
        after, ended = 0, False
        while not ended:
            said = await client.call("run_events", run=run, after=after)
            now = time.perf_counter()
            heard.extend(now for event in said.events if event.kind == "RoundCompleted")
            after, ended = said.events[-1].number if said.events else after, said.ended

    here.ask(lambda client: asyncio.wait_for(follow(client), PATIENCE))
    view = here.view(run)
    if view.row.status != "completed":
        raise RuntimeError(f"expected a run that is completed, got one that is {view.row.status}: {view.row.reason}")
    return view, heard


def model(size: int, arrays: int) -> dict[str, Any]:
    """Random float32 arrays of so many bytes together."""
    rng = np.random.default_rng(1)
    each = size // arrays // 4
    return {f"layer.{number}": rng.random(each, np.float32) for number in range(arrays)}


class Taken(NamedTuple):
    """Seconds from each round to the next, CPU seconds a round over all processes, and peaks of anonymous memory.

    These are bytes above idle: of the server, of the largest node without its worker, and of all processes. ``laps``
    are the median seconds of the parts of a round, and of what nodes say of theirs; ``down`` and ``up`` what the
    slowest node of a round needs to fetch the model and to send its own, all nodes at once.
    """

    rounds: list[float]
    cpu: float
    server: int
    node: int
    together: int
    laps: dict[str, float]
    down: float
    up: float


def measure(cluster: Cluster, initial: dict[str, Any], rounds: int) -> Taken:
    """Run so many rounds and one before them, which brings the first model to the disks and counts for nothing."""
    warm_up(cluster, len(initial))
    here, used = cluster.here, cpu_seconds(cluster.everyone)
    with Peak(cluster.everyone, 0.05) as peak:
        view, heard = followed(here, here.submit(initial, nodes=len(cluster.nodes), rounds=rounds + 1))
    cpu = cpu_seconds(cluster.everyone) - used
    reports = view.reports[1:]
    asked = [(question.round, question.seconds) for question in view.questions if question.round > 1]
    return Taken(
        [after - before for before, after in pairwise(heard)],
        cpu / (rounds + 1),
        peak.growth(cluster.server),
        max(map(peak.growth, cluster.nodes)),
        peak.together - peak.idle_together,
        _middle([report["seconds"] for report in reports]) | _middle([seconds for _, seconds in asked]),
        _slowest(asked, "downloading"),
        _slowest(asked, "uploading"),
    )


def warm_up(cluster: Cluster, arrays: int) -> None:
    """Two rounds of a model of the same names: everything is loaded then, and holds the memory that it idles with."""
    wait_ended(cluster.here, cluster.here.submit(model(4 * arrays, arrays), nodes=len(cluster.nodes), rounds=2))


def _middle(given: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(each.get(name, 0.0) for each in given) for each in given[:1] for name in each}


def _slowest(asked: list[tuple[int, dict[str, float]]], part: str) -> float:
    """The seconds that the slowest node of a round takes for a part of it, in the middle of the rounds."""
    slowest: dict[int, float] = {}
    for number, seconds in asked:
        slowest[number] = max(slowest.get(number, 0.0), seconds[part])
    return median(slowest.values())


def idle(cluster: Cluster, seconds: float) -> list[float]:
    """Per cent of a core that each process takes when nothing is asked."""
    before = [cpu_seconds([each]) for each in cluster.everyone]
    time.sleep(seconds)
    after = [cpu_seconds([each]) for each in cluster.everyone]
    return [100 * (b - a) / seconds for a, b in zip(before, after, strict=True)]
