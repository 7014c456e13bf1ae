"""What is done now and then: silent nodes are found, figures brought up to date, garbage collected."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from umbel.errors import LedgerDamaged, LedgerFailed, StoreError
from umbel.http import WARNING_DAYS, Certificate
from umbel.server._delivery import Delivery
from umbel.server._keeper import Keeper
from umbel.server._registry import Registry
from umbel.store import members

_LOG: Final = logging.getLogger("umbel.server")
_SWEEP: Final = 1.0  # seconds from one look at the nodes to the next
_COLLECT: Final = 600.0  # and from one pass over the blobs to the next
_STALE: Final = 6  # passes after which an upload that nobody goes on with is given up


class Housekeeping:
    """Runs as one task beside everything else, and outlives whatever the disk does."""

    def __init__(
        self,
        keeper: Keeper,
        delivery: Delivery,
        registry: Registry,
        certificate: Certificate | None,
        fatal: Callable[[StoreError], object],
    ) -> None:
        self._keeper = keeper
        self._delivery = delivery
        self._registry = registry
        self._certificate = certificate
        self._fatal = fatal
        self._seen: frozenset[str] = frozenset()
        self._passes = 0

    async def run(self) -> None:
        """Go on until cancelled; silent nodes are found however long an object store takes over its garbage."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._repeat(self._delivery.sweep, _SWEEP))
            both.create_task(self._repeat(self.collect, _COLLECT))

    async def _repeat(self, step: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            try:
                await step()
            except (LedgerDamaged, LedgerFailed) as error:
                self._fatal(error)
                return
            except StoreError as error:
                _LOG.error("housekeeping will be tried again: %s", error)
            except Exception:  # noqa: BLE001 - it is told, with where it was
                # Whatever it is, a server that no longer looks for silent nodes would let every round wait for ever.
                _LOG.exception("housekeeping met a fault, and will be tried again")
            await asyncio.sleep(pause)

    async def collect(self) -> None:
        """Delete blobs that nothing needs, and uploads that nobody goes on with; keep when members were seen."""
        seen = self._registry.seen()
        await self._keeper.commit(lambda connection: members.touch(connection, seen))
        self._seen = await asyncio.to_thread(self._keeper.collect, self._seen)
        if self._passes % _STALE == 0:
            await asyncio.to_thread(self._keeper.uploads.sweep)
        self._passes += 1
        if self._certificate is not None:
            _warn(self._certificate)


def _warn(certificate: Certificate) -> None:
    """Warn of a certificate that ends soon."""
    if certificate.days_left() < WARNING_DAYS:
        _LOG.warning("the certificate ends in %.0f days: put a new one in its place", certificate.days_left())
