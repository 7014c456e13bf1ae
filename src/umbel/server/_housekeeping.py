"""What is done now and then: silent nodes are found, figures brought up to date, blobs collected."""

import asyncio
from typing import Final

from umbel.server._delivery import Delivery
from umbel.server._metrics import Metrics
from umbel.server._registry import Registry

_SWEEP: Final = 1.0


class Housekeeping:
    """Runs as one task beside everything else."""

    def __init__(self, delivery: Delivery, registry: Registry, metrics: Metrics) -> None:
        self._delivery = delivery
        self._registry = registry
        self._metrics = metrics

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._delivery.sweep()
            self._metrics.nodes.set(self._registry.count_online())
            await asyncio.sleep(_SWEEP)
