"""Candidates from a database, a folder of parts and a sample: the same run, continued as well."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from workbench import PRICE_USD, Bench, Ran, set_rate

QUERY = "SELECT id, url AS image_url, kind FROM images WHERE kind <> 'x' ORDER BY id"


@pytest.fixture
def database(in_process: Bench) -> Iterator[sqlite3.Connection]:
    """A table of 12 images, 10 of which a query selects; its URL is in the environment."""
    path = in_process.folder / "source.db"
    os.environ["S2V_SOURCE_URL"] = in_process.env["S2V_SOURCE_URL"] = f"sqlite:///{path}"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE images (id INTEGER, url TEXT, kind TEXT)")
        rows = [(n, in_process.url(n), "x" if n % 6 == 5 else "ab"[n % 2]) for n in range(12)]
        db.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
        db.commit()
        yield db


def querying(bench: Bench, *options: object) -> list[object]:
    """The arguments of a run over the query."""
    _, _, *rest = bench.curating("", *options)
    return ["curate", "--query", QUERY, *rest]


@pytest.mark.ci
def test_a_query_is_curated_and_an_unfinished_run_goes_on_with_its_rows(
    in_process: Bench, database: sqlite3.Connection, command: Callable[..., Ran]
) -> None:
    """What was read when the run began counts, whatever the table holds now; a new run reads it again."""
    bench = in_process
    bench.emulator.set_faults(["InvalidApiKey:first=4"])
    set_rate(50)
    stopped = command(*querying(bench))
    assert stopped.status == 1, stopped.err
    with database:
        database.execute("DELETE FROM images WHERE id > 7")
    bench.emulator.set_faults([])
    finished = command(*querying(bench))
    assert finished.status == 0, finished.err
    assert f"continuing run {stopped.run_dir.name}" in finished.err
    rows = finished.verdicts
    assert rows["id"].to_list() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert set(rows["outcome"]) == {"passed"}
    assert finished.manifest["parameters"]["candidates"] == f"sql:{QUERY}"
    second = command(*querying(bench))
    assert second.verdicts["id"].to_list() == [0, 1, 2, 3, 4, 6, 7]
    assert second.manifest["run_cost_usd"] == {"billed": 0.0, "unknown": 0.0}
    assert len(bench.billed_urls()) == 10


@pytest.mark.ci
def test_a_sample_of_each_kind_is_drawn_from_nested_columns_of_a_folder(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """The same seed draws the same rows again; only they are paid for and written."""
    bench = in_process
    (bench.folder / "parts").mkdir()
    for part in range(2):
        numbers = range(part * 20, part * 20 + 20)
        images = [{"url": bench.url(n), "alt": f"{n}"} for n in numbers]
        kinds = ["rare" if n % 10 == 0 else "usual" for n in numbers]
        frame = pl.DataFrame({"image": images, "kind": kinds})
        frame.write_parquet(bench.folder / "parts" / f"{part}.parquet")
    options = ["--url-column", "image.url", "--sample", 10, "--seed", 7, "--segment-column", "kind"]
    first = command(*bench.curating(f"{bench.folder}/parts", *options))
    assert first.status == 0, first.err
    rows = first.verdicts
    assert rows.columns[:2] == ["image", "kind"]
    assert rows["row"].to_list() == list(range(10))
    assert rows["kind"].to_list().count("rare") == 1
    numbers = [int(alt) for alt in rows["image"].struct.field("alt")]
    assert numbers == sorted(numbers)
    assert sorted(bench.billed_urls()) == sorted(bench.url(n) for n in numbers)
    again = command(*bench.curating(f"{bench.folder}/parts", *options))
    assert again.verdicts["image"].to_list() == rows["image"].to_list()
    assert first.manifest["run_cost_usd"]["billed"] == pytest.approx(10 * PRICE_USD)
    assert len(bench.billed_urls()) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c.parquet", "--query", "SELECT 1"], "one of them"),
        ([], "one of them"),
        (["--query", "SELECT 1"], "S2V_SOURCE_URL"),
        (["--query", "SELECT url FROM images"], "no column 'image_url'"),
        (["--query", "SELECT image_url FROM images"], "no such column"),
        (["--query", "SELECT id AS image_url FROM images"], "must hold strings"),
        (["c.parquet", "--segment-column", "kind"], "no column 'kind'"),
        (["c.parquet", "--sample", "0"], "--sample"),
        (["c.parquet", "--seed", "-1"], "--seed"),
    ],
)
def test_a_source_that_can_not_be_used_is_reported_and_nothing_written(
    in_process: Bench,
    database: sqlite3.Connection,
    command: Callable[..., Ran],
    arguments: list[str],
    message: str,
    tmp_path: Path,
) -> None:
    """One line, status 2, no folder, no call; a database may hold a password, so it is no option."""
    if message == "S2V_SOURCE_URL":
        del os.environ["S2V_SOURCE_URL"]
    name = in_process.candidates(in_process.portraits(1), "c.parquet")
    arguments = [name if argument == "c.parquet" else argument for argument in arguments]
    refused = command("curate", *arguments, "--out", tmp_path / "none", "--budget-usd", 1)
    assert refused.status == 2, refused.err
    assert message in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not (tmp_path / "none").exists()
    assert in_process.received() == 0
