"""Opening a ledger: a run makes what is missing; whoever only reads makes and changes nothing."""

import asyncio
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from ledger_backend import Backend
from test_database import opened

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.errors import NoLedger, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import Screening

TABLES = {
    True: "SELECT name FROM sqlite_master",
    False: "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
}


async def test_a_database_without_a_ledger_is_refused_by_who_only_reads(backend: Backend) -> None:
    """Nothing is made in it: the name may be a slip, and the database somebody else's."""
    await backend.sql("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(NoLedger, match="holds no ledger"):
        async with LedgerDatabase(backend.url, SystemClock(), existing=True):
            pass
    assert await backend.sql(TABLES[backend.is_sqlite]) == [("theirs",)]


async def test_a_missing_file_stays_missing_for_who_only_reads(tmp_path: Path) -> None:
    """It says where there is no ledger, and makes none."""
    path = tmp_path / "ledger.sqlite3"
    with pytest.raises(NoLedger, match=f"there is no ledger at {path}"):
        async with LedgerDatabase(f"sqlite:///{path}", SystemClock(), existing=True):
            pass
    assert not path.exists()


async def test_who_only_reads_finds_what_a_run_has_made(backend: Backend) -> None:
    """Its tables, and what is in them."""
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        await opened(ledger)
    async with LedgerDatabase(backend.url, SystemClock(), existing=True) as ledger:
        assert [frame.height async for frame in ledger.attempts()] == []
        assert await ledger.looks(["a"], Screening(), WAN22_S2V_DETECT) == ([], [])


def test_a_foreign_file_stays_as_it_is(tmp_path: Path) -> None:
    """To the byte: not even its journal's mode is set."""
    path = tmp_path / "theirs.sqlite3"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE theirs (x INTEGER)")
    before = sha256(path.read_bytes()).hexdigest()

    async def look() -> None:
        async with LedgerDatabase(f"sqlite:///{path}", SystemClock(), existing=True):
            pass

    with pytest.raises(NoLedger):
        asyncio.run(look())
    assert sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.sqlite3"]


async def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    """Of two that turn it into a ledger at once, SQLite refuses one without waiting."""
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.3, other.execute, "COMMIT")
        async with LedgerDatabase(f"sqlite:///{path}", SystemClock()) as ledger:
            await opened(ledger)


@pytest.mark.parametrize(
    "url", ["sqlite:///{}/nowhere/ledger.sqlite3", "postgresql://nobody@127.0.0.1:1/none"]
)
async def test_a_ledger_that_cant_be_opened_is_named_with_a_way_out(tmp_path: Path, url: str) -> None:
    """Which database, what its driver said, and what to look at."""
    url = url.format(tmp_path)
    with pytest.raises(UsageError) as error:
        async with LedgerDatabase(url, SystemClock()):
            pass
    assert url.partition("://")[2].rpartition("/")[2] in error.value.message
    assert "S2V_LEDGER_URL" in error.value.message
