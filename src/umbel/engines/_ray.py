"""Ray as a grid needs it: batches of messages in, results out. The one module that knows Ray."""

import socket
import weakref
from collections.abc import Iterable
from math import ceil, inf
from time import monotonic
from typing import Any, Final

from umbel.engines._batch import Results, Sent, joined, run_batch
from umbel.engines._contents import KEPT, Version
from umbel.engines._raycluster import RayCluster, host_and_port, may_lead_to
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
# The addresses that were asked for, and the cluster that each led this process to.
_led_to: Final[dict[str, str]] = {}


class RayTasks:
    """The tasks of one grid on a Ray cluster."""

    def __init__(self, cluster: RayCluster, workers: int | None) -> None:
        self._ray = _imported()
        self._owned = _connect(self._ray, cluster, workers)
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
    """Connect to a cluster unless this process is already, and say whether it was started for this."""
    if ray.is_initialized():
        _require_same(ray, cluster.address)
        return False
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
    _led_to[address] = ray.get_runtime_context().gcs_address
    return False


def _require_same(ray: Any, asked: str | None) -> None:
    """Raise ``UsageError`` for the address of another cluster than that which this process is connected to.

    A process has one, and Ray would go on with that in silence.
    """
    connected = ray.get_runtime_context().gcs_address
    names = [connected, *(address for address, cluster in _led_to.items() if cluster == connected)]
    if asked is None or asked in names:
        return
    here, by_client = ray.util.get_node_ip_address(), ray.util.client.ray.is_connected()
    if not may_lead_to(asked, names, here, by_client=by_client):
        raise UsageError(
            f"expected the Ray cluster at {asked}, but this process is connected to the one at {names[-1]}, and it can "
            "have one only: call ray.shutdown() first, leave the address out to use what is there, or run this in a "
            "process of its own",
            at="cluster",
        )


def _require_somebody(address: str) -> None:
    """Raise an OSError if nobody listens at an address with a port: Ray itself would go on trying for minutes."""
    host, port = host_and_port(address)
    if port:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _room(ray: Any, cluster: RayCluster) -> int:
    """Return how many nodes the cluster has room for at once."""
    has = ray.cluster_resources()
    wanted = {"CPU": cluster.num_cpus, "GPU": cluster.num_gpus}
    room = min((int(has.get(name, 0.0) / count) for name, count in wanted.items() if count), default=len(ray.nodes()))
    if room < 1:
        needs = " and ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
        raise UsageError(f"expected a Ray cluster with {needs} for a node, got one with {has}", at="cluster")
    return room
