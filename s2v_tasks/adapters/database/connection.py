"""The connection behind the ledger: SQLite for one machine, PostgreSQL when several share an account.

This module holds what differs between the two: drivers, how a writer takes its lock, and whose clock counts.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    nullcontext,
    suppress,
)
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database.database_errors import cause, unavailable
from s2v_tasks.adapters.database.database_url import parse_url
from s2v_tasks.adapters.database.engines import CONNECTIONS, DRIVER_ERRORS, begin_settings, create_engine
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.adapters.database.migrations import SCHEMA, Schema
from s2v_tasks.adapters.database.patience import CLOSE_S, READ_S, WRITE_S, Patience
from s2v_tasks.adapters.database.schema import upgrade, version_of
from s2v_tasks.adapters.database.sqlite_url import without_writing
from s2v_tasks.domain.rate_limit import SECOND_US
from s2v_tasks.errors import LedgerNotFound, LedgerRefused, LedgerUnavailable, UsageError

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_OPENED_WITHIN_S: Final = 10.0


def ledger_url(url: str) -> sa.URL:
    """``sqlite:///path`` or ``postgresql://...`` with the asynchronous driver filled in.

    Raises:
        UsageError: It is no such URL.
    """
    scheme, separator, rest = url.partition("://")
    backend = scheme.strip().lower().partition("+")[0]
    if not separator or backend not in _DRIVERS:
        raise UsageError(
            "the ledger is no sqlite:///PATH or postgresql://USER@HOST/DATABASE URL; fix --ledger"
        )
    parsed = parse_url(f"{backend}://{rest}", "the URL of --ledger or S2V_LEDGER_URL")
    if backend == "sqlite" and (
        not parsed.database or ":memory:" in parsed.database or parsed.query.get("mode") == "memory"
    ):
        raise UsageError(
            "the ledger needs a file: one in memory forgets what was paid; use --ledger sqlite:///PATH"
        )
    return parsed.set(drivername=_DRIVERS[backend])


def absolute(url: str) -> str:
    """The same ledger from whatever folder: a relative SQLite path is another ledger in another one.

    Raises:
        UsageError: It is no ledger's URL.
    """
    parsed = ledger_url(url)
    if not parsed.drivername.startswith("sqlite") or parsed.query:
        return url
    return f"sqlite:///{Path(parsed.database or '').absolute()}"


def shown_url(url: str) -> str:
    """A ledger's URL for people and files: without driver, password, and query, which may hold one too.

    Raises:
        UsageError: It is no ledger's URL.
    """
    parsed = ledger_url(url)
    shown = parsed.set(drivername=parsed.get_backend_name(), query={})
    return shown.render_as_string(hide_password=True)


def redact_password(url: str) -> str:
    """A ledger's URL as a run's identity has it: with its driver, else as `shown_url`.

    Raises:
        UsageError: It is no ledger's URL.
    """
    return ledger_url(url).set(query={}).render_as_string(hide_password=True)


class Opening(TypedDict, total=False):
    """How a ledger is opened.

    ``existing``: nothing is created, ``LedgerNotFound`` if there is none; and nothing is changed either,
    unless it ``upgrades``. ``schema``: the versions that are known.
    """

    existing: bool
    upgrades: bool
    schema: Schema


class Database:
    """An open database with the ledger's tables; use it as an async context manager.

    Opening it creates a ledger in an empty database, and upgrades an older one; `Opening` says otherwise.
    Its users start their transactions by ``async with database.transaction() as db`` or ``.reading()``.
    """

    def __init__(self, url: str, clock: Clock, **opening: Unpack[Opening]) -> None:
        self._url = ledger_url(url)
        self.shown = shown_url(url)
        """Its URL for messages."""
        self._clock = clock
        self._offset_s = 0.0
        self._round_trip_s = float("inf")
        self._existing = opening.get("existing", False)
        self._read_only = self._existing and not opening.get("upgrades", False)
        self.schema = opening.get("schema", SCHEMA)
        """The versions of the schema that are known."""
        self.version = 0
        """The version of the schema that was found: 0 if the ledger was created."""
        self.patience = Patience()
        """How long PostgreSQL is waited for."""
        reads_file = self._read_only and self._url.get_backend_name() == "sqlite"
        self._engine = create_engine(without_writing(self._url) if reads_file else self._url)
        # SQLite's writers wait for each other by looking again and again; those of one process need not.
        self._one_writer: AbstractAsyncContextManager[None] = (
            asyncio.Lock() if self.is_sqlite else nullcontext()
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine."""
        return self._engine.dialect.name == "sqlite"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown})"

    async def __aenter__(self) -> Self:
        try:
            await self._prepare()
        except (LedgerNotFound, LedgerRefused):
            await self._engine.dispose()
            raise
        except (SQLAlchemyError, sqlite3.Error, LedgerUnavailable, TypeError, ValueError) as error:
            await self._engine.dispose()
            what = f"the ledger {self.shown} can't be opened ({cause(error)})"
            if isinstance(error, LedgerUnavailable):
                what = error.message.rpartition(";")[0]
            raise UsageError(
                f"{what}; check that its folder or server is there,"
                " and that --ledger or S2V_LEDGER_URL names a database that may be written"
            ) from None
        return self

    async def _prepare(self) -> None:
        if self.is_sqlite:
            self._find_file()
        async with self.reading() as db:  # it may be busy: no lock is taken unless it is needed
            if not self.is_sqlite:  # all queries read one snapshot: another process may upgrade meanwhile
                await db.execution_options(isolation_level="REPEATABLE READ")
            self.version = await db.run_sync(version_of, self.shown, self.schema)
        if not self.version and self._existing:
            raise LedgerNotFound(f"{self.shown} holds no ledger; a curation run creates it")
        if self.version < self.schema.version and not self._read_only:
            await self._upgrade()
        elif self.version < self.schema.readable_from:
            raise LedgerRefused(
                f"the ledger {self.shown} is of an older version (schema {self.version}, supported:"
                f" {self.schema.version}); upgrade it with s2v ledger upgrade, or by a curation run"
            )
        if self.is_sqlite and not self._read_only and await self._use_wal():
            await self._engine.dispose()  # a connection of before takes the file's mode for what it was
        if not self.is_sqlite and not self._read_only:  # a limit is met now, not after the first payment
            async with AsyncExitStack() as stack:
                for _ in range(CONNECTIONS):
                    await stack.enter_async_context(self.reading())

    def _find_file(self) -> None:
        """By hand, for the driver leaves a thread behind where it can't open a file."""
        path = self._url.database or ""
        if self._existing and not _is_file(path):
            raise LedgerNotFound(f"there is no ledger at {path}; fix --ledger or S2V_LEDGER_URL")
        sqlite3.connect(path, uri="uri" in self._url.query).close()

    @shielded
    async def _upgrade(self) -> None:
        async with self.transaction(within_s=None) as db:
            if not self.is_sqlite:  # two processes must not create the same tables at once
                await db.execute(sa.text("SELECT pg_advisory_xact_lock(5265772118)"))
            now_us = await self.now_us(db)
            self.version = await db.run_sync(upgrade, self.shown, self.schema, now_us)

    async def _use_wal(self) -> bool:
        """Turn the file to WAL; whether it was not.

        Only when the tables are in it: a file in WAL mode without tables is taken for an incomplete copy. Who
        turns a new file to WAL while another writes to it is refused at once, however patient.
        """
        path, uri = self._url.database or "", "uri" in self._url.query
        until_s = self._clock.monotonic() + _OPENED_WITHIN_S
        while True:
            try:
                with closing(sqlite3.connect(path, uri=uri)) as db:
                    before = db.execute("PRAGMA journal_mode").fetchone()
                    return bool(before != db.execute("PRAGMA journal_mode = WAL").fetchone())
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or self._clock.monotonic() > until_s:
                    raise
                await self._clock.sleep(0.05)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self.is_sqlite else CLOSE_S):
                await self._engine.dispose()

    async def now_us(self, db: AsyncConnection) -> int:
        """Now on the ledger's clock: SQLite is on this machine, so this machine's; else the database's."""
        before = self._clock.monotonic()
        if self.is_sqlite:
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

    def to_local_s(self, send_us: int) -> float:
        """A send time of the ledger's clock, on the local clock."""
        return send_us / SECOND_US + self._offset_s

    def utc_us(self) -> int:
        """Now in microseconds since 1970 UTC, for the columns ``*_at``."""
        return round(self._clock.utcnow().timestamp() * 1e6)

    def insert(self, table: sa.Table) -> Any:
        """The dialect's INSERT, which knows ON CONFLICT."""
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    @asynccontextmanager
    async def transaction(self, within_s: float | None = WRITE_S) -> AsyncIterator[AsyncConnection]:
        """One transaction that may write; on SQLite it holds the file's write lock from its start.

        Committed at the end of the block, rolled back by an exception. ``within_s``: how long PostgreSQL has
        for all of it; None: as long as it takes.

        Raises:
            LedgerUnavailable: The database can't be used, or does not respond.
        """
        async with self._one_writer, self._connection(within_s, writes=True) as db, db.begin():
            await begin_settings(db)
            yield db

    @asynccontextmanager
    async def reading(self, within_s: float | None = READ_S) -> AsyncIterator[AsyncConnection]:
        """A connection to read with; what is written is rolled back. ``within_s``: see `transaction`.

        Raises:
            LedgerUnavailable: The database can't be used, or does not respond.
        """
        async with self._connection(within_s, writes=False) as db:
            yield db

    @asynccontextmanager
    async def _connection(self, within_s: float | None, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        # A statement of SQLite can't be ended from here; it waits for locks as long as it is set to.
        patience = nullcontext() if self.is_sqlite else self.patience.wait(within_s)
        try:
            async with patience, self._engine.connect() as db:
                await db.execution_options(s2v_writes=writes)
                yield db
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeoutError, *DRIVER_ERRORS) as error:
            raise unavailable(self.shown, error) from None


def _is_file(path: str) -> bool:
    return Path(path).is_file()
