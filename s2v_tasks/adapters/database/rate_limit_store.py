"""Rate limits, a row for each account: a transaction locks it first, so that send times are in order."""

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.domain import rate_limit
from s2v_tasks.domain.detect import DetectResponse
from s2v_tasks.domain.ledger import Scope


class RateLimitStore:
    """The rate limits of accounts, in an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @shielded
    async def slow_down(self, scope: Scope, sent_us: int, response: DetectResponse) -> float:
        """Pause every process of the account after a 429 for a call that was sent at ``sent_us``.

        Returns:
            Until when, in seconds on the local clock.
        """
        retry_after_us = round((response.retry_after_s or 0.0) * rate_limit.SECOND_US)
        async with self._database.transaction() as db:
            before = await self.lock(db, scope)
            now_us = await self._database.now_us(db)
            state = rate_limit.throttled(before, sent_us, now_us, retry_after_us, burst=response.is_burst)
            await self.store(db, scope, state)
        return self._database.to_local_s(state.paused_until_us)

    # -- inside a transaction ------------------------------------------------------------------------------

    async def create(self, db: AsyncConnection, scope: Scope) -> None:
        """Insert the row, unless it is there."""
        values = {**_key(scope), **asdict(rate_limit.RateLimitState())}
        await db.execute(self._database.insert(t.rate_limits).values(values).on_conflict_do_nothing())

    async def lock(self, db: AsyncConnection, scope: Scope) -> rate_limit.RateLimitState:
        """Lock the row until the end of the transaction, and read it."""
        wanted = sa.select(t.rate_limits).filter_by(**_key(scope)).with_for_update()
        row = (await db.execute(wanted)).mappings().one()
        return rate_limit.RateLimitState(
            **{name: row[name] for name in rate_limit.RateLimitState.__dataclass_fields__}
        )

    async def store(self, db: AsyncConnection, scope: Scope, state: rate_limit.RateLimitState) -> None:
        """Update the row that is locked."""
        await db.execute(sa.update(t.rate_limits).filter_by(**_key(scope)).values(**asdict(state)))


def _key(scope: Scope) -> dict[str, str]:
    return {"account": scope.account, "model": scope.detector.model, "service": scope.service}
