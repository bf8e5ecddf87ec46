"""SQLAlchemy engines for SQLite and PostgreSQL, whose connections need no memory of what was done before.

A pooler in transaction mode gives each transaction another connection of the server. So no statement stays
prepared, and what durability rests on is set in each transaction (`begin_settings`).
"""

from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from s2v_tasks.adapters.database.database_url import connect_args
from s2v_tasks.adapters.database.patience import STATEMENT_S

CONNECTIONS: Final = 4
"""How many connections of PostgreSQL a process takes at most."""
_PING_S: Final = 3.0
DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What the driver of PostgreSQL raises where SQLAlchemy does not see it."""
_SQLITE_SETTINGS: Final = ("busy_timeout = 10000", "synchronous = FULL", "wal_autocheckpoint = 100")
"""The last bounds what a copy of the file without its -wal can lack: after so many pages the -wal file is
moved to it. A call takes about 12 pages."""
_POSTGRESQL_SETTINGS: Final = sa.text("""
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                                        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
       set_config('lock_timeout', '10s', true),
       set_config('idle_in_transaction_session_timeout', '10s', true)
""")
"""As patient as SQLite; and a process stopped in mid-transaction does not hold up everyone for ever."""


class _Dialect(PGDialect_asyncpg):
    """Asks nothing when it connects: outside of a transaction two messages may reach two servers."""

    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """JSON stays text, as asyncpg reads it by itself."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """JSON stays text, as asyncpg reads it by itself."""


registry.register("postgresql.s2v", __name__, "_Dialect")


def create_engine(url: sa.URL) -> AsyncEngine:
    """An engine for a URL of `s2v_tasks.adapters.database.database_url.parse_url`.

    A transaction with the execution option ``s2v_writes`` begins IMMEDIATE on SQLite.

    Raises:
        UsageError: The environment's part of the URL's options can't be used.
    """
    return _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgresql_engine(url)


async def begin_settings(db: AsyncConnection) -> None:
    """Set what the promises of a transaction rest on, until its end."""
    if db.dialect.name == "postgresql":
        await db.execute(_POSTGRESQL_SETTINGS)


def _postgresql_engine(url: sa.URL) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="postgresql+s2v", query={}),
        # whatever the server's or the role's default is: the statements lock the rows that they rely on
        isolation_level="READ COMMITTED",
        pool_size=CONNECTIONS,
        max_overflow=0,
        connect_args={
            **connect_args(url),
            "command_timeout": STATEMENT_S,
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",  # the unnamed one, which the next one replaces
        },
    )

    @sa.event.listens_for(engine.sync_engine, "checkout")
    def _on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        # SQLAlchemy's own ping takes four round trips, and has no end with a server that is silent.
        is_used = record.info.get("s2v_used") is connection
        record.info["s2v_used"] = connection
        try:
            connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=_PING_S))
        except DRIVER_ERRORS:
            if not is_used:  # what is wrong with a new one is no matter of its age
                raise
            raise sa.exc.InvalidatePoolError from None

    return engine


def _sqlite_engine(url: sa.URL) -> AsyncEngine:
    engine = create_async_engine(url)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver begins a transaction only at its first write, so the read before it would be outside
        # the lock and send times would be given out twice; we begin ourselves, below.
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
