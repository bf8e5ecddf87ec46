"""Candidates from a database: a SQLite file and a real PostgreSQL, in batches, types and all."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ledger_backend import Backend

from s2v_tasks.adapters.storage import file_io, query, sources
from s2v_tasks.errors import InputError


@pytest.fixture
async def images(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A table of five images, in the database that the environment names."""
    await backend.sql("CREATE TABLE images (id INTEGER, image_url TEXT, score FLOAT, note TEXT)")
    for number in range(5):
        score = "NULL" if number < 3 else f"{number}.5"
        await backend.sql(f"INSERT INTO images VALUES ({number}, 'http://x/{number}', {score}, NULL)")
    monkeypatch.setenv("S2V_SOURCE_URL", backend.url)
    return backend


async def read(text: str) -> pl.DataFrame:
    def collected() -> pl.DataFrame:
        found = sources.find(f"sql:{text}")
        return sources.scan(found).collect()

    return await asyncio.to_thread(collected)


async def test_a_querys_rows_come_in_its_order_with_their_types(images: Backend) -> None:
    """Numbers, nulls and text; a name after a colon is text; also called inside an event loop."""
    text = "SELECT image_url, id, score, '12:30 :no' AS at FROM images WHERE id <> 1 ORDER BY id DESC"
    found = sources.find(f"sql:{text}")  # in the loop, as a flow does
    frame = sources.scan(found).collect()
    assert frame["image_url"].to_list() == [f"http://x/{n}" for n in (4, 3, 2, 0)]
    assert frame["score"].to_list() == [4.5, 3.5, None, None]
    assert set(frame["at"]) == {"12:30 :no"}
    assert frame["id"].dtype.is_integer()


async def test_batches_with_nulls_only_take_the_type_of_the_others(images: Backend, tmp_path: Path) -> None:
    """More rows than a batch holds are all there, in order, though the first batch knew no type."""
    count = 2 * query.BATCH_ROWS + 7
    text = (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"
        f" SELECT i, CASE WHEN i > {query.BATCH_ROWS} THEN 1.5 END AS late FROM n"
    )
    found = sources.find(f"sql:{text}")
    file_io.sink(sources.scan(found), tmp_path / "rows.parquet")
    frame = pl.read_parquet(tmp_path / "rows.parquet")
    assert frame["i"].to_list() == list(range(count))
    assert frame["late"].null_count() == query.BATCH_ROWS + 1
    assert float(frame["late"].drop_nulls().unique().item()) == 1.5


async def test_a_query_is_run_once_and_leaves_no_file(images: Backend) -> None:
    """Not before its rows are wanted, and not again for them; when a run is done, they are gone."""
    text = "sql:SELECT image_url FROM images"
    first = sources.find(text)
    assert sources.schema(first) is None
    folder = Path(sources.scan(first).explain(optimized=False).split("[")[1].split("]")[0]).parent
    fingerprint = sources.fingerprint(first)
    await images.sql("DELETE FROM images WHERE id > 0")
    assert sources.scan(first).collect().height == 5
    del first
    assert not folder.exists()
    again = sources.find(text)
    assert sources.scan(again).collect().height == 1
    assert sources.fingerprint(again) == fingerprint
    assert sources.fingerprint(sources.find(f"{text} ")) == fingerprint
    assert sources.fingerprint(sources.find(f"{text} WHERE id = 0")) != fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT nope FROM images", "nope"),
        ("SELECT image_url FROM images WHERE id > 9", "no rows"),
        ("DROP TABLE images", "can't be run"),
        ("no sql", "can't be run"),
        ("", "can't be run"),
    ],
)
async def test_a_query_that_gives_nothing_is_one_line(images: Backend, text: str, message: str) -> None:
    """What the database said; nothing in it has changed."""
    with pytest.raises(InputError, match=message) as error:
        await read(text)
    assert len(str(error.value).splitlines()) == 1
    assert await images.sql("SELECT count(*) FROM images") == [(5,)]


async def test_a_query_that_writes_is_not_committed(images: Backend) -> None:
    """A statement that gives rows and deletes them at once leaves the table as it was."""
    frame = await read("delete FROM images WHERE id = 0 RETURNING image_url")
    assert frame.height == 1
    assert await images.sql("SELECT count(*) FROM images") == [(5,)]


async def test_a_type_that_parquet_does_not_know_is_named(
    new_postgresql: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column, its kind and the way out."""
    monkeypatch.setenv("S2V_SOURCE_URL", (await new_postgresql()).url)
    with pytest.raises(InputError, match=r"'id' .* UUID.*cast"):
        await read("SELECT gen_random_uuid() AS id")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "set S2V_SOURCE_URL"),
        ("no url", "no SQLAlchemy URL"),
        ("sqlite:////nowhere/x.db", "no file /nowhere/x.db"),
        ("postgresql://me:hunter2@127.0.0.1:9/x", "can't be run"),
        ("nosuch://me:hunter2@127.0.0.1/x", "can't be run|no SQLAlchemy URL"),
        ("mysql://me:hunter2@127.0.0.1/x", "can't be run"),
    ],
)
async def test_a_database_that_is_not_there_is_reported_without_its_password(
    url: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; no file is made, no password shown, and the rows never show it either."""
    monkeypatch.delenv("S2V_SOURCE_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("S2V_SOURCE_URL", url)
    with pytest.raises(InputError, match=message) as error:
        await read("SELECT 1")
    assert "hunter2" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# -- values of one column ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("(1), (x'00ff'), (2)", "bytes and int"),
        ("('a'), (x'00ff')", "bytes and str"),
        ("(1.5), ('a')", "float and str"),
        ("(1), ('a')", "int and str"),
        ("(9007199254740993), (0.5)", "fractions and whole numbers over 2"),
    ],
)
async def test_values_that_no_type_holds_together_are_refused_by_their_column(
    values: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite lets any value into any column: none of them becomes a null in silence."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("CREATE TABLE t (x)")
        db.execute(f"INSERT INTO t VALUES {values}")
    monkeypatch.setenv("S2V_SOURCE_URL", f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(InputError, match=rf"column 'x' of the query holds .*{message}.*cast it"):
        await read("SELECT x FROM t")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("(1), (NULL), (0.5)", [1.0, None, 0.5]),
        ("(x'00ff'), (NULL)", [b"\x00\xff", None]),
        ("(NULL), (9223372036854775807)", [None, 2**63 - 1]),
        ("('007'), ('8')", ["007", "8"]),
    ],
)
async def test_values_come_out_as_they_are(
    values: str, expected: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also whole numbers beside fractions, and nulls beside anything."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("CREATE TABLE t (x)")
        db.execute(f"INSERT INTO t VALUES {values}")
    monkeypatch.setenv("S2V_SOURCE_URL", f"sqlite:///{tmp_path / 'a.db'}")
    assert (await read("SELECT x FROM t"))["x"].to_list() == expected


async def test_batches_of_other_kinds_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text in the first batch and a number in the second one."""
    monkeypatch.setenv("S2V_SOURCE_URL", f"sqlite:///{tmp_path / 'a.db'}")
    sqlite3.connect(tmp_path / "a.db").close()
    text = (
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {query.BATCH_ROWS + 5})"
        f" SELECT CASE WHEN i < {query.BATCH_ROWS} THEN 'a' ELSE i END AS x FROM n"
    )
    with pytest.raises(InputError, match="column 'x' of the query"):
        await read(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [("'NaN'::numeric", "NaN"), ("'Infinity'::numeric", "infinity"), ("1::int, 2", "two columns|twice")],
)
async def test_a_numeric_nan_is_one_line(
    value: str, message: str, new_postgresql: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """No page of a library's panic; the column is named."""
    monkeypatch.setenv("S2V_SOURCE_URL", (await new_postgresql()).url)
    with pytest.raises(InputError, match=message) as error:
        await read(f"SELECT {value} AS x" if "::num" in value else "SELECT 1 AS x, 2 AS x")
    assert "'x'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "panicked" not in capfd.readouterr().err
