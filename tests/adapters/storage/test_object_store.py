"""An object store for output files: atomic puts, and the folders of runs."""

import glob
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import polars as pl
import pytest
from object_store import READER, client

from s2v_tasks.adapters.storage import file_io, sources
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.object_store import ObjectPath, StoredObject
from s2v_tasks.adapters.storage.run_folder import (
    Manifest,
    RunFolder,
    clean_up_on_usage_error,
    find_unfinished,
    open_run_folder,
)
from s2v_tasks.errors import InputError, StorageUnavailable, UsageError
from s2v_tasks.models import FORMAT
from s2v_tasks.runtime.plan import check_out
from s2v_tasks.settings import CurateParameters

pytestmark = pytest.mark.ci

START = datetime(2026, 5, 1, tzinfo=UTC)


def manifest(run_id: str, status: str, hours: int) -> Manifest:
    return Manifest(
        format=FORMAT,
        run_id=run_id, status=status, started_at=START + timedelta(hours=hours), service="dashscope",  # type: ignore[arg-type]
        ledger="postgresql://l", identity="i",
        parameters=CurateParameters(candidates="c", out="o", budget_usd=1),
    )  # fmt: skip


def keys(folder: ObjectPath) -> list[str]:
    return [stored.path.key.removeprefix(f"{folder.key}/") for stored in folder.below()]


# -- paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("s3://b", "s3://b", ""),
        ("s3://b/", "s3://b", ""),
        ("s3://b/x//y/", "s3://b/x/y", "y"),
        ("s3://b/x/../y", "s3://b/y", "y"),
        ("gs://b/x.tar.gz", "gs://b/x.tar.gz", "x.tar.gz"),
        ("abfss://c@a.dfs.core.windows.net/x", "abfss://c@a.dfs.core.windows.net/x", "x"),
    ],
)
def test_a_url_is_a_place_in_one_spelling(url: str, shown: str, name: str) -> None:
    """Redundant slashes and dots give the same path; `sources.normalize_path` agrees."""
    path = file_io.parse_path(url)
    assert (str(path), path.name, sources.normalize_path(url)) == (shown, name, shown)
    assert str(path / "a" / "b") == f"{shown}/a/b"
    assert (path / "a").parent == path


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://key:hunter2@bucket/x"])
def test_a_url_without_a_bucket_or_with_a_password_is_refused(url: str) -> None:
    """Parameters are stored in clear; what is wrong is said without the password."""
    with pytest.raises(UsageError, match="BUCKET") as error:
        file_io.parse_path(url)
    assert "hunter2" not in str(error.value)


# -- whole or not at all ---------------------------------------------------------------------------------


def test_what_is_written_is_read_back(out: ObjectPath, tmp_path: Path) -> None:
    """Frames, documents, hashes and folders, the same as on this machine."""
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "ü"]})
    for path in (out, tmp_path):
        file_io.sink(frame.lazy(), path / "x.parquet")
        file_io.write_json(path / "x.json", {"a": "ü"})
        with file_io.staged_dir(path / "docs") as folder:
            (folder / "static").mkdir(parents=True)
            (folder / "static" / "a.css").write_text("a")
    assert file_io.parquet(out / "x.parquet", out / "x.parquet").collect().equals(pl.concat([frame, frame]))
    for name in ("x.parquet", "x.json", "docs/static/a.css"):
        assert file_io.sha256(out / name) == file_io.sha256(tmp_path / name)
    assert keys(out) == ["docs/static/a.css", "x.json", "x.parquet"]
    assert file_io.subfolders(out) == file_io.subfolders(tmp_path) == ["docs"]


def test_a_writer_that_fails_leaves_what_was_there(out: ObjectPath) -> None:
    """Half a file is never in the store."""
    file_io.write_json(out / "a.json", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        file_io.write_whole(out / "a.json", write)
    assert (out / "a.json").read_bytes() == b'"old"\n'
    assert keys(out) == ["a.json"]


def test_a_file_of_many_parts_is_there_whole_or_not(out: ObjectPath) -> None:
    """While 12 MB are replaced over and over, every reader gets all of one version."""
    path, over, wrong = out / "big", threading.Event(), []

    def put(letter: bytes) -> None:
        file_io.write_whole(path, lambda file: file.write_bytes(letter * 12_000_000) and None)

    def read() -> None:
        while not over.is_set():
            content = path.read_bytes()
            if len(content) != 12_000_000 or len(set(content)) != 1:
                wrong.append(len(content))

    put(b"a")
    reader = threading.Thread(target=read)
    reader.start()
    for letter in (b"b", b"c", b"d"):
        put(letter)
    over.set()
    reader.join()
    assert wrong == []


# -- the folder of a run ---------------------------------------------------------------------------------


def test_runs_are_found_in_a_store_as_on_this_machine(out: ObjectPath, tmp_path: Path) -> None:
    """The latest unfinished one continues; a run's folder is known by its manifest; its work is removed."""
    paths: list[StoragePath] = [out, tmp_path]
    for path in paths:
        assert find_unfinished(path, "i") is None
        for run_id, status, hours in (("a", "stopped", 1), ("b", "running", 3), ("c", "published", 9)):
            RunFolder(path, run_id).write(manifest(run_id, status, hours))
        folder = RunFolder(path, "b")
        file_io.write_json(folder.rows, [])
        assert find_unfinished(path, "i") == "b"
        assert open_run_folder(folder.path) == folder
        assert folder.read() == manifest("b", "running", 3)
        folder.clean()
        assert not folder.rows.exists()
        for other in (path, path / "runs", path / "runs" / "no"):
            with pytest.raises(UsageError, match="no run's folder"):
                open_run_folder(other)


def test_bad_input_leaves_nothing_in_the_store(out: ObjectPath) -> None:
    """What was put for a run that can't begin is removed; another run's files stay."""
    file_io.write_json(RunFolder(out, "other").manifest_path, {})
    folder = RunFolder(out, "r1")

    def begin() -> None:
        with clean_up_on_usage_error(folder):
            file_io.write_json(folder.rows, [])
            raise UsageError("no")

    with pytest.raises(UsageError):
        begin()
    assert keys(out) == ["runs/other/manifest.json"]


# -- what the store refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{"AWS_SECRET_ACCESS_KEY": "hunter3"}, {"AWS_ACCESS_KEY_ID": "nobody"}])
def test_a_store_that_refuses_is_one_line_without_the_key(
    in_store: dict[str, str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the store's error and the fix; raised before anything is written or paid."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="403 Forbidden") as error:
        check_out(file_io.parse_path(f"s3://{next(iter(variables)).lower()}/x".replace("_", "-")))
    assert "AWS_" in str(error.value)
    assert not any(secret in str(error.value) for secret in (*in_store.values(), "hunter3"))
    assert len(str(error.value).splitlines()) == 1


def test_a_store_that_may_only_be_read_takes_no_run(
    in_store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write of a run comes before the first call, so nothing is paid for what can't be kept."""
    obstore.put(client(in_store, "read-only"), "x/there", b"")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    folder = RunFolder(file_io.parse_path("s3://read-only/x"), "r1")
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        file_io.write_json(folder.rows, [])

    def begin() -> None:
        with clean_up_on_usage_error(folder):
            file_io.write_json(folder.rows, [])

    with pytest.raises(UsageError, match="AccessDenied"):
        begin()


# -- candidates ------------------------------------------------------------------------------------------


def test_candidates_are_found_in_a_store(out: ObjectPath) -> None:
    """By name before pattern, by pattern, by folder with what other writers left beside the parts."""
    for name in (
        "b.csv",
        "a.csv",
        "[ab].csv",
        "parts/_SUCCESS",
        "parts/x=1/1.parquet",
        "parts/x=2/0.parquet",
    ):
        file_io.write_whole(out / name, lambda file: file.write_text("image_url\n") and None)
    found = {
        pattern: [one.removeprefix(f"{out}/") for one in paths(f"{glob.escape(str(out))}/{pattern}")]
        for pattern in ("[ab].csv", "?.csv", "parts/*/*.parquet")
    }
    found["parts"] = [one.removeprefix(f"{out}/") for one in paths(f"{out}/parts")]
    found["exact"] = [one.removeprefix(f"{out}/") for one in paths(f"{out}/[ab].csv")]
    parts = ["parts/x=1/1.parquet", "parts/x=2/0.parquet"]
    assert found == {
        "exact": ["[ab].csv"],
        "[ab].csv": ["a.csv", "b.csv"],
        "?.csv": ["a.csv", "b.csv"],
        "parts": parts,
        "parts/*/*.parquet": parts,
    }
    for pattern in ("no.csv", "no/*.csv", "*"):
        with pytest.raises(InputError, match=r"no such file|can't read"):
            sources.find(f"{out}/{pattern}")


def paths(candidates: str) -> list[str]:
    return [str(one.path) for one in sources.find(candidates) if isinstance(one, StoredObject)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_candidates_are_read_from_a_store(out: ObjectPath, kind: str, tmp_path: Path) -> None:
    """Rows come in the order of the files; a file that is put again is another input."""
    if kind == "ndjson":
        with pytest.raises(InputError, match="rename"):
            sources.scan([StoredObject(out / "[a].ndjson", 1, "t")])
        out = ObjectPath(out.root, "ndjson")
    frame = pl.DataFrame({"a": ["1", "2"]})
    getattr(frame, f"write_{kind}")(tmp_path / "f")
    for name in (f"2 ü.{kind}", f"1.{kind}"):
        (out / name).put(tmp_path / "f")
    found = sources.find(str(out))
    assert sources.scan(found).collect()["a"].to_list() == ["1", "2", "1", "2"]
    before = sources.fingerprint(found)
    assert sources.fingerprint(sources.find(str(out))) == before
    getattr(pl.DataFrame({"a": ["1", "3"]}), f"write_{kind}")(tmp_path / "f")
    (out / f"1.{kind}").put(tmp_path / "f")
    assert sources.fingerprint(sources.find(str(out))) != before
