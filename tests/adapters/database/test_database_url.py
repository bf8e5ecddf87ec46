"""Database URLs as people and services write them: translated, named as unknown, or refused, not shown."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_backend import Backend
from ledger_cases import PASSED, opened, send_and_settle

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.connection import ledger_url
from s2v_tasks.adapters.database.database_url import connect_args, parse_url
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.storage import sources
from s2v_tasks.errors import InputError, UsageError

PIECES = ("s3cr", "tTail9", "hunter2")
"""Of passwords: no message holds any."""
MISLEADING = [
    "postgresql://u:s3cr@tTail9@host/db",
    "postgresql://u:s3cr@tTail9/hunter2@host/db",
    "postgresql://u:s3cr/tTail9@host/db",
    "postgresql://u:12/tTail9@host/db",
    "postgresql://u:s3cr?tTail9@host/db",
    "postgresql://u:s3cr?tTail9=x@host/db",
    "postgresql://u:s3cr#tTail9@host/db",
    "postgresql://u:s3cr@host:tTail9/db",
    "postgresql://u:s3cr@host/db?tTail9",
    "postgresql://u:s3cr[tTail9@host@x/db",
    "POSTGRES://u:s3cr@tTail9@host/db",
]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[str], object]]:
    """Each way a database's URL comes in."""

    def query(url: str) -> object:
        monkeypatch.setenv("S2V_SOURCE_URL", url)
        return sources.find("sql:SELECT 1")

    return {"ledger": ledger_url, "query": query}


@pytest.mark.parametrize("way", ["ledger", "query"])
@pytest.mark.parametrize("url", MISLEADING)
def test_a_url_that_a_password_splits_wrongly_is_refused_and_not_shown(
    read: dict[str, Callable[[str], object]], way: str, url: str
) -> None:
    """One line that says how to write it; no part of the URL, for any part may be the password."""
    with pytest.raises(UsageError, match="write @ as %40") as error:
        read[way](url)
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)
    assert not any(piece in str(error.value) for piece in PIECES)
    assert isinstance(error.value, InputError) == (way == "query")


def test_another_databases_url_is_not_shown_either(read: dict[str, Callable[[str], object]]) -> None:
    """A port that is none is no defect of the program."""
    for url in ("mysql+pymysql://u:s3cr@tTail9@host/db", "mysql+pymysql://u:s3cr@host:tTail9/db"):
        with pytest.raises(InputError) as error:
            read["query"](url)
        assert not any(piece in str(error.value) for piece in PIECES)


@pytest.mark.parametrize("way", ["ledger", "query"])
@pytest.mark.parametrize(
    "url",
    [
        "postgres://u@h/db",
        "postgresql://u@h/db?sslmode=require",
        "postgresql+asyncpg://u@h/db?sslmode=verify-full",
        "postgresql+asyncpg://u@h/db?ssl=require",
        "postgresql://u@h/db?sslmode=verify-full&channel_binding=require",
        "postgresql://u@h/db?connect_timeout=5&application_name=me&options=-csearch_path%3Dx",
        "postgresql://u@h/db?keepalives=1&keepalives_idle=30&tcp_user_timeout=9&gssencmode=disable",
        "postgresql://u@h/db?pgbouncer=true&connection_limit=1",
        "postgresql://u@h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgresql://%2Fvar%2Frun/db",
        "postgresql://u:p%40ss%2F@[::1]:5432/db",
        "postgresql://u:a:b@h/db",
        "postgresql:///?service=x",
        " postgresql://u@h/db\n",
    ],
)
def test_what_services_print_is_read(read: dict[str, Callable[[str], object]], way: str, url: str) -> None:
    """The same for the ledger and for queries."""
    read[way](url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u@h/db?no_such=1", "option no_such is unknown"),
        ("postgresql://u@h/db?require_auth=md5", "option require_auth is unknown"),
        ("postgresql://u@h/db?gssencmode=require", "option gssencmode"),
        ("postgresql://u@h/db?client_encoding=latin1", "option client_encoding"),
        ("postgresql://u@h/db?channel_binding=require", "sslmode=verify-full"),
        ("postgresql://u@h/db?connect_timeout=soon", "connect_timeout is no whole number"),
    ],
)
@pytest.mark.parametrize("way", ["ledger", "query"])
def test_what_can_not_be_kept_is_named(
    read: dict[str, Callable[[str], object]], way: str, url: str, words: str
) -> None:
    """The option, and no advice about folders."""
    with pytest.raises(UsageError, match=words) as error:
        read[way](url)
    assert "folder" not in str(error.value)


def test_options_become_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server reads, how long to connect, and how the server is verified."""
    cert = tmp_path / "root.crt"
    cert.write_text("")
    url = f"postgresql://u@h/db?connect_timeout=7&options=-cx%3Dy&sslmode=verify-ca&sslrootcert={cert}"
    found = connect_args(parse_url(url, "it"))
    assert found["timeout"] == 7.0
    assert found["server_settings"] == {"application_name": "s2v-tasks", "options": "-cx=y"}
    assert found["dsn"].startswith("postgresql://?sslmode=verify-ca&sslrootcert=")
    system = connect_args(parse_url("postgresql://u@h/db?sslrootcert=system", "it"))["ssl"]
    assert (system.verify_mode, system.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(UsageError, match="sslrootcert names no file"):
        connect_args(parse_url("postgresql://u@h/db?sslmode=verify-full&sslrootcert=/nowhere.crt", "it"))
    monkeypatch.setenv("PGOPTIONS", "-csearch_path=other")
    monkeypatch.setenv("PGAPPNAME", "theirs")
    assert connect_args(parse_url("postgresql://u@h/db", "it"))["server_settings"] == {
        "application_name": "theirs",
        "options": "-csearch_path=other",
    }


async def test_a_service_file_leads_to_the_ledger(
    new_postgresql: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libpq reads it, with PGSERVICE or in the URL; a service that is not there is named."""
    backend: Backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    file = tmp_path / "services.conf"
    host = backend.url.partition("host=")[2]
    file.write_text(f"[mine]\nhost={host}\ndbname={name}\nuser=postgres\napplication_name=mine\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    async with Ledger("postgresql:///?service=mine", SystemClock()) as ledger:
        await send_and_settle(await opened(ledger), PASSED)
    monkeypatch.setenv("PGSERVICE", "mine")
    async with Ledger("postgresql://", SystemClock(), existing=True):
        pass
    monkeypatch.setenv("PGSERVICE", "other")
    with pytest.raises(UsageError, match="no database service 'other' in"):
        Ledger(backend.url, SystemClock())


async def test_a_schema_named_in_the_options_holds_the_ledger(new_postgresql: Callable[[], Any]) -> None:
    """``options=-csearch_path%3Dx``, as services print it."""
    backend = await new_postgresql()
    await backend.sql("CREATE SCHEMA x")
    async with Ledger(backend.url + "&options=-csearch_path%3Dx", SystemClock()) as ledger:
        await send_and_settle(await opened(ledger), PASSED)
    assert await backend.sql("SELECT count(*) FROM x.attempts") == [(1,)]


async def test_a_roles_connection_limit_is_met_before_anything_is_paid(
    new_postgresql: Callable[[], Any],
) -> None:
    """It says how many a process takes; a limit of so many is enough."""
    backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    role = f"limited_{name}"
    await backend.sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")
    await backend.sql(f"GRANT ALL ON SCHEMA public TO {role}")
    url = backend.url.replace("postgres:@", f"{role}@")
    with pytest.raises(UsageError, match="a process takes up to 4 connections"):
        async with Ledger(url, SystemClock()):
            pass
    await backend.sql(f"ALTER ROLE {role} CONNECTION LIMIT 4")
    async with Ledger(url, SystemClock()) as ledger:
        await send_and_settle(await opened(ledger), PASSED)
