"""A database that falls silent (no response, no end of the connection): each wait for it has an end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ledger_cases import HOST, PASSED, RATE, opened, send_and_settle
from network import Proxy, proxy_to

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import connection
from s2v_tasks.adapters.database.group_commit import FINISH_S, finish
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.patience import Patience
from s2v_tasks.adapters.storage import sources
from s2v_tasks.adapters.storage.query import Query
from s2v_tasks.domain.ledger import Reserved
from s2v_tasks.errors import LedgerUnavailable, UsageError

HANG_S = 60.0
"""Only a hang takes so long."""


@pytest.fixture
async def proxy(new_postgresql: Callable[[], Any]) -> AsyncIterator[Proxy]:
    """A proxy to a database of the test's own."""
    async with proxy_to((await new_postgresql()).url).running() as proxy:
        yield proxy


@asynccontextmanager
async def at_most(seconds: float = HANG_S) -> AsyncIterator[None]:
    """The block ends by itself within that time."""
    began_s = time.monotonic()
    async with asyncio.timeout(HANG_S):
        yield
    assert time.monotonic() - began_s < seconds


async def test_a_ledger_that_falls_silent_is_unavailable_once_the_run_is_to_stop(proxy: Proxy) -> None:
    """What is under way and what comes after it: nothing is waited for beyond the end that is set then."""
    async with at_most(20.0), Ledger(proxy.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        reserved = await lease.reserve("a" * 32, HOST, RATE)
        assert isinstance(reserved, Reserved)
        proxy.fall_silent()
        waiting = [
            asyncio.create_task(lease.reserve("b" * 32, HOST, RATE)),
            asyncio.create_task(lease.settle("a" * 32, reserved.attempt_id, PASSED)),
            asyncio.create_task(lease.image_statuses(["a" * 32])),
            asyncio.create_task(lease.heartbeat()),
        ]
        await asyncio.sleep(0.2)
        ledger.database.patience.end_within(1.0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [LedgerUnavailable] * 4
        assert "does not respond" in str(results[0])
        with pytest.raises(LedgerUnavailable, match="does not respond"):
            await lease.close("stopped")


@pytest.mark.ci
async def test_a_ledger_that_falls_silent_is_unavailable_by_itself(proxy: Proxy) -> None:
    """Within the time that a transaction has."""
    async with at_most(connection.WRITE_S + 15.0), Ledger(proxy.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        proxy.fall_silent()
        with pytest.raises(LedgerUnavailable, match="does not respond"):
            await lease.reserve("a" * 32, HOST, RATE)


@pytest.mark.ci
async def test_a_connection_that_was_dropped_while_it_was_idle_is_replaced(proxy: Proxy) -> None:
    """As address translation does it, after minutes: neither side is notified, and new connections work."""
    async with at_most(), Ledger(proxy.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        before = proxy.connections
        proxy.fall_silent(for_new_ones=False)
        await send_and_settle(lease, PASSED)
        assert proxy.connections > before


async def test_a_server_that_takes_connections_and_says_nothing_is_said_at_once(proxy: Proxy) -> None:
    """While the ledger is opened, within ``connect_timeout``; no error without words."""
    proxy.fall_silent()
    async with at_most(20.0):
        with pytest.raises(UsageError, match="does not respond"):
            async with Ledger(f"{proxy.url}?connect_timeout=2", SystemClock()):
                pass


async def test_a_cancelled_call_is_not_finished_at_any_price() -> None:
    """It is waited for, but not for ever: a call without a response would outlive every signal."""
    waiting = asyncio.create_task(asyncio.Event().wait())
    finishing = asyncio.create_task(finish(waiting, 0.2))
    await asyncio.sleep(0)
    finishing.cancel()  # a second signal
    await asyncio.wait({waiting}, timeout=HANG_S)
    assert waiting.cancelled()
    assert FINISH_S < 25.0
    finished = asyncio.create_task(asyncio.sleep(0.1, "done"))
    await finish(finished, HANG_S)
    assert finished.result() == "done"


async def test_waits_end_together_and_none_begins_after_the_end() -> None:
    """`end_within` brings the ends of all waits forward, and moves none back."""
    patience = Patience()
    patience.end_within(0.1)
    patience.end_within(1000.0)
    for seconds in (None, 1000.0):
        async with at_most():
            with pytest.raises(TimeoutError):
                async with patience.wait(seconds):
                    await asyncio.Event().wait()


async def test_a_query_ends_when_it_is_cancelled(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread would hold up the process, whatever signal came."""
    monkeypatch.setenv("S2V_SOURCE_URL", proxy.url)
    (query,) = sources.find("sql:SELECT pg_sleep(1000)")
    assert isinstance(query, Query)
    reading = asyncio.create_task(asyncio.to_thread(query.scan))
    async with at_most():
        await proxy.connected.wait()
        proxy.fall_silent()
        query.cancel()
        await asyncio.wait({reading})
