"""A pooler before PostgreSQL, PgBouncer: each transaction may get another connection of the server."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from ledger_backend import Backend
from ledger_cases import PASSED, opened, send_and_settle
from network import pgbouncer

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.storage import sources
from s2v_tasks.errors import UsageError

pytestmark = pytest.mark.needs("pgbouncer")


@pytest.fixture
async def database(new_postgresql: Callable[[], Any]) -> Backend:
    """A database, not reached through the pooler."""
    backend = await new_postgresql()
    assert isinstance(backend, Backend)
    return backend


async def test_a_ledger_works_behind_a_pooler_in_transaction_mode(database: Backend, tmp_path: Path) -> None:
    """Four programs share two connections of the server; every call is in the ledger."""
    with pgbouncer(database.url, tmp_path, "transaction") as url:
        async with AsyncExitStack() as stack:
            ledgers = [await stack.enter_async_context(Ledger(url, SystemClock())) for _ in range(4)]
            leases = [await opened(ledger, f"r{number}") for number, ledger in enumerate(ledgers)]

            async def many(number: int) -> None:
                for call in range(10):
                    await send_and_settle(leases[number], PASSED, f"{number}{call:031}")

            await asyncio.gather(*map(many, range(4)))
            assert (await leases[0].image_statuses([f"0{0:031}"]))[f"0{0:031}"].verdict is not None
    assert await database.sql("SELECT count(*) FROM attempts WHERE state = 'billed'") == [(40,)]


async def test_nothing_of_a_ledger_stays_on_a_pooled_connection(database: Backend, tmp_path: Path) -> None:
    """No setting and no prepared statement: the next transaction on it is another client's."""
    with pgbouncer(database.url, tmp_path, "transaction", default_pool_size=1) as url:
        other = await asyncpg.connect(url, statement_cache_size=0)
        settings = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"
        try:
            before = await other.fetch(settings)
            async with Ledger(url, SystemClock()) as ledger:
                await send_and_settle(await opened(ledger), PASSED)
                names = {row["name"] for row in await other.fetch(settings)} - {row["name"] for row in before}
                assert names <= {"application_name"}, "a pooler keeps it by itself"
                assert await other.fetch("SELECT name FROM pg_prepared_statements WHERE name <> ''") == []
        finally:
            await other.close()


async def test_a_query_works_behind_a_pooler_in_transaction_mode(
    database: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows come in batches, from one connection of the server; again and again."""
    with pgbouncer(database.url, tmp_path, "transaction") as url:
        monkeypatch.setenv("S2V_SOURCE_URL", url)
        text = "sql:SELECT n AS id, '{\"a\": 1}'::json AS j, '{2}'::int[] AS l FROM generate_series(1, 999) n"
        for _ in range(3):
            found = sources.find(text)
            rows = await asyncio.to_thread(lambda found=found: sources.scan(found).collect())
            assert (rows.height, rows["j"][0]) == (999, '{"a": 1}')


@pytest.mark.parametrize(
    ("mode", "option", "words"),
    [
        ("statement", "", "statement mode can't be used: take its transaction or session mode"),
        ("transaction", "?options=-csearch_path%3Dpublic", "set it for the role"),
    ],
)
async def test_what_a_pooler_can_not_do_is_said_at_once(
    database: Backend, tmp_path: Path, mode: str, option: str, words: str
) -> None:
    """Before anything is paid: the pooler's words, and what to do instead."""
    with pgbouncer(database.url, tmp_path, mode) as url, pytest.raises(UsageError, match=words):
        async with Ledger(url + option, SystemClock()):
            pass


async def test_a_pooler_in_session_mode_works_too(database: Backend, tmp_path: Path) -> None:
    """It needs a connection of the server for each of the program's."""
    with pgbouncer(database.url, tmp_path, "session", default_pool_size=4) as url:
        async with Ledger(url, SystemClock()) as ledger:
            await send_and_settle(await opened(ledger), PASSED)


async def test_a_session_pool_that_is_too_small_is_said_at_once(database: Backend, tmp_path: Path) -> None:
    """Not after the first payment; in a bounded time."""
    options = {"query_wait_timeout": 1}
    with pgbouncer(database.url, tmp_path, "session", **options) as url:
        ledger = Ledger(url, SystemClock())
        with pytest.raises(UsageError, match="query_wait_timeout"):
            await ledger.__aenter__()
