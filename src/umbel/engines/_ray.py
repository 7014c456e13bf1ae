"""Ray as a grid needs it: batches of messages in, results out. The one module that knows Ray."""

import socket
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from time import monotonic
from typing import Any, Final

from umbel.engines._batch import Results, Sent, joined, run_batch
from umbel.engines._contents import KEPT, Version
from umbel.errors import MissingExtra, UsageError

# A Ray task costs milliseconds, so short messages share one: as many as take about so long, of so many bytes at most.
_SECONDS: Final = 0.25
_BYTES: Final = 64 * 2**20
_MOST: Final = 64
# Seconds of one wait: within a longer one Ray looks only once a second whether it was interrupted.
_LOOK: Final = 0.1
_PATIENCE: Final = 10.0  # seconds for a cluster to be there
# From this version on, a cluster that `ray.init` starts asks everyone for a token, unless its user said otherwise.
_AUTHENTICATES: Final = (2, 59)


@dataclass(frozen=True)
class RayCluster:
    """Which Ray cluster runs nodes, and what a node takes of it.

    ``address`` is that of a cluster (``"auto"``, ``"host:6379"``, ``"ray://host:10001"``); None starts one on this
    machine. A node takes ``num_cpus`` and ``num_gpus`` while it runs; fractions let nodes share a GPU.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class RayTasks:
    """The tasks of one grid on a Ray cluster."""

    def __init__(self, cluster: RayCluster, workers: int | None) -> None:
        self._ray = _imported()
        self._owned = not self._ray.is_initialized() and _connect(self._ray, cluster, workers)
        self.room = _room(self._ray, cluster) if workers is None else workers
        self.size = 1
        needs = {"num_cpus": cluster.num_cpus, "num_gpus": cluster.num_gpus, "max_retries": 0}
        self._run = self._ray.remote(**needs)(run_batch)
        self._contents: dict[int, Any] = {}
        if self._owned:
            weakref.finalize(self, self._ray.shutdown)

    def submit(self, sent: Sent, version: Version) -> Any:
        """Start a task over messages that carry one version of a content."""
        if version.number not in self._contents:
            self._contents[version.number] = self._ray.put(joined(version.segments))
            if len(self._contents) > KEPT:
                del self._contents[next(iter(self._contents))]
        return self._run.remote(sent, self._contents[version.number])

    def ready(self, tasks: Iterable[Any], patience: float | None) -> list[Any]:
        """Wait for tasks, at most ``patience`` seconds, and return those that are over."""
        tasks, until = list(tasks), inf if patience is None else monotonic() + patience
        while True:
            ready, _ = self._ray.wait(tasks, num_returns=1, timeout=min(_LOOK, max(0.0, until - monotonic())))
            if ready or monotonic() >= until:
                return list(ready)

    def results(self, task: Any) -> Results | str:
        """Return what a task made, or why it made nothing."""
        try:
            results: Results = Results(*self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            return f"{type(error).__name__}: {error!s:.500}"
        self._learn(results)
        return results

    def _learn(self, results: Results) -> None:
        """Let as many messages share a task as make it worth its cost."""
        if results.answers:
            count = len(results.answers)
            size = sum(0 if content is None else content.nbytes for _, content, _ in results.answers)
            by_time = _SECONDS * count / max(results.seconds, 1e-6)
            self.size = int(max(1, min(by_time, _BYTES * count / max(size, 1), _MOST)))

    def kill(self, tasks: Iterable[Any]) -> None:
        """End tasks with the processes that they run in."""
        for task in tasks:
            self._ray.cancel(task, force=True)

    def stop(self, tasks: Iterable[Any]) -> None:
        """End tasks, and the cluster if it was started here."""
        self._contents.clear()
        if not self._ray.is_initialized():
            return
        if self._owned:
            self._ray.shutdown()  # with whatever runs there
        else:
            self.kill(tasks)


def _imported() -> Any:
    try:
        import ray  # noqa: PLC0415 - optional, and a second to import
    except ImportError as error:
        raise MissingExtra('the engine "ray" needs Ray, which is not installed: pip install "umbel[ray]"') from error
    if tuple(map(int, ray.__version__.split(".")[:2])) < _AUTHENTICATES:
        raise MissingExtra(
            f'the engine "ray" needs Ray 2.59 or newer, which authenticates by itself, got {ray.__version__}: '
            'pip install "umbel[ray]"'
        )
    return ray


def _connect(ray: Any, cluster: RayCluster, workers: int | None) -> bool:
    """Connect to a cluster, and say whether it was started for this."""
    quiet = {"log_to_driver": False, "configure_logging": False}
    address = cluster.address
    if address is None:
        cpus = None if workers is None else ceil(workers * cluster.num_cpus)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        return True
    try:
        _require_somebody(address)
        ray.init(address=address, **quiet)
    except OSError as error:  # of which a ConnectionError is one
        raise UsageError(f"expected a Ray cluster at {address}, got none: {error!s:.200}", at="cluster") from error
    return False


def _require_somebody(address: str) -> None:
    """Raise an OSError if nobody listens at an address with a port: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _room(ray: Any, cluster: RayCluster) -> int:
    """Return how many nodes the cluster has room for at once."""
    has = ray.cluster_resources()
    wanted = {"CPU": cluster.num_cpus, "GPU": cluster.num_gpus}
    room = min((int(has.get(name, 0.0) / count) for name, count in wanted.items() if count), default=len(ray.nodes()))
    if room < 1:
        needs = " and ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
        raise UsageError(f"expected a Ray cluster with {needs} for a node, got one with {has}", at="cluster")
    return room
