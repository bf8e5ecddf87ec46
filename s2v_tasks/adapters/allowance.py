"""The account's allowance, as an operator sets it on Prefect's page of concurrency limits.

A global concurrency limit named after the model holds the number: ``limit`` and ``slot_decay_per_second``, of
which the smaller counts. It is created if missing, never overwritten, and read every few seconds; 0 pauses.
Its slots are not taken: they would not keep the pace (README, "The rate is on Prefect's page").
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

from s2v_tasks.models import Profile

LOOK_EVERY_S: Final = 5.0


class Allowance:
    """The rate now, and where it is from; use it as an async context manager."""

    def __init__(self, profile: Profile) -> None:
        self.rate_per_s = profile.rate_per_s
        self.source = "the model's documented rate (no Prefect limit read)"
        self._profile = profile
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with get_client() as client:
            await self._look(client)
        self._watch = asyncio.create_task(self._keep_looking())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _keep_looking(self) -> None:
        async with get_client() as client:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self._look(client)

    async def _look(self, client: PrefectClient) -> None:
        """Read the limit; whatever goes wrong, the last known rate stays."""
        with contextlib.suppress(PrefectException, httpx.HTTPError, TimeoutError, ValueError):
            limit = await _limit(client, self._profile)
            if limit.active:
                self.rate_per_s = rate_of(limit.limit, limit.slot_decay_per_second)
                self.source = f"Prefect concurrency limit '{limit.name}'"


def rate_of(limit: int, slot_decay_per_second: float | None) -> float:
    """Calls per second that a limit allows: the smaller of its two numbers; without decay, the limit."""
    return min(limit, slot_decay_per_second) if slot_decay_per_second else float(limit)


async def ensure_limit(client: PrefectClient, profile: Profile) -> bool:
    """Make the limit if it is missing; whether it was."""
    with contextlib.suppress(ObjectNotFound):
        await client.read_global_concurrency_limit_by_name(profile.model)
        return False
    with contextlib.suppress(ObjectAlreadyExists):
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(
                name=profile.model,
                limit=round(profile.rate_per_s),
                slot_decay_per_second=profile.rate_per_s,
            )
        )
        return True
    return False


async def _limit(client: PrefectClient, profile: Profile) -> GlobalConcurrencyLimitResponse:
    with contextlib.suppress(ObjectNotFound):
        return await client.read_global_concurrency_limit_by_name(profile.model)
    await ensure_limit(client, profile)
    return await client.read_global_concurrency_limit_by_name(profile.model)
