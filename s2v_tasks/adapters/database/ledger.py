"""The ledger: an open database and what is kept in it. Runs, money, verdicts, headers, canonical images."""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import ClassVar, Self, Unpack

import polars as pl

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database.attempt_store import AttemptStore
from s2v_tasks.adapters.database.canonical_images import CanonicalImages
from s2v_tasks.adapters.database.connection import Database, Opening
from s2v_tasks.adapters.database.header_cache import HeaderCache
from s2v_tasks.adapters.database.lease import Lease, LeaseOwner
from s2v_tasks.adapters.database.lease_store import LeaseStore
from s2v_tasks.adapters.database.ledger_reader import LedgerReader
from s2v_tasks.adapters.database.rate_limit_store import RateLimitStore
from s2v_tasks.adapters.database.revocation import Revocations
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain.ledger import ImageStatus, Scope
from s2v_tasks.settings import OnLostResponse


class Ledger:
    """A ledger; use it as an async context manager.

    Opening it creates one in an empty database, and upgrades an older one; `Opening` says otherwise.

    ``headers``: the header cache. ``canonical_images``: which image represents its bytes. ``revocations``:
    verdicts that no longer hold. What a run does to it goes through the handle of `open_run`.
    """

    database_type: ClassVar[type[Database]] = Database
    """How the database is opened."""

    def __init__(self, url: str, clock: Clock, **opening: Unpack[Opening]) -> None:
        self.database = self.database_type(url, clock, **opening)
        self.headers = HeaderCache(self.database)
        self.canonical_images = CanonicalImages(self.database)
        self.revocations = Revocations(self.database)
        self._reader = LedgerReader(self.database)
        self._rate_limits = RateLimitStore(self.database)
        self._leases = LeaseStore(self.database, self._rate_limits)
        self._attempts = AttemptStore(self.database, self._leases, self._rate_limits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database.shown})"

    @property
    def version(self) -> int:
        """The version of the schema that was found: 0 if the ledger was created."""
        return self.database.version

    async def __aenter__(self) -> Self:
        await self.database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.database.__aexit__(kind, error, trace)

    def end_waits_within(self, seconds: float) -> None:
        """From now on wait for the database that long at most, counted from here: the process is to end."""
        self.database.patience.end_within(seconds)

    async def open_run(
        self, run_id: str, scope: Scope, budget: str, cap_images: int, on_lost_response: OnLostResponse
    ) -> RunLedger:
        """Take the lease of a run, new or left behind.

        Args:
            run_id: The run.
            scope: Service, account and detector.
            budget: The name of the budget that it draws on.
            cap_images: How many images that budget buys.
            on_lost_response: What a lost response means for its image.

        Raises:
            UsageError: A living process holds this run, or the ledger was upgraded since it was opened.
        """
        lease = Lease(run_id, LeaseOwner.current(), budget, scope, on_lost_response)
        try:
            await self._leases.take(lease, cap_images)
        except BaseException:
            lease.owner.let_go()
            raise
        return RunLedger(lease, self._reader, self._leases, self._rate_limits, self._attempts)

    async def image_statuses(self, scope: Scope, image_keys: Sequence[str]) -> dict[str, ImageStatus]:
        """What the ledger knows about each of some images (up to a few thousand); no run's own calls."""
        return await self._reader.image_statuses(scope, image_keys)

    async def known_keys(self, scope: Scope, image_keys: Sequence[str]) -> set[str]:
        """Those of some keys that the ledger holds a verdict or an attempt of."""
        return await self._reader.known_keys(scope, image_keys)

    async def possibly_known(
        self, scope: Scope, image_keys: pl.Series, between: tuple[str, str]
    ) -> pl.Series:
        """Those of a partition's keys that the ledger may know; see `LedgerReader.possibly_known`."""
        return await self._reader.possibly_known(scope, image_keys, between)

    def attempts(self) -> AsyncIterator[pl.DataFrame]:
        """Every attempt, oldest first, in frames of `s2v_tasks.domain.ledger_report.SCHEMA`."""
        return self._reader.attempts()
