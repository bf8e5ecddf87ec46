"""Rate limit of the account, as an operator sets it in the Prefect UI, under concurrency limits.

A global concurrency limit named after the model holds the rate: the smaller of ``limit`` and
``slot_decay_per_second``. It is created if missing, never overwritten, and read every few seconds; 0 pauses.
Its slots are not acquired: they would not keep to the rate limit.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException

from s2v_tasks.models import DetectorSpec

POLL_EVERY_S: Final = 5.0


class RateLimitReader:
    """Reads the current rate limit and its source; use it as an async context manager."""

    def __init__(self, detector: DetectorSpec) -> None:
        self.rate_per_s = detector.rate_per_s
        self.source = "the model's documented rate (no Prefect limit read)"
        self._detector = detector
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with get_client() as client:
            await self._read(client)
        self._poller = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def _poll(self) -> None:
        async with get_client() as client:
            while True:
                await asyncio.sleep(POLL_EVERY_S)
                await self._read(client)

    async def _read(self, client: PrefectClient) -> None:
        """Read the limit; after an error the last rate stays in use."""
        with contextlib.suppress(PrefectException, httpx.HTTPError, TimeoutError, ValueError):
            limit = await _limit(client, self._detector)
            if limit.active:
                self.rate_per_s = rate_of(limit.limit, limit.slot_decay_per_second)
                self.source = f"Prefect concurrency limit '{limit.name}'"


def rate_of(limit: int, slot_decay_per_second: float | None) -> float:
    """Calls per second that a limit allows: the smaller of its two numbers; without decay, the limit."""
    return min(limit, slot_decay_per_second) if slot_decay_per_second else float(limit)


async def ensure_limit(client: PrefectClient, detector: DetectorSpec) -> bool:
    """Create the limit if it is missing; return whether it was created."""
    with contextlib.suppress(ObjectNotFound):
        await client.read_global_concurrency_limit_by_name(detector.model)
        return False
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(
                name=detector.model,
                limit=round(detector.rate_per_s),
                slot_decay_per_second=detector.rate_per_s,
            )
        )
        return True
    return False


async def _limit(client: PrefectClient, detector: DetectorSpec) -> GlobalConcurrencyLimitResponse:
    with contextlib.suppress(ObjectNotFound):
        return await client.read_global_concurrency_limit_by_name(detector.model)
    await ensure_limit(client, detector)
    return await client.read_global_concurrency_limit_by_name(detector.model)
