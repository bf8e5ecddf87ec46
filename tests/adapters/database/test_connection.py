"""The database below the ledger: creation by several at once, settings, locks, lost connections."""

# ruff: noqa: S608 - statements are put together from this file's own words

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import polars as pl
import pytest
from ledger_cases import (
    HOST,
    KEY,
    RATE,
    SECRET,
    opened,
    reserved,
    settings_of,
    silence,
    states,
    used,
    wait_for_a_lock,
)

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.connection import redact_password, shown_url
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.errors import LedgerUnavailable, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT


async def test_several_can_create_the_ledger_at_once(backend: Any) -> None:
    """Eight at once on an empty database."""
    doors = [Ledger(backend.url, SystemClock()) for _ in range(8)]
    try:
        await asyncio.gather(*(door.__aenter__() for door in doors))
        await asyncio.gather(*(opened(door, f"run-{n}") for n, door in enumerate(doors)))
    finally:
        await asyncio.gather(*(door.__aexit__(None, None, None) for door in doors))


async def test_sqlite_writes_survive_a_power_cut(tmp_path: Path) -> None:
    """WAL with synchronous FULL, and ten seconds of patience with others."""
    from ledger_backend import Backend

    seen = await settings_of(
        Backend(f"sqlite:///{tmp_path / 'l.sqlite3'}"), ["journal_mode", "synchronous", "busy_timeout"]
    )
    assert seen == {"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"}


async def test_postgresql_writes_survive_a_power_cut(new_postgresql: Callable[[], Any]) -> None:
    """Even where the database's defaults are others; and no process waits for a stuck one for ever."""
    backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    await backend.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await backend.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    wanted = {
        "synchronous_commit": "on",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "10s",
        "transaction_isolation": "read committed",
    }
    assert await settings_of(backend, list(wanted)) == wanted


async def test_taking_over_a_run_and_a_late_response_do_not_lock_each_other_out(
    new_postgresql: Callable[[], Any],
) -> None:
    """PostgreSQL would end one of them: both take the attempt first and the budget after it."""
    backend = await new_postgresql()
    async with Ledger(backend.url, SystemClock()) as ledger:
        call = await reserved(await opened(ledger))
        await silence(backend, "run")
        late = await asyncpg.connect(backend.url)  # a settling, stopped between its two statements
        try:
            settling = late.transaction()
            await settling.start()
            await late.execute("UPDATE attempts SET state = 'not_billed' WHERE id = $1", call.attempt_id)
            taking = asyncio.create_task(opened(ledger))
            await wait_for_a_lock(backend)
            await late.execute("UPDATE budgets SET used = used - 1")
            await settling.commit()
            await asyncio.wait_for(taking, 60)
        finally:
            await late.close()
    assert (await states(backend), await used(backend)) == (["not_billed"], 0)


async def test_a_postgresql_that_ends_connections_is_unavailable_and_then_used_again(
    new_postgresql: Callable[[], Any], postgresql_server: str
) -> None:
    """In the middle of a statement and before one; once it is back, the ledger goes on."""
    backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    admin = type(backend)(postgresql_server.format("postgres"))
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    async with Ledger(backend.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        holder = await asyncpg.connect(backend.url)
        await holder.execute("BEGIN")
        await holder.execute("SELECT * FROM rate_limits FOR UPDATE")
        waiting = asyncio.create_task(lease.reserve(KEY, HOST, RATE))
        await wait_for_a_lock(backend)
        await admin.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.sql(end)
        with pytest.raises(LedgerUnavailable, match="fix that and run the same command again") as caught:
            await waiting
        assert "\n" not in str(caught.value)
        with pytest.raises(LedgerUnavailable):
            await lease.heartbeat()
        await holder.close()
        await admin.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await reserved(lease)


@pytest.mark.parametrize("broken", ["garbage", "table"])
async def test_a_sqlite_file_that_breaks_in_mid_run_is_unavailable(tmp_path: Path, broken: str) -> None:
    """Overwritten or tampered with: the run stops and says which ledger."""
    from ledger_backend import Backend

    path = tmp_path / "ledger.sqlite3"
    backend = Backend(f"sqlite:///{path}")
    async with Ledger(backend.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        if broken == "table":
            await backend.sql("DROP TABLE rate_limits")
        else:
            await backend.sql("PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                file.write(b"no database any more " * 4000)
        with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3"):
            await lease.reserve(KEY, HOST, RATE)
        with pytest.raises(LedgerUnavailable):
            await lease.reserve(KEY, HOST, RATE)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{tmp}",
        "sqlite:///{tmp}/text.txt",
        "sqlite:///{tmp}/no/such/folder/ledger.sqlite3",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "mysql://u:sesame@127.0.0.1/db",
        "ledger.sqlite3",
        "",
        "postgresql://u:sesame@127.0.0.1:1/db",
        "postgresql://u@127.0.0.1:1/db?password=sesame",
        "postgresql://u:sesame@127.0.0.1:port/db",
        "postgresql://u:sesame@127.0.0.1:1/db?no_such_option=1",
    ],
)
async def test_a_ledger_that_can_not_be_used_is_bad_usage_in_one_line(tmp_path: Path, url: str) -> None:
    """Before anything is sent, with what to fix, without the password."""
    (tmp_path / "text.txt").write_text("This is no database. " * 500)
    with pytest.raises(UsageError) as caught:
        async with Ledger(url.format(tmp=tmp_path), SystemClock()):
            pass
    message = str(caught.value)
    assert "--ledger" in message
    assert "\n" not in message
    assert SECRET not in message


async def test_a_postgresql_database_that_does_not_exist_is_bad_usage(postgresql_server: str) -> None:
    """In the server's own words."""
    with pytest.raises(UsageError, match='database "nowhere" does not exist'):
        async with Ledger(postgresql_server.format("nowhere"), SystemClock()):
            pass


async def test_a_postgresql_url_as_providers_hand_it_out_works(new_postgresql: Callable[[], Any]) -> None:
    """With sslmode, which the driver calls otherwise."""
    backend = await new_postgresql()
    async with Ledger(backend.url + "&sslmode=prefer", SystemClock()) as ledger:
        await opened(ledger)


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{SECRET}@127.0.0.1:1/db", f"postgresql://u@127.0.0.1:1/db?password={SECRET}"]
)
def test_a_password_is_not_shown(url: str) -> None:
    """Neither in the ``repr`` nor in the ``str``."""
    ledger = Ledger(url, SystemClock())
    assert SECRET not in f"{ledger!r} {ledger}"
    assert "(postgresql://u" in repr(ledger)


def test_a_password_is_not_in_what_is_kept_of_a_ledgers_url() -> None:
    """Neither in a run's identity, where its driver stays so that older runs are recognised."""
    assert redact_password(f"postgresql://me:{SECRET}@host/db") == "postgresql+asyncpg://me:***@host/db"
    assert redact_password("sqlite:////data/ledger") == "sqlite+aiosqlite:////data/ledger"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (f"postgresql://me:{SECRET}@host/db?password={SECRET}", "postgresql://me:***@host/db"),
        ("sqlite+aiosqlite:////data/ledger.sqlite3", "sqlite:////data/ledger.sqlite3"),
        ("sqlite:////data/ledger.sqlite3", "sqlite:////data/ledger.sqlite3"),
    ],
)
def test_a_ledgers_url_is_shown_without_driver_password_and_query(given: str, shown: str) -> None:
    """In messages, in a run's manifest and in its report, as people write it."""
    assert shown_url(given) == shown == Ledger(given, SystemClock()).database.shown


async def test_only_keys_that_the_ledger_may_know_are_looked_up(backend: Any) -> None:
    """The range of a partition is read at once; of a ledger that is far larger, all keys are looked up."""
    scope = Scope("test", "default", WAN22_S2V_DETECT)
    async with Ledger(backend.url, SystemClock()) as ledger:
        held = [f"{n:032x}" for n in range(0, 40, 2)]
        rows = ", ".join(
            f"('{key}', '{scope.detector.model}', 'test', 0, 'before', 'failed', 'not_billed', 1)"
            for key in held
        )
        await backend.sql(
            "INSERT INTO verdicts (image_key, model, service, attempt_id, run_id,"
            f" outcome, billing, checked_at) VALUES {rows}"
        )
        await backend.sql(
            "INSERT INTO attempts (service, account, model, image_key, host, run_id, budget, state,"
            " price_micro_usd, reserved_at)"
            f" VALUES ('test', 'x', '{scope.detector.model}', '{7:032x}', 'h', 'r', 'b', 'unknown', 1, 1)"
        )
        keys = pl.Series("image_key", [f"{n:032x}" for n in range(10)])
        found = await ledger.possibly_known(scope, keys, ("00000000", "g"))
        assert sorted(int(key, 16) for key in found) == [0, 2, 4, 6, 7, 8]
        other = Scope("other", "default", WAN22_S2V_DETECT)
        assert (await ledger.possibly_known(other, keys, ("00000000", "g"))).is_empty()
        few = keys.head(2)
        assert (await ledger.possibly_known(scope, few, ("00000000", "g"))).to_list() == few.to_list()
        assert (await ledger.possibly_known(scope, keys, ("00000001", "g"))).is_empty()
        assert await ledger.known_keys(scope, keys.to_list()) == set(found)
