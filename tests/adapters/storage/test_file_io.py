"""Files: whole or not at all, and folders that runs can't leave."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from s2v_tasks.adapters.storage import file_io, sources
from s2v_tasks.adapters.storage.run_folder import (
    Manifest,
    RunFolder,
    clean_up_on_usage_error,
    find_unfinished,
    identity,
    new_run_id,
    open_run_folder,
)
from s2v_tasks.errors import InputError, UsageError
from s2v_tasks.models import FORMAT
from s2v_tasks.settings import Advanced, CurateParameters

START = datetime(2026, 5, 1, tzinfo=UTC)
OLDER = "f24b68aba83d5021f9054d41960b45bdd0ed40a10d2d6ab7e12ffcd6c423dca1"
"""An identity as commit f400cf2 made it."""


def manifest(run_id: str, status: str = "running", hours: int = 0, identity: str = "i") -> Manifest:
    return Manifest(
        format=FORMAT,
        run_id=run_id,
        status=status,  # type: ignore[arg-type]
        started_at=START + timedelta(hours=hours),
        service="dashscope",
        ledger="sqlite:///l",
        identity=identity,
        parameters=CurateParameters(candidates="c", out="o", budget_usd=1),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- whole or not at all ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, "old"])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    """Half a file is never in place, and no temporary file is left."""
    path = tmp_path / "a.json"
    if before is not None:
        path.write_text(before)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        file_io.write_whole(path, write)
    assert names(tmp_path) == ([] if before is None else ["a.json"])
    assert before is None or path.read_text() == before


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """While a file is replaced over and over, every read is a whole document."""
    path, over, wrong = tmp_path / "a.json", threading.Event(), []
    file_io.write_json(path, ["x" * 50_000])

    def read() -> None:
        while not over.is_set():
            if len(json.loads(path.read_text())[0]) != 50_000:
                wrong.append(path)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for letter in "abcdefgh" * 5:
        file_io.write_json(path, [letter * 50_000])
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("name", ["az://container/x", "gcs://bucket/x", "https://host/x", "file:///x"])
def test_a_url_that_is_no_store_of_ours_is_no_folder_here(name: str) -> None:
    """It would be written into a wrong folder, and read as if it were missing."""
    with pytest.raises(UsageError, match="s3://, gs:// or abfss://"):
        file_io.parse_path(name)
    with pytest.raises(InputError, match="s3://, gs:// or abfss://"):
        sources.find(name)


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """NaN is no JSON; what was there stays."""
    with pytest.raises(ValueError, match="JSON"):
        file_io.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


def test_a_frame_that_fails_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    """An error in the query comes out as it is, and no file is left, also by threads that it did not end."""
    frame = pl.LazyFrame({"a": ["1", "x"]}).select(pl.col("a").cast(pl.Int64))
    for _ in range(200):  # by a path, polars made the file after the error in about one of 20
        with pytest.raises(pl.exceptions.InvalidOperationError):
            file_io.sink(frame, tmp_path / "deep" / "a.parquet")
    assert names(tmp_path / "deep") == []


# -- the candidates --------------------------------------------------------------------------------------


def test_files_are_found_by_name_before_by_pattern_and_in_order(tmp_path: Path) -> None:
    """A name with brackets is a name; a glob gives files, sorted, folders left out."""
    for name in ("b.csv", "a.csv", "[ab].csv"):
        (tmp_path / name).write_text("image_url\n")
    (tmp_path / "c.csv").mkdir()
    assert sources.find(f"{tmp_path}/[ab].csv") == [tmp_path / "[ab].csv"]
    assert sources.find(f"{tmp_path}/*.csv") == [tmp_path / n for n in ("[ab].csv", "a.csv", "b.csv")]
    assert sources.find(f"{tmp_path}/?.csv") == [tmp_path / n for n in ("a.csv", "b.csv")]


def test_a_folder_holds_parts_of_one_kind(tmp_path: Path) -> None:
    """All files below it, in order; what other writers leave beside them is no part."""
    for name in ("b/2.parquet", "a.parquet", "b/1.parquet", "_SUCCESS", ".x.parquet", "_log/0.parquet"):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"a": [name]}).write_parquet(path)
    found = sources.find(f"{tmp_path}/parts")
    assert sources.scan(found).collect()["a"].to_list() == ["a.parquet", "b/1.parquet", "b/2.parquet"]
    (tmp_path / "parts" / "b" / "x.csv").touch()
    with pytest.raises(InputError, match=r"\.csv, \.parquet"):
        sources.find(f"{tmp_path}/parts")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such file"):
        sources.find(f"{tmp_path}/empty")


def test_what_only_has_a_name_is_known_by_it() -> None:
    """A dataset on Hugging Face and a query keep their spelling; another name is another input."""
    name = "hf://datasets/u/d@main/**/*.parquet"
    assert sources.find(name) == [name]
    assert sources.normalize_path(name) == name
    assert sources.normalize_path("sql:SELECT 1") == "sql:SELECT 1"
    assert sources.fingerprint([name]) == sources.fingerprint([name])
    assert sources.fingerprint([name]) != sources.fingerprint([f"{name}x"])


@pytest.mark.parametrize("name", ["A.PARQUET", "a [b].pq", "[a].CSV", "a*.jsonl", "a [b].ndjson"])
def test_endings_are_read_without_case_and_names_as_they_are(tmp_path: Path, name: str) -> None:
    """All spellings of the three kinds are recognised; pattern characters are part of a name."""
    frame, path = pl.DataFrame({"a": ["1"]}), tmp_path / name
    kind = name.lower().rpartition(".")[2]
    if kind in ("parquet", "pq"):
        frame.write_parquet(path)
    elif kind == "csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)
    assert sources.scan(sources.find(str(path))).collect().equals(frame)


def test_files_of_one_glob_may_have_other_columns(tmp_path: Path) -> None:
    """What a file does not have is null in its rows."""
    pl.DataFrame({"a": ["1"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"b": ["1"]}).write_parquet(tmp_path / "2.parquet")
    pattern = f"{tmp_path}/*.parquet"
    assert sources.scan(sources.find(pattern), pattern).collect().rows() == [("1", None), (None, "1")]


def test_a_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    """Grown, replaced or touched: it may be another input."""
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    first = sources.fingerprint([path])
    assert sources.fingerprint([path]) == first
    path.write_text("a\n1\n2\n")
    second = sources.fingerprint([path])
    os.utime(path, ns=(1, 1))
    assert len({first, second, sources.fingerprint([path]), sources.fingerprint([path, path])}) == 4


# -- the folder of a run ---------------------------------------------------------------------------------


NO_NAMES = ["", ".", "..", "../x", "a/b", "/x", "a\\b", "-a", ".a", "a b", "a\n", "x" * 101, "é"]


@pytest.mark.parametrize("run_id", NO_NAMES)
def test_a_runs_id_is_a_plain_name(tmp_path: Path, run_id: str) -> None:
    """Nothing that could lead out of the folder of runs, or be taken for an option."""
    with pytest.raises(UsageError, match="--run-id"):
        RunFolder(tmp_path, run_id)


def test_ids_that_the_program_makes_are_plain_names_and_sort_by_time(tmp_path: Path) -> None:
    """UTC to the second, and characters that keep two of one second apart."""
    ids = [new_run_id(START + timedelta(days=n)) for n in range(3)]
    assert ids == sorted(ids)
    assert ids[0].startswith("20260501T000000Z-")
    assert [RunFolder(tmp_path, run_id).path.name for run_id in ids] == ids
    assert new_run_id(START) != new_run_id(START)


def test_a_runs_folder_is_distinguished_from_others(tmp_path: Path) -> None:
    """Only OUT/runs/<run_id> with a manifest is one; relative paths and links to it are too."""
    folder = RunFolder(tmp_path, "r1")
    folder.write(manifest("r1"))
    assert open_run_folder(folder.path) == folder
    (tmp_path / "link").symlink_to(folder.path)
    assert open_run_folder(tmp_path / "link") == folder
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "manifest.json").write_text("{}")
    for other in (tmp_path, tmp_path / "runs" / "empty", tmp_path / "r2", tmp_path / "no", Path("/")):
        with pytest.raises(UsageError, match="no run's folder"):
            open_run_folder(other)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Keys that a later version adds are no obstacle; what is no manifest is named."""
    folder = RunFolder(tmp_path, "r1")
    folder.write(manifest("r1"))
    assert folder.read() == manifest("r1")
    document = json.loads(folder.manifest_path.read_text())
    folder.manifest_path.write_text(json.dumps({**document, "later": 1}))
    assert folder.read() == manifest("r1")
    folder.manifest_path.write_text("{")
    with pytest.raises(UsageError, match="can't be read"):
        folder.read()


def test_the_latest_unfinished_run_of_the_same_command_is_found(tmp_path: Path) -> None:
    """Finished ones, others' and broken ones are passed over."""
    assert find_unfinished(tmp_path, "i") is None
    for run_id, status, hours, of in (
        ("a", "stopped", 1, "i"), ("b", "running", 3, "i"), ("c", "published", 9, "i"),
        ("d", "closed", 9, "i"), ("e", "budget_exhausted", 9, "i"), ("f", "stopped", 9, "other"),
    ):  # fmt: skip
        RunFolder(tmp_path, run_id).write(manifest(run_id, status, hours, of))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "manifest.json").write_text("{")
    (tmp_path / "runs" / "-odd").mkdir()
    (tmp_path / "runs" / "-odd" / "manifest.json").write_text("{}")
    assert find_unfinished(tmp_path, "i") == "b"


def test_two_commands_are_the_same_run_only_if_all_is_the_same() -> None:
    """Input, any parameter, service and ledger."""
    parameters = CurateParameters(candidates="c", out="o", budget_usd=1)
    same = (parameters, "dashscope", "sqlite:///l", "f")
    others = [
        (parameters.model_copy(update={"budget_usd": 2}), *same[1:]),
        (parameters, "http://127.0.0.1:1", *same[2:]),
        (*same[:2], "sqlite:///m", "f"),
        (*same[:3], "g"),
    ]
    assert identity(*same) == identity(*same)
    assert len({identity(*given) for given in (same, *others)}) == 5


def test_pages_do_not_make_another_run() -> None:
    """A run is continued with or without Data Docs, and by a version that knows no such option."""
    parameters = CurateParameters(candidates="c", out="o", budget_usd=1)
    with_pages = parameters.model_copy(update={"advanced": Advanced(data_docs=True)})
    assert identity(parameters, "s", "l", "f") == identity(with_pages, "s", "l", "f") == OLDER


@pytest.mark.parametrize("existing", [None, "out", "out/runs", "out/runs/r1"])
def test_bad_input_leaves_what_was_there_and_nothing_else(tmp_path: Path, existing: str | None) -> None:
    """Folders made for a run that can't begin go again; those of others stay."""
    folder = RunFolder(tmp_path / "out", "r1")
    if existing is not None:
        (tmp_path / existing).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))

    def begin() -> None:
        with clean_up_on_usage_error(folder):
            folder.rows.parent.mkdir(parents=True, exist_ok=True)
            folder.rows.write_text("rows")
            raise UsageError("no")

    with pytest.raises(UsageError):
        begin()
    if existing == "out/runs/r1":
        assert set(before) <= set(tmp_path.rglob("*"))
    else:
        assert sorted(tmp_path.rglob("*")) == before
