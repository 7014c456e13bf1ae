"""What Prometheus can ask of a server."""

from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from umbel.errors import UmbelError
from umbel.http import Call, Handler, Handlers

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The counters and gauges of one server, in a registry of its own: nothing of the process leaks in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.rounds = Counter("umbel_rounds", "Rounds completed", registry=own)
        self.messages = Counter("umbel_messages", "Messages by what became of them", ["outcome"], registry=own)
        self.bytes = Counter("umbel_blob_bytes", "Bytes of blobs that went or came", registry=own)
        self.nodes = Gauge("umbel_nodes_online", "Nodes that are there", registry=own)
        self.runs = Gauge("umbel_runs_active", "Runs that are being driven", registry=own)
        self.commits = Histogram(
            "umbel_ledger_commit_seconds",
            "From handing a change to the ledger until it is on disk",
            registry=own,
            buckets=_SECONDS,
        )
        self.requests = Counter(
            "umbel_requests", "Requests by endpoint and status", ["endpoint", "answer"], registry=own
        )

    def counting(self, handlers: Handlers) -> Handlers:
        """Return handlers that do the same, and are counted, with the code of what they refuse."""
        return {name: partial(self._counted, name, handler) for name, handler in handlers.items()}

    async def _counted(self, name: str, handler: Handler, call: Call) -> Any:
        try:
            answer = await handler(call)
        except UmbelError as error:
            self.requests.labels(name, error.code).inc()
            raise
        self.requests.labels(name, "ok").inc()
        return answer
