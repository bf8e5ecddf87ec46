"""Transactions that PostgreSQL ends in favour of others, and defaults of a role that would cause them."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from ledger_backend import Backend
from ledger_cases import KEY, PASSED, opened, reserved, send_and_settle, states, wait_for_a_lock

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.group_commit import CONFLICTS, shielded
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.errors import LedgerUnavailable


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_a_default_isolation_level_stops_no_run(new_postgresql: Callable[[], Any], level: str) -> None:
    """Three programs at once, on a database whose default is stricter than what the ledger rests on."""
    backend: Backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    await backend.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")

    async def run(number: int) -> None:
        async with Ledger(backend.url, SystemClock()) as ledger:
            lease = await opened(ledger, f"r{number}")
            for call in range(15):
                await send_and_settle(lease, PASSED, f"{number}{call:031}")

    await asyncio.gather(*map(run, range(3)))
    assert await backend.sql("SELECT count(*) FROM attempts WHERE state = 'billed'") == [(45,)]


async def test_a_transaction_that_a_deadlock_ends_is_repeated(new_postgresql: Callable[[], Any]) -> None:
    """The response is stored once the other transaction is over; no run stops for it."""
    backend: Backend = await new_postgresql()
    async with Ledger(backend.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        call = await reserved(lease)
        other = await asyncpg.connect(backend.url)
        try:
            async with other.transaction():
                await other.execute("SET LOCAL deadlock_timeout = '60s'")  # the ledger's side finds it
                await other.execute("UPDATE verdicts SET reason = reason")
                await other.execute("LOCK TABLE verdicts IN ACCESS EXCLUSIVE MODE")
                settling = asyncio.create_task(lease.settle(KEY, call.attempt_id, PASSED))
                await wait_for_a_lock(backend)
                await other.execute("UPDATE attempts SET host = host")
            await asyncio.wait_for(settling, 60)
        finally:
            await other.close()
    assert await states(backend) == ["billed"]


async def test_a_call_that_always_loses_ends() -> None:
    """After a few attempts its error is the caller's; any other error is so at once."""
    calls: list[bool] = []

    @shielded
    async def call(*, lost: bool) -> None:
        calls.append(lost)
        error = LedgerUnavailable("the ledger can't be used")
        error.lost_conflict = lost
        raise error

    for lost, times in ((True, CONFLICTS), (False, 1)):
        calls.clear()
        with pytest.raises(LedgerUnavailable):
            await call(lost=lost)
        assert len(calls) == times
