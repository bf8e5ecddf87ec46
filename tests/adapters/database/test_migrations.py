"""Ledgers of other versions, and databases that are none: upgraded whole, or refused and left as they are."""

# ruff: noqa: S608, SLF001 - statements of this file's own words; a database without its opening

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import old_ledger
import pytest
import sqlalchemy as sa
from ledger_backend import Backend
from ledger_cases import PASSED, opened, send_and_settle
from typer.testing import CliRunner

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.migrations import SCHEMA, Leases, Schema, rename_table
from s2v_tasks.adapters.database.revocation import Selection
from s2v_tasks.adapters.database.tables import metadata
from s2v_tasks.cli.ledger import app
from s2v_tasks.domain.ledger import NotReserved, Reserved
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import LedgerNotFound, LedgerRefused, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT

RENAMED = {"headers": "header_cache", "contents": "canonical_images", "paces": "rate_limits"}
"""What the tables of the first version are called now."""


def _5_rename(_dialect: str) -> Iterator[str]:
    """What a later version may do: rename tables and columns."""
    yield from rename_table("runs", "leases")
    yield "ALTER TABLE leases RENAME COLUMN heartbeat_us TO alive_us"


LATER = Schema(
    (*SCHEMA.migrations, _5_rename),
    {
        **SCHEMA.leases,
        5: Leases(
            "leases",
            "SELECT run_id, owner, host, pid, process_start, alive_us AS heartbeat_us FROM leases"
            " WHERE status = 'running'",
        ),
    },
    readable_from=5,
)
"""A program of after this one."""

KILLED = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.connection import Database

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def die(connection, cursor, statement, values, context, many):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Database(sys.argv[1], SystemClock()):
        pass

asyncio.run(main())
"""
OPENER = """
import asyncio, sys
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with Ledger(sys.argv[1], SystemClock()) as ledger:
        print([frame.height async for frame in ledger.attempts()])

asyncio.run(main())
"""


@pytest.fixture
async def old(backend: Backend) -> Backend:
    """A ledger of schema 1, without a mark."""
    await old_ledger.build(backend)
    return backend


@asynccontextmanager
async def child(program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of this file in another process."""
    pipe = asyncio.subprocess.PIPE
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import sys; sys.path += {folders}\n{program}", *arguments,
        stdin=pipe, stdout=pipe, stderr=pipe,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def content(backend: Backend) -> tuple[set[str], dict[str, Any]]:
    """The names of the tables, and all that is in those of a ledger."""
    names = await old_ledger.table_names(backend)
    return names, await old_ledger.rows_of(backend)


async def refused(backend: Backend, pattern: str, **opening: Any) -> str:
    """Opening fails with one message; it may have more lines only after a colon."""
    with pytest.raises(LedgerRefused, match=pattern) as error:
        async with Ledger(backend.url, SystemClock(), **opening):
            pass
    assert error.value.exit_status == 2
    return error.value.message


async def now_us(backend: Backend) -> int:
    """Now on the ledger's clock."""
    return round((time.monotonic() if backend.is_sqlite else time.time()) * 1e6)


# -- upgrading -----------------------------------------------------------------------------------------


def upgraded(before: dict[str, Any]) -> dict[str, Any]:
    """The rows of an old ledger as they must be after its upgrade.

    A run's status has another word; a cached header says nothing of faces.
    """
    runs = [(*run[:-1], run[-1].replace("budget_spent", "budget_exhausted")) for run in before["runs"]]
    headers = [(*header, None, None, None, None) for header in before["headers"]]
    return {**before, "runs": sorted(runs, key=repr), "headers": headers}


async def test_an_old_ledger_is_upgraded_with_every_row(old: Backend) -> None:
    """Opening it for writing renames tables and columns; the next run knows what was paid and received."""
    tables, before = await content(old)
    async with Ledger(old.url, SystemClock()) as ledger:
        assert ledger.version == 1
        added = {"s2v_ledger", "revoked_verdicts", *RENAMED.values()}
        assert await old_ledger.table_names(old) == tables | added
        assert await old_ledger.rows_of(old, **RENAMED) == upgraded(before)
        assert upgraded(before) != before
        assert await old.sql("SELECT version FROM s2v_ledger ORDER BY version") == [(2,), (3,), (4,)]
        run = await opened(ledger, "new", "run:new")
        results = [await run.reserve(old_ledger.key(n), "a.example", 5.0) for n in range(5)]
        assert [type(one) for one in results] == [NotReserved, NotReserved, NotReserved, Reserved, Reserved]
        assert isinstance(results[4], Reserved)
        assert results[4].attempt_id > 7, "the number of a call is never used again"
        known = (await run.image_statuses([old_ledger.key(1)]))[old_ledger.key(1)].verdict
        assert known is not None
        assert (known.reason, known.checked_at) == (
            "no_human",
            datetime.fromtimestamp(1_764_000_000.000009, UTC),
        )


async def test_a_ledger_of_the_second_version_is_upgraded_with_every_row(old: Backend) -> None:
    """It has the mark, and else what the first had."""
    before = await old_ledger.rows_of(old)
    await old.sql("CREATE TABLE s2v_ledger (version INTEGER NOT NULL PRIMARY KEY)")
    await old.sql("INSERT INTO s2v_ledger VALUES (2)")
    async with Database(old.url, SystemClock()) as database:
        assert database.version == 2
    assert await old_ledger.rows_of(old, **RENAMED) == upgraded(before)


async def test_a_ledger_of_the_third_version_is_read_as_it_is_and_upgraded_by_the_next_run(
    old: Backend,
) -> None:
    """It lacks what the face check saw, which no reader needs."""
    third = replace(SCHEMA, migrations=SCHEMA.migrations[:3])
    async with Database(old.url, SystemClock(), schema=third):
        pass
    tables, before = await old_ledger.table_names(old), await old_ledger.rows_of(old, **RENAMED)
    await old.sql("UPDATE header_cache SET allowed = 'public 2', fetched_at = 1")
    async with Ledger(old.url, SystemClock(), existing=True) as ledger:
        found = await ledger.headers.get([old_ledger.key(0)], ScreenOptions.of(), WAN22_S2V_DETECT)
        assert [(one.image_key, one.validator) for one in found.stale] == [(old_ledger.key(0), '"etag"')]
    await old.sql("UPDATE header_cache SET allowed = 'public', fetched_at = 1764000000000000")
    assert await old_ledger.rows_of(old, **RENAMED) == before
    async with Database(old.url, SystemClock()) as database:
        assert database.version == 3
    headers = [(*header, None, None, None, None) for header in before["headers"]]
    assert await old_ledger.rows_of(old, **RENAMED) == {**before, "headers": headers}
    assert await old_ledger.table_names(old) == tables


async def test_an_old_ledger_that_cant_be_read_names_the_command_that_upgrades(old: Backend) -> None:
    """Its tables are called otherwise: opened only to be read, it stays as it is."""
    before = await content(old)
    message = await refused(
        old,
        r"older version \(schema 1, supported: 4\); upgrade it with s2v ledger upgrade",
        existing=True,
    )
    assert "\n" not in message
    assert await content(old) == before


async def test_an_old_ledger_that_can_be_read_is_left_old(old: Backend) -> None:
    """Where a later version changes nothing that a reader needs, reading upgrades nothing."""
    before = await content(old)
    async with Ledger(
        old.url, SystemClock(), existing=True, schema=replace(SCHEMA, readable_from=1)
    ) as ledger:
        assert [frame.height async for frame in ledger.attempts()] == [5]
    assert await content(old) == before


async def test_nothing_is_upgraded_while_a_run_is_at_work(old: Backend) -> None:
    """A program of the old version may be using the tables right now."""
    await old.sql(f"UPDATE runs SET beat_us = {await now_us(old)} WHERE run_id = 'died'")
    before = await content(old)
    message = await refused(old, r"run died \(process 13 on host\) is using it; wait for that run to end")
    assert "\n" not in message
    assert await content(old) == before


async def test_a_run_that_has_ended_or_died_holds_no_upgrade_up(old: Backend) -> None:
    """However recent its last heartbeat; a dead one is seen by its age."""
    await old.sql(f"UPDATE runs SET beat_us = {await now_us(old)} WHERE status <> 'running'")
    async with Database(old.url, SystemClock()) as ledger:
        assert ledger.version == 1


async def test_two_processes_that_open_at_once_both_succeed(backend: Backend) -> None:
    """With a new ledger and with an old one; one of them upgrades, the other waits for it."""
    for rows in ([], [5]):
        async with child(OPENER, backend.url) as one, child(OPENER, backend.url) as two:
            for process in (one, two):
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            if rows:
                for table in await old_ledger.table_names(backend):
                    await backend.sql(f"DROP TABLE {table}")
                await old_ledger.build(backend)
            said = await asyncio.gather(one.communicate(b"\n"), two.communicate(b"\n"))
        assert [out for out, _ in said] == [f"{rows}\n".encode()] * 2, said
        assert await backend.sql("SELECT max(version) FROM s2v_ledger") == [(SCHEMA.version,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE s2v_ledger",
        "CREATE TABLE headers",
        "ALTER TABLE verdicts RENAME COLUMN",
        "UPDATE runs",
        "INSERT INTO s2v_ledger (version) VALUES (3)",
        "ALTER TABLE header_cache ADD COLUMN faces_seen",
        "INSERT INTO s2v_ledger (version) VALUES (4)",
    ],
)
async def test_killed_in_mid_upgrade_the_ledger_is_as_it_was(old: Backend, statement: str) -> None:
    """Whichever statement was the last; the next one to open it upgrades it."""
    before = await content(old)
    async with child(KILLED, old.url, statement) as process:
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert await content(old) == before
    async with Database(old.url, SystemClock()):
        pass
    assert await old.sql("SELECT max(version) FROM s2v_ledger") == [(SCHEMA.version,)]
    assert await old_ledger.rows_of(old, **RENAMED) == upgraded(before[1])


async def test_a_role_that_may_not_change_tables_is_shown_the_statements(
    new_postgresql: Callable[[], Any],
) -> None:
    """Its owner runs them as they are; then the role works."""
    for prepare in (old_ledger.build, None):
        backend: Backend = await new_postgresql()
        role = f"role_{sa.make_url(backend.url).database}"
        await backend.sql(f"CREATE ROLE {role} LOGIN")
        await backend.sql("REVOKE CREATE ON SCHEMA public FROM public")
        if prepare:
            await prepare(backend)
            await backend.sql(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
            )
            await backend.sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        tables = await old_ledger.table_names(backend)
        limited = Backend(sa.make_url(backend.url).set(username=role).render_as_string(hide_password=False))
        message = await refused(limited, "may not do that; have the owner of the database run:\nBEGIN;\n")
        assert await old_ledger.table_names(backend) == tables
        connection = await asyncpg.connect(backend.url)
        await connection.execute(message.partition("\n")[2])
        await connection.close()
        async with Ledger(limited.url, SystemClock()) as ledger:
            assert ledger.version == SCHEMA.version
            await send_and_settle(await opened(ledger, "new", "run:new"), PASSED, "k")
            selection = Selection(codes=["InvalidFile.NoHuman"])
            assert await ledger.revocations.revoke(selection, "a test") == (1 if prepare else 0)


def test_the_command_upgrades_and_says_what_it_did(tmp_path: Path) -> None:
    """Once; afterwards the ledger is at its newest. Where there is none, none is created."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    asyncio.run(old_ledger.build(Backend(url)))
    for said in ("schema 1 upgraded to 4\n", "schema 4, the newest\n"):
        assert CliRunner().invoke(app, ["upgrade", "--ledger", url]).output == said
    missing = CliRunner().invoke(app, ["upgrade", "--ledger", f"sqlite:///{tmp_path / 'none'}"])
    assert isinstance(missing.exception, LedgerNotFound)
    assert not (tmp_path / "none").exists()


# -- the tables ----------------------------------------------------------------------------------------


async def test_a_new_ledger_has_the_tables_that_the_program_works_with(backend: Backend) -> None:
    """The migrations make what `tables.py` describes, and from an old ledger the same."""

    def described(db: sa.Connection) -> dict[str, Any]:
        inspector = sa.inspect(db)
        return {
            table: (
                {c["name"]: (type(c["type"]).__name__, c["nullable"]) for c in inspector.get_columns(table)},
                inspector.get_pk_constraint(table)["constrained_columns"],
                {(i["name"], *i["column_names"], i["unique"]) for i in inspector.get_indexes(table)},
                {c["name"] for c in inspector.get_check_constraints(table)},
            )
            for table in metadata.tables
        }

    async def seen() -> dict[str, Any]:
        async with Database(backend.url, SystemClock()) as database, database.reading() as db:
            return await db.run_sync(described)

    async def emptied() -> None:
        for table in await old_ledger.table_names(backend):
            await backend.sql(f"DROP TABLE {table}")

    new = await seen()
    await emptied()
    await old_ledger.create_tables(backend)
    assert await seen() == new
    await emptied()
    database = Database(backend.url, SystemClock())
    async with database.transaction() as db:
        await db.run_sync(metadata.create_all)
        assert await db.run_sync(described) == new
    await database._engine.dispose()


# -- programs of other versions -------------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True])
async def test_the_first_program_fails_before_its_first_call(backend: Backend, new: bool) -> None:
    """It finds tables of the old names that it can't use, creates none, and can't forget what was paid."""
    if not new:
        await old_ledger.build(backend)
    async with Database(backend.url, SystemClock()):
        pass
    tables, before = await old_ledger.table_names(backend), await old_ledger.rows_of(backend, **RENAMED)
    with pytest.raises((sqlite3.OperationalError, asyncpg.UndefinedColumnError), match="account"):
        await old_ledger.open_as_it_did(backend)
    assert await old_ledger.table_names(backend) == tables
    assert await old_ledger.rows_of(backend, **RENAMED) == before


@pytest.mark.parametrize("existing", [False, True])
async def test_a_newer_ledger_is_refused_and_left_as_it_is(old: Backend, existing: bool) -> None:
    """By who writes and by who only reads."""
    async with Database(old.url, SystemClock()):
        pass
    await old.sql("INSERT INTO s2v_ledger VALUES (9)")
    before = await content(old)
    message = await refused(
        old, r"is newer than this program \(schema 9, supported: 4\); upgrade s2v-tasks", existing=existing
    )
    assert "\n" not in message
    assert await content(old) == before


async def test_a_ledger_that_is_upgraded_under_an_open_program_takes_no_run_of_it(backend: Backend) -> None:
    """Between opening and the first call no process holds a lease, so an upgrade is allowed."""
    async with Ledger(backend.url, SystemClock()) as ledger:
        async with Database(backend.url, SystemClock(), schema=LATER):
            pass
        with pytest.raises(LedgerRefused, match=r"upgraded meanwhile \(schema 5, supported: 4\)"):
            await opened(ledger)


# -- databases that are no ledger -----------------------------------------------------------------------


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, name VARCHAR)",
        "ALTER TABLE headers ADD COLUMN theirs INTEGER",
        "DROP TABLE contents",
    ],
)
async def test_another_programs_database_is_refused_and_left_as_it_is(
    backend: Backend, theirs: str, existing: bool
) -> None:
    """Tables of the same names make no ledger, nor do all of them where a column is another."""
    if not theirs.startswith("CREATE"):
        await old_ledger.create_tables(backend)
    await backend.sql(theirs)
    tables = await old_ledger.table_names(backend)
    message = await refused(backend, "holds other tables and no ledger", existing=existing)
    assert "\n" not in message
    assert await old_ledger.table_names(backend) == tables


async def test_beside_other_tables_a_ledger_is_created_on_postgresql_alone(backend: Backend) -> None:
    """Programs share a database server's schema; a file is one program's."""
    await backend.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    if backend.is_sqlite:
        await refused(backend, r"holds other tables and no ledger \(orders\)")
        assert await old_ledger.table_names(backend) == {"orders"}
        return
    async with Ledger(backend.url, SystemClock()) as ledger:
        await opened(ledger)
    assert await old_ledger.table_names(backend) == {"orders", "s2v_ledger", *metadata.tables, *RENAMED}


async def test_a_ledger_that_lacks_a_table_is_damaged(old: Backend) -> None:
    """It is not made whole with an empty one: that would forget what was paid."""
    async with Database(old.url, SystemClock()):
        pass
    await old.sql("DROP TABLE verdicts")
    await refused(old, "is damaged: verdicts is missing; restore it from a backup")
    await old.sql("DELETE FROM s2v_ledger")
    await refused(old, "is damaged: its version is missing")


async def test_a_table_in_the_way_of_an_upgrade_stops_it(old: Backend) -> None:
    """One line, and the ledger is as it was."""
    await old.sql("CREATE TABLE header_cache (theirs INTEGER)")
    before = await content(old)
    with pytest.raises(UsageError, match="header_cache"):
        async with Database(old.url, SystemClock()):
            pass
    assert await content(old) == before
