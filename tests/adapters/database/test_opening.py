"""Opening a ledger: a run makes what is missing; a reader makes and changes nothing."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from shutil import copyfile

import pytest
from ledger_backend import Backend
from ledger_cases import PASSED, opened, send_and_settle

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.migrations import SCHEMA
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import LedgerNotFound, LedgerRefused, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT

TABLES = {
    True: "SELECT name FROM sqlite_master",
    False: "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
}


async def test_a_database_without_a_ledger_is_refused_by_who_only_reads(backend: Backend) -> None:
    """Nothing is made in it: the name may be a slip, and the database another program's."""
    await backend.sql("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(LedgerRefused if backend.is_sqlite else LedgerNotFound, match="no ledger"):
        async with Ledger(backend.url, SystemClock(), existing=True):
            pass
    assert await backend.sql(TABLES[backend.is_sqlite]) == [("theirs",)]


async def test_a_missing_file_stays_missing_for_who_only_reads(tmp_path: Path) -> None:
    """It says where there is no ledger, and makes none."""
    path = tmp_path / "ledger.sqlite3"
    with pytest.raises(LedgerNotFound, match=f"there is no ledger at {path}"):
        async with Ledger(f"sqlite:///{path}", SystemClock(), existing=True):
            pass
    assert not path.exists()


async def test_who_only_reads_finds_what_a_run_has_made(backend: Backend) -> None:
    """Its tables, and what is in them."""
    async with Ledger(backend.url, SystemClock()) as ledger:
        await opened(ledger)
    async with Ledger(backend.url, SystemClock(), existing=True) as ledger:
        assert [frame.height async for frame in ledger.attempts()] == []
        assert await ledger.headers.get(["a"], ScreenOptions.of(), WAN22_S2V_DETECT) == ([], [])


def test_a_foreign_file_stays_as_it_is(tmp_path: Path) -> None:
    """To the byte: not even its journal's mode is set."""
    path = tmp_path / "theirs.sqlite3"
    with closing(sqlite3.connect(path)) as theirs, theirs:
        theirs.execute("CREATE TABLE theirs (x INTEGER)")
    before = sha256(path.read_bytes()).hexdigest()

    async def read_only() -> None:
        async with Ledger(f"sqlite:///{path}", SystemClock(), existing=True):
            pass

    with pytest.raises(LedgerRefused):
        asyncio.run(read_only())
    assert sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.sqlite3"]


async def test_a_copy_without_its_wal_file_is_refused(tmp_path: Path) -> None:
    """Of a ledger whose tables are still in the -wal file it is one page; it is not taken for a new one."""
    path, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy.sqlite3"
    with closing(sqlite3.connect(path)) as db:  # as the first version of the program made it
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE attempts (id INTEGER)")
        db.commit()
        copyfile(path, copy)
    assert copy.stat().st_size == 4096
    before = copy.read_bytes()
    for existing in (True, False):
        with pytest.raises(
            LedgerRefused, match="copied without its -wal file: copy it again with VACUUM INTO"
        ):
            async with Ledger(f"sqlite:///{copy}", SystemClock(), existing=existing):
                pass
    assert copy.read_bytes() == before


async def test_a_new_ledger_has_its_tables_before_it_has_a_wal_file(tmp_path: Path) -> None:
    """A copy of the file alone never is one without tables, from its first moment on."""
    path, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy.sqlite3"
    async with Ledger(f"sqlite:///{path}", SystemClock()):
        copyfile(path, copy)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as db:
        assert db.execute("SELECT max(version) FROM s2v_ledger").fetchone() == (SCHEMA.version,)


async def test_a_copy_of_the_file_alone_lacks_few_calls(tmp_path: Path) -> None:
    """It can't be distinguished from a whole one, so what the -wal file may hold is bounded: ten calls."""
    path, copy, lacking = tmp_path / "ledger.sqlite3", tmp_path / "copy.sqlite3", []
    async with Ledger(f"sqlite:///{path}", SystemClock()) as ledger:
        lease = await opened(ledger)
        for calls in range(1, 41):
            await send_and_settle(lease, PASSED, f"{calls:032x}")
            copyfile(path, copy)
            with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as db:
                (there,) = db.execute("SELECT count(*) FROM attempts WHERE state = 'billed'").fetchone()
            lacking.append(calls - there)
    assert 0 < max(lacking) <= 10
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM attempts").fetchone() == (40,), "closed, the file is whole"


async def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    """Of two that turn it into a ledger at once, SQLite refuses one without waiting."""
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.3, other.execute, "COMMIT")
        async with Ledger(f"sqlite:///{path}", SystemClock()) as ledger:
            await opened(ledger)


@pytest.mark.parametrize(
    "url", ["sqlite:///{}/nowhere/ledger.sqlite3", "postgresql://nobody@127.0.0.1:1/none"]
)
async def test_a_ledger_that_cant_be_opened_is_named_with_a_way_out(tmp_path: Path, url: str) -> None:
    """Which database, what its driver said, and what to check."""
    url = url.format(tmp_path)
    with pytest.raises(UsageError) as error:
        async with Ledger(url, SystemClock()):
            pass
    assert url.partition("://")[2].rpartition("/")[2] in error.value.message
    assert "S2V_LEDGER_URL" in error.value.message


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger

folder = Path(sys.argv[1])
url = f"sqlite:///{folder}/what?now.sqlite3"

async def read(**opening):
    async with Ledger(url, SystemClock(), **opening) as ledger:
        return len([frame async for frame in ledger.attempts()])

asyncio.run(read())
asyncio.run(read(existing=True))
for path in (*folder.iterdir(), folder):
    path.chmod(0o444 if path.is_file() else 0o555)
if not os.getuid():
    os.setuid(54321)
print(sorted(path.name for path in folder.iterdir()), asyncio.run(read(existing=True)))
"""


def test_a_ledger_that_can_not_be_written_is_read() -> None:
    """On a read-only file system SQLite can't open the files beside it; there is nothing in them."""
    folder = Path(tempfile.mkdtemp(prefix="s2v-read-only-"))
    folder.chmod(0o755)
    try:
        run = subprocess.run([sys.executable, "-c", READ_ONLY, folder], capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (0, "['what?now.sqlite3'] 0\n"), run.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
