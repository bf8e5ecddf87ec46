"""The connection behind the ledger: SQLite for one machine, PostgreSQL when several share an account.

Here is what differs between the two: drivers, how a writer takes its lock, and whose clock counts.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.tables import metadata
from s2v_tasks.adapters.together import whole
from s2v_tasks.errors import LedgerUnavailable, NoLedger, UsageError
from s2v_tasks.pace import SECOND_US

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_SQLITE_SETTINGS: Final = ("busy_timeout = 10000", "synchronous = FULL")
_OPENED_WITHIN_S: Final = 10.0
_POSTGRESQL_SETTINGS: Final = """
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                                        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
       set_config('lock_timeout', '10s', false),
       set_config('idle_in_transaction_session_timeout', '10s', false)
"""
"""As patient as SQLite; and a process stopped in mid-transaction does not hold up everyone for ever."""


def ledger_url(url: str) -> sa.URL:
    """``sqlite:///path`` or ``postgresql://...`` with the asynchronous driver filled in.

    Raises:
        UsageError: It is no such URL.
    """
    try:
        parsed = sa.make_url(url)
        driver = _DRIVERS[parsed.drivername.partition("+")[0]]
    except (ArgumentError, KeyError, ValueError):
        raise UsageError(
            "the ledger is no sqlite:///PATH or postgresql://USER@HOST/DATABASE URL; mend --ledger"
        ) from None
    query = dict(parsed.query)
    if driver.startswith("sqlite"):
        if not parsed.database or ":memory:" in parsed.database or query.get("mode") == "memory":
            raise UsageError(
                "the ledger needs a file, for one in memory forgets what was paid; use --ledger sqlite:///PATH"
            )
    elif "sslmode" in query:  # as everyone but the driver calls it
        query["ssl"] = query.pop("sslmode")
    return parsed.set(drivername=driver, query=query)


def absolute(url: str) -> str:
    """The same ledger from whatever folder: a relative SQLite path is another ledger in another one.

    Raises:
        UsageError: It is no ledger's URL.
    """
    parsed = ledger_url(url)
    if not parsed.drivername.startswith("sqlite") or parsed.query:
        return url
    path = Path(parsed.database or "").absolute()
    return sa.make_url(url).set(database=str(path)).render_as_string(hide_password=False)


class Database:
    """An open database with the ledger's tables; use it as an async context manager.

    ``existing``: nothing is made or changed in opening it; ``NoLedger`` if the tables are not there.
    """

    def __init__(self, url: str, clock: Clock, *, existing: bool = False) -> None:
        self._url = ledger_url(url)
        self._clock = clock
        self._offset_s = 0.0
        self._round_trip_s = float("inf")
        self._existing = existing
        self._engine = _engine(self._url)
        # SQLite's writers wait for each other by looking again and again; those of one process need not.
        self._one_writer: AbstractAsyncContextManager[None] = (
            asyncio.Lock() if self._is_sqlite else nullcontext()
        )

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown})"

    @property
    def _shown(self) -> str:
        # Without the query: it may hold a password too.
        return self._url.set(query={}).render_as_string(hide_password=True)

    async def __aenter__(self) -> Self:
        try:
            if self._is_sqlite:
                await self._make_file()
            await self._find_or_create()
        except NoLedger:
            await self._engine.dispose()
            raise
        except (SQLAlchemyError, sqlite3.Error, LedgerUnavailable, TypeError, ValueError) as error:
            await self._engine.dispose()
            what = f"the ledger {self._shown} can't be opened ({_cause(error)})"
            if isinstance(error, LedgerUnavailable):
                what = error.message.partition(";")[0]
            raise UsageError(
                f"{what}; check that its folder or server is there,"
                " and that --ledger or S2V_LEDGER_URL names a database that may be written"
            ) from None
        return self

    async def _make_file(self) -> None:
        """By hand, for the driver leaves a thread behind where it can't open a file.

        Who turns a new file to WAL while another writes to it is refused at once, however patient.
        """
        path, uri = self._url.database or "", "uri" in self._url.query
        if self._existing and not _is_file(path):
            raise NoLedger(f"there is no ledger at {path}; mend --ledger or S2V_LEDGER_URL")
        until_s = self._clock.monotonic() + _OPENED_WITHIN_S
        while True:
            try:
                with closing(sqlite3.connect(path, uri=uri)) as db:
                    if not self._existing:
                        db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or self._clock.monotonic() > until_s:
                    raise
                await self._clock.sleep(0.05)
            else:
                return

    async def _find_or_create(self) -> None:
        async with self._reading() as db:  # it may be busy: no lock is asked for unless it is needed
            there = await db.run_sync(lambda connection: set(sa.inspect(connection).get_table_names()))
        if metadata.tables.keys() <= there:
            return
        if self._existing:
            raise NoLedger(f"{self._shown} holds no ledger, or an older one; a curation run makes it")
        await self._create()

    @whole
    async def _create(self) -> None:
        async with self._writing() as db:
            if not self._is_sqlite:  # two processes must not create the same tables at once
                await db.execute(sa.text("SELECT pg_advisory_xact_lock(5265772118)"))
            await db.run_sync(metadata.create_all)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.dispose()

    async def _now_us(self, db: AsyncConnection) -> int:
        """Now on the ledger's clock: SQLite is on this machine, so this machine's; else the database's."""
        before = self._clock.monotonic()
        if self._is_sqlite:
            return round(before * SECOND_US)
        now_us = await db.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))
        after = self._clock.monotonic()
        # The fastest exchange of late tells best how the two clocks stand; older ones fade, and one that
        # this exchange contradicts is from before the database's clock was set.
        now_s = now_us / SECOND_US
        self._round_trip_s *= 1.02
        contradicted = not before - now_s <= self._offset_s <= after - now_s
        if after - before <= self._round_trip_s or contradicted:
            self._round_trip_s = after - before
            self._offset_s = (before + after) / 2 - now_s
        return int(now_us)

    def _at(self) -> int:
        return round(self._clock.utcnow().timestamp() * 1e6)

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._is_sqlite else postgresql).insert(table)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._one_writer, self._reading(s2v_writes=True) as db, db.begin():
            yield db

    @asynccontextmanager
    async def _reading(self, *, s2v_writes: bool = False) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as db:
                await db.execution_options(s2v_writes=s2v_writes)
                yield db
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            raise LedgerUnavailable(
                f"the ledger {self._shown} can't be used ({_cause(error)});"
                " mend that and run the same command again"
            ) from None


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _cause(error: Exception) -> str:
    """The driver's own words, in one line."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"


def _engine(url: sa.URL) -> AsyncEngine:
    if not url.drivername.startswith("sqlite"):
        engine = create_async_engine(url, pool_size=5, pool_pre_ping=True)

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _on_postgresql(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute(_POSTGRESQL_SETTINGS)
            cursor.close()
            connection.commit()

        return engine
    engine = create_async_engine(url)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver begins a transaction only at its first write, so the read before it would be outside
        # the lock and instants would be given out twice; we begin ourselves, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _SQLITE_SETTINGS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("s2v_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
