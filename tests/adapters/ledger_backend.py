"""A database that a ledger is tested on, seen from outside the ledger."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import asyncpg


@dataclass(frozen=True)
class Backend:
    """A database of a test's own, and a door to it beside the ledger's."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine."""
        return self.url.startswith("sqlite")

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement outside the ledger."""
        if self.is_sqlite:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10)) as db, db:
                rows = db.execute(statement).fetchall()
            db.close()
            return rows
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()
