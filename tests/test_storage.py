"""Files: whole or not at all, a pointer that never goes back, and folders that runs can't leave."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from s2v_tasks.adapters import sources, storage
from s2v_tasks.adapters.folder import (
    Manifest,
    RunFolder,
    find_unfinished,
    identity,
    masked,
    new_run_id,
    nothing_left_on_usage_error,
)
from s2v_tasks.errors import InputError, S2VError, UsageError
from s2v_tasks.publish import GateSummary, Publication
from s2v_tasks.settings import CurateParameters

START = datetime(2026, 5, 1, tzinfo=UTC)


def publication(number: int) -> Publication:
    started = (START + timedelta(seconds=number)).isoformat()
    gate = GateSummary(judged_at=started, expectations=1, pass_rate=1.0)
    return Publication(
        run_id=str(number), started_at=started, path="p", rows=number, sha256="0", cost_usd=0.0,
        data_set_cost_usd=0.0, gate=gate,
    )  # fmt: skip


def manifest(run_id: str, status: str = "running", hours: int = 0, identity: str = "i") -> Manifest:
    return Manifest(
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
    """Half a file is never in place, and nothing is left beside it."""
    path = tmp_path / "a.json"
    if before is not None:
        path.write_text(before)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        storage.write_whole(path, write)
    assert names(tmp_path) == ([] if before is None else ["a.json"])
    assert before is None or path.read_text() == before


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """While a file is replaced over and over, every read is a whole document."""
    path, over, wrong = tmp_path / "a.json", threading.Event(), []
    storage.write_json(path, ["x" * 50_000])

    def read() -> None:
        while not over.is_set():
            if len(json.loads(path.read_text())[0]) != 50_000:
                wrong.append(path)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for letter in "abcdefgh" * 5:
        storage.write_json(path, [letter * 50_000])
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("name", ["az://container/x", "gcs://bucket/x", "https://host/x", "file:///x"])
def test_a_url_that_is_no_store_of_ours_is_no_folder_here(name: str) -> None:
    """It would be written where nobody looks, and read as if it were missing."""
    with pytest.raises(UsageError, match="s3://, gs:// or abfss://"):
        storage.place(name)
    with pytest.raises(InputError, match="s3://, gs:// or abfss://"):
        sources.find(name)


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """NaN is no JSON; what was there stays."""
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


def test_a_frame_that_fails_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    """An error in the query comes out as it is, and no parquet file is begun."""
    frame = pl.LazyFrame({"a": ["1", "x"]}).select(pl.col("a").cast(pl.Int64))
    with pytest.raises(pl.exceptions.InvalidOperationError):
        storage.sink(frame, tmp_path / "deep" / "a.parquet")
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
    """A data set on Hugging Face and a query keep their spelling; another name is another input."""
    name = "hf://datasets/u/d@main/**/*.parquet"
    assert sources.find(name) == [name]
    assert sources.spelt(name) == name
    assert sources.spelt("sql:SELECT 1") == "sql:SELECT 1"
    assert sources.fingerprint([name]) == sources.fingerprint([name])
    assert sources.fingerprint([name]) != sources.fingerprint([f"{name}x"])


@pytest.mark.parametrize("name", ["A.PARQUET", "a [b].pq", "[a].CSV", "a*.jsonl", "a [b].ndjson"])
def test_endings_are_read_without_case_and_names_as_they_are(tmp_path: Path, name: str) -> None:
    """All spellings of the three kinds are known; what looks like a pattern is a name."""
    frame, path = pl.DataFrame({"a": ["1"]}), tmp_path / name
    kind = name.lower().rpartition(".")[2]
    if kind in ("parquet", "pq"):
        frame.write_parquet(path)
    elif kind == "csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)
    assert sources.scan(sources.find(str(path))).collect().equals(frame)


def test_files_of_one_glob_must_have_the_same_columns(tmp_path: Path) -> None:
    """What polars can't put together is one line that names the candidates."""
    pl.DataFrame({"a": ["1"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"b": ["1"]}).write_parquet(tmp_path / "2.parquet")
    pattern = f"{tmp_path}/*.parquet"
    with pytest.raises(InputError, match="can't read") as error, sources.reading(pattern):
        sources.scan(sources.find(pattern)).collect()
    assert len(str(error.value).splitlines()) == 1


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


# -- the pointer -----------------------------------------------------------------------------------------


def test_the_pointer_of_a_race_is_the_latest_runs(tmp_path: Path) -> None:
    """Many publish at once; whoever started last is published, and every reader sees a whole pointer."""
    order = [7, 3, 19, 0, 12, 5, 16, 1, 14, 9, 18, 2, 11, 6, 17, 4, 13, 8, 15, 10]
    start, seen, over = threading.Barrier(len(order)), [], threading.Event()

    def publish(number: int) -> None:
        start.wait()
        storage.publish(tmp_path, publication(number))

    def read() -> None:
        while not over.is_set():
            if (current := storage.read_pointer(tmp_path)) is not None:
                seen.append(current.rows)

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=publish, args=(number,)) for number in order]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()
    current = storage.read_pointer(tmp_path)
    assert current == publication(19)
    assert seen == sorted(seen)
    assert names(tmp_path / "published") == [".lock", "current.json"]


def test_an_earlier_run_leaves_the_pointer_as_it_is(tmp_path: Path) -> None:
    """Byte for byte; the same run may publish again."""
    assert storage.read_pointer(tmp_path) is None
    assert storage.publish(tmp_path, publication(2))
    before = storage.pointer_path(tmp_path).read_bytes()
    assert not storage.publish(tmp_path, publication(1))
    assert storage.pointer_path(tmp_path).read_bytes() == before
    assert storage.publish(tmp_path, publication(2))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
def test_a_pointer_that_is_none_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    """Somebody's file of that name is an error in words, and stays."""
    path = storage.pointer_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(S2VError, match="no pointer of this program"):
        storage.publish(tmp_path, publication(1))
    assert path.read_bytes() == content


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


def test_a_runs_folder_is_told_from_others(tmp_path: Path) -> None:
    """Only OUT/runs/<run_id> with a manifest is one; relative paths and links to it are too."""
    folder = RunFolder(tmp_path, "r1")
    folder.write(manifest("r1"))
    assert RunFolder.of(folder.path) == folder
    (tmp_path / "link").symlink_to(folder.path)
    assert RunFolder.of(tmp_path / "link") == folder
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "manifest.json").write_text("{}")
    for other in (tmp_path, tmp_path / "runs" / "empty", tmp_path / "r2", tmp_path / "no", Path("/")):
        with pytest.raises(UsageError, match="no run's folder"):
            RunFolder.of(other)


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
        ("d", "closed", 9, "i"), ("e", "budget_spent", 9, "i"), ("f", "stopped", 9, "other"),
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


def test_a_password_is_not_in_what_is_kept_of_a_ledgers_url() -> None:
    """The manifest and the identity are made with the masked one."""
    assert "hunter2" not in masked("postgresql://me:hunter2@host/db")
    assert "me" in masked("postgresql://me:hunter2@host/db")


@pytest.mark.parametrize("existing", [None, "out", "out/runs", "out/runs/r1"])
def test_bad_input_leaves_what_was_there_and_nothing_else(tmp_path: Path, existing: str | None) -> None:
    """Folders made for a run that can't begin go again; those of others stay."""
    folder = RunFolder(tmp_path / "out", "r1")
    if existing is not None:
        (tmp_path / existing).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))

    def begin() -> None:
        with nothing_left_on_usage_error(folder):
            folder.rows.parent.mkdir(parents=True, exist_ok=True)
            folder.rows.write_text("rows")
            raise UsageError("no")

    with pytest.raises(UsageError):
        begin()
    if existing == "out/runs/r1":
        assert set(before) <= set(tmp_path.rglob("*"))
    else:
        assert sorted(tmp_path.rglob("*")) == before
