"""The ledger as one run sees it: reserve, postpone and heartbeat require its lease; calls are batched."""

import asyncio
from collections.abc import Sequence
from functools import partial

import polars as pl

from s2v_tasks.adapters.database.attempt_store import (
    AttemptStore,
    PostponeRequest,
    ReserveRequest,
    ReserveResult,
    Settlement,
)
from s2v_tasks.adapters.database.group_commit import Batcher, shielded
from s2v_tasks.adapters.database.lease import Lease
from s2v_tasks.adapters.database.lease_store import LeaseStore
from s2v_tasks.adapters.database.ledger_reader import LedgerReader
from s2v_tasks.adapters.database.rate_limit_store import RateLimitStore
from s2v_tasks.domain.detect import DetectResponse
from s2v_tasks.domain.ledger import ImageStatus, Reserved, Scope, State
from s2v_tasks.settings import OnLostResponse


class RunLedger:
    """A handle bound to a run's lease; `Ledger.open_run` returns one."""

    def __init__(
        self,
        lease: Lease,
        reader: LedgerReader,
        leases: LeaseStore,
        rate_limits: RateLimitStore,
        attempts: AttemptStore,
    ) -> None:
        self._lease = lease
        self._reader = reader
        self._leases = leases
        self._rate_limits = rate_limits
        self._attempts = attempts
        self._reserving = Batcher(partial(attempts.reserve, lease))
        self._postponing = Batcher(partial(attempts.postpone, lease))
        self._settling = Batcher(partial(attempts.settle, lease))

    @property
    def run_id(self) -> str:
        """The run that holds the lease."""
        return self._lease.run_id

    @property
    def scope(self) -> Scope:
        """Service, account and detector."""
        return self._lease.scope

    @property
    def on_lost_response(self) -> OnLostResponse:
        """What a lost response means for its image."""
        return self._lease.on_lost_response

    async def possibly_known(self, image_keys: pl.Series, between: tuple[str, str]) -> pl.Series:
        """Those of a partition's keys that the ledger may know; see `LedgerReader.possibly_known`."""
        return await self._reader.possibly_known(self.scope, image_keys, between)

    async def image_statuses(self, image_keys: Sequence[str]) -> dict[str, ImageStatus]:
        """What the ledger knows about each of some images (up to a few thousand)."""
        return await self._reader.image_statuses(self.scope, image_keys, self.run_id)

    async def revoked_keys(self, image_keys: Sequence[str]) -> set[str]:
        """Those of some images (up to a few hundred) of which a verdict was revoked."""
        return await self._reader.revoked_keys(image_keys)

    async def charges(self) -> dict[State, int]:
        """What the run was charged, in micro-USD, by state of the attempts."""
        return await self._reader.charges(self.run_id)

    async def reserve(
        self, image_key: str, host: str, rate_per_s: float, lead_s: float = 0.0
    ) -> ReserveResult:
        """Reserve image, money and a send time at least ``lead_s`` away, in one transaction.

        A reservation whose caller is cancelled meanwhile is released.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        done: list[Reserved] = []
        try:
            return await self._reserve(ReserveRequest(image_key, host, rate_per_s, lead_s), done)
        except asyncio.CancelledError:
            for reserved in done:
                await self.release(reserved)
            raise

    @shielded
    async def _reserve(self, request: ReserveRequest, done: list[Reserved]) -> ReserveResult:
        result = await self._reserving(request)
        if isinstance(result, Reserved):
            done.append(result)
        return result

    @shielded
    async def postpone(self, reserved: Reserved, rate_per_s: float, lead_s: float = 0.0) -> Reserved:
        """Reserve a new send time, at least ``lead_s`` away, for a call that missed its own.

        The lead is for the time that it takes to write this one down, or on a slow disk it would be missed
        again.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        return await self._postponing(PostponeRequest(reserved, rate_per_s, lead_s))

    @shielded
    async def release(self, reserved: Reserved) -> None:
        """Delete a reservation whose call was never sent, and give its money back."""
        await self._attempts.release(self._lease, reserved)

    @shielded
    async def settle(self, image_key: str, attempt_id: int, response: DetectResponse) -> None:
        """Store a response: the attempt's state, the money and, if its code is listed, the verdict.

        Allowed even to a run that lost its lease: a response that was received is never thrown away.
        """
        await self._settling(Settlement(image_key, attempt_id, response))

    async def slow_down(self, sent_us: int, response: DetectResponse) -> float:
        """Pause every process of the account after a 429; returns until when, on the local clock."""
        return await self._rate_limits.slow_down(self.scope, sent_us, response)

    async def heartbeat(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        await self._leases.renew(self._lease)

    async def close(self, status: str) -> None:
        """Give the lease back with the run's final status.

        This process may take it again at once, even if the database can't store that.
        """
        try:
            await self._leases.release(self._lease, status)
        finally:
            self._lease.owner.let_go()
