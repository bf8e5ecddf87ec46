"""Paths as people write them: a home folder without a shell, and characters that mean something in a URL."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.connection import absolute, ledger_url
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.storage import file_io, sources
from s2v_tasks.runtime.plan import plan, snapshot
from s2v_tasks.settings import Credentials, CurateParameters

ODD = ["what?now", "a#b", "100%", "%41", "x?uri=true", "a&b=c", "[x]*", "sp ace", "~", "é", "a:b"]
CREDENTIALS = Credentials("http://127.0.0.1:9/api/v1", SecretStr("key"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, and another current folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(home: Path) -> None:
    """In a form, in YAML and in ``--out=~/x`` no shell replaces it."""
    pl.DataFrame({"image_url": ["https://a.example/1.jpg"]}).write_parquet(home / "c.parquet")
    parameters = CurateParameters(candidates="~/c.parquet", out="~/out", budget_usd=1)
    planned = plan(parameters, CREDENTIALS)
    assert planned.out == home / "out"
    assert planned.files == [home / "c.parquet"]
    assert planned.ledger_url == f"sqlite:///{home}/out/ledger.sqlite3"
    assert absolute("sqlite:///~/x.sqlite3") == f"sqlite:///{home}/x.sqlite3"
    whole = CurateParameters(candidates=f"{home}/c.parquet", out=f"{home}/out", budget_usd=1)
    assert plan(whole, CREDENTIALS).identity == planned.identity
    assert list(Path.cwd().iterdir()) == []


def test_a_name_that_only_begins_with_a_tilde_stays(home: Path) -> None:
    """Such as a temporary file of an office program."""
    assert [expanded(name) for name in ("~$list.csv", "~no-such-user/x", "a/~")] == [
        "~$list.csv", "~no-such-user/x", "a/~",
    ]  # fmt: skip


def test_without_a_home_folder_a_tilde_is_refused_in_words() -> None:
    """A user of a container that no password file knows."""
    code = "import os; from s2v_tasks.adapters.home import expanded; os.setuid(54321); expanded('~/x')"
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    if os.getuid():
        pytest.skip("only root becomes another user")
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "UsageError: ~/x: the home folder is unknown; set HOME, or write the whole path" in run.stderr


@pytest.mark.parametrize("name", ODD)
async def test_an_output_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Its ledger, its rows and its files are in it, and nothing is beside it."""
    out = tmp_path / name
    candidates = tmp_path / f"{name}.parquet"
    pl.DataFrame({"image_url": ["https://a.example/1.jpg"]}).write_parquet(candidates)
    parameters = CurateParameters(candidates=str(candidates), out=str(out), budget_usd=1)
    planned = plan(parameters, CREDENTIALS)
    out.mkdir()
    assert snapshot(planned, out / "work" / "rows.parquet") == 1
    assert file_io.parquet(out / "work" / "rows.parquet").collect().height == 1
    async with Ledger(planned.ledger_url, SystemClock()):
        pass
    with closing(sqlite3.connect(out / "ledger.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    async with Ledger(absolute(planned.ledger_url), SystemClock(), existing=True) as ledger:
        assert ledger.version
    assert set(tmp_path.iterdir()) == {out, candidates}  # noqa: ASYNC240


@pytest.mark.parametrize("ending", ["csv", "ndjson"])
@pytest.mark.parametrize("name", ODD)
def test_candidates_may_have_any_name(tmp_path: Path, name: str, ending: str) -> None:
    """A file, and a folder of that name."""
    (tmp_path / name).mkdir()
    frame = pl.DataFrame({"image_url": ["https://a.example/1.jpg"]})
    for file in (tmp_path / f"{name}.{ending}", tmp_path / name / f"part.{ending}"):
        getattr(frame, f"write_{ending}")(file)
        for given in (str(file), str(file.parent) if file.name.startswith("part") else str(file)):
            assert sources.scan(sources.find(given), given).collect()["image_url"].len() == 1


@pytest.mark.parametrize(
    ("url", "path", "options"),
    [
        ("sqlite:////x/what?now/l.sqlite3", "/x/what?now/l.sqlite3", {}),
        ("sqlite:////x/l.sqlite3?timeout=5", "/x/l.sqlite3", {"timeout": "5"}),
        ("sqlite:///file:l.sqlite3?mode=rw&uri=true", "file:l.sqlite3", {"mode": "rw", "uri": "true"}),
        ("SQLite+pysqlite:///l%20x", "l%20x", {}),
    ],
)
def test_what_is_behind_the_slashes_is_the_path(url: str, path: str, options: dict[str, str]) -> None:
    """Options are options only if they look like some."""
    parsed = ledger_url(url)
    assert (parsed.database, dict(parsed.query)) == (path, options)
