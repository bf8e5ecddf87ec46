"""An object store as the place of files: whole or not at all, and a pointer that never goes back."""

import glob
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import polars as pl
import pytest
from object_store import READER, client

from s2v_tasks.adapters import sources, storage
from s2v_tasks.adapters.folder import Manifest, RunFolder, find_unfinished, nothing_left_on_usage_error
from s2v_tasks.adapters.objects import ObjectPath, Stored
from s2v_tasks.adapters.storage import Place
from s2v_tasks.errors import InputError, S2VError, StorageUnavailable, UsageError
from s2v_tasks.plan import check_out
from s2v_tasks.publish import GateSummary, Publication
from s2v_tasks.settings import CurateParameters

START = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def env(object_store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    return object_store


@pytest.fixture
def out(env: dict[str, str], request: pytest.FixtureRequest) -> Iterator[ObjectPath]:
    """A folder of the test's own, with characters that are odd but allowed."""
    path = storage.place(f"s3://bucket/a [b] c/{request.node.name}")
    assert isinstance(path, ObjectPath)
    yield path
    path.remove_below()


def publication(number: int) -> Publication:
    started = (START + timedelta(seconds=number)).isoformat()
    gate = GateSummary(judged_at=started, expectations=1, pass_rate=1.0)
    return Publication(
        run_id=str(number), started_at=started, path="p", rows=number, sha256="0", cost_usd=0.0,
        data_set_cost_usd=0.0, gate=gate,
    )  # fmt: skip


def manifest(run_id: str, status: str, hours: int) -> Manifest:
    return Manifest(
        run_id=run_id, status=status, started_at=START + timedelta(hours=hours), service="dashscope",  # type: ignore[arg-type]
        ledger="postgresql://l", identity="i",
        parameters=CurateParameters(candidates="c", out="o", budget_usd=1),
    )  # fmt: skip


def keys(folder: ObjectPath) -> list[str]:
    return [stored.path.key.removeprefix(f"{folder.key}/") for stored in folder.below()]


# -- places ----------------------------------------------------------------------------------------------


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
    """Slashes too many and detours make no other place; `sources.spelt` agrees."""
    place = storage.place(url)
    assert (str(place), place.name, sources.spelt(url)) == (shown, name, shown)
    assert str(place / "a" / "b") == f"{shown}/a/b"
    assert (place / "a").parent == place


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://key:hunter2@bucket/x"])
def test_a_url_without_a_bucket_or_with_a_password_is_refused(url: str) -> None:
    """Parameters are stored in clear; what is wrong is said without the password."""
    with pytest.raises(UsageError, match="BUCKET") as error:
        storage.place(url)
    assert "hunter2" not in str(error.value)


# -- whole or not at all ---------------------------------------------------------------------------------


def test_what_is_written_is_read_back(out: ObjectPath, tmp_path: Path) -> None:
    """Frames, documents, hashes and folders, the same as on this machine."""
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "ü"]})
    for place in (out, tmp_path):
        storage.sink(frame.lazy(), place / "x.parquet")
        storage.write_json(place / "x.json", {"a": "ü"})
        with storage.filled(place / "docs") as folder:
            (folder / "static").mkdir(parents=True)
            (folder / "static" / "a.css").write_text("a")
    assert storage.parquet(out / "x.parquet", out / "x.parquet").collect().equals(pl.concat([frame, frame]))
    for name in ("x.parquet", "x.json", "docs/static/a.css"):
        assert storage.sha256(out / name) == storage.sha256(tmp_path / name)
    assert keys(out) == ["docs/static/a.css", "x.json", "x.parquet"]
    assert storage.subfolders(out) == storage.subfolders(tmp_path) == ["docs"]


def test_a_writer_that_fails_leaves_what_was_there(out: ObjectPath) -> None:
    """Half a file is never in the store."""
    storage.write_json(out / "a.json", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        storage.write_whole(out / "a.json", write)
    assert (out / "a.json").read_bytes() == b'"old"\n'
    assert keys(out) == ["a.json"]


def test_a_file_of_many_parts_is_there_whole_or_not(out: ObjectPath) -> None:
    """While 12 MB are replaced over and over, every reader gets all of one version."""
    path, over, wrong = out / "big", threading.Event(), []

    def put(letter: bytes) -> None:
        storage.write_whole(path, lambda file: file.write_bytes(letter * 12_000_000) and None)

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


# -- the pointer -----------------------------------------------------------------------------------------


def test_the_pointer_of_a_race_is_the_latest_runs(out: ObjectPath) -> None:
    """Many publish at once, no lock: whoever started last is published, and no reader sees a step back."""
    order = [7, 3, 19, 0, 12, 5, 16, 1, 14, 9, 18, 2, 11, 6, 17, 4, 13, 8, 15, 10]
    start, seen, over = threading.Barrier(len(order)), [], threading.Event()

    def publish(number: int) -> None:
        start.wait()
        storage.publish(out, publication(number))

    def read() -> None:
        while not over.is_set():
            if (current := storage.read_pointer(out)) is not None:
                seen.append(current.rows)

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=publish, args=(number,)) for number in order]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()
    assert storage.read_pointer(out) == publication(19)
    assert seen == sorted(seen)
    assert keys(out) == ["published/current.json"]


def test_a_pointer_is_put_only_over_the_one_that_was_read(out: ObjectPath) -> None:
    """The store refuses what was decided on an older pointer, and a first one where there is one."""
    path = storage.pointer_path(out)
    assert isinstance(path, ObjectPath)
    assert path.put_if(b"1", None)
    assert not path.put_if(b"2", None)
    _, tag = path.read_tagged()
    assert path.put_if(b"3", tag)
    assert not path.put_if(b"4", tag)
    assert path.read_bytes() == b"3"


def test_an_earlier_run_and_a_strangers_file_stay_as_they_are(out: ObjectPath) -> None:
    """The pointer does not go back, and what is no pointer is not overwritten."""
    assert storage.read_pointer(out) is None
    assert storage.publish(out, publication(2))
    assert not storage.publish(out, publication(1))
    assert storage.read_pointer(out) == publication(2)
    path = storage.pointer_path(out)
    storage.write_json(path, "a stranger's")
    with pytest.raises(S2VError, match="no pointer of this program"):
        storage.publish(out, publication(3))
    assert path.read_bytes() == b'"a stranger\'s"\n'


# -- the folder of a run ---------------------------------------------------------------------------------


def test_runs_are_found_in_a_store_as_on_this_machine(out: ObjectPath, tmp_path: Path) -> None:
    """The latest unfinished one continues; a run's folder is known by its manifest; its work is removed."""
    places: list[Place] = [out, tmp_path]
    for place in places:
        assert find_unfinished(place, "i") is None
        for run_id, status, hours in (("a", "stopped", 1), ("b", "running", 3), ("c", "published", 9)):
            RunFolder(place, run_id).write(manifest(run_id, status, hours))
        folder = RunFolder(place, "b")
        storage.write_json(folder.rows, [])
        assert find_unfinished(place, "i") == "b"
        assert RunFolder.of(folder.path) == folder
        assert folder.read() == manifest("b", "running", 3)
        folder.clean()
        assert not folder.rows.exists()
        for other in (place, place / "runs", place / "runs" / "no"):
            with pytest.raises(UsageError, match="no run's folder"):
                RunFolder.of(other)


def test_bad_input_leaves_nothing_in_the_store(out: ObjectPath) -> None:
    """What was put for a run that can't begin is removed; another run's files stay."""
    storage.write_json(RunFolder(out, "other").manifest_path, {})
    folder = RunFolder(out, "r1")

    def begin() -> None:
        with nothing_left_on_usage_error(folder):
            storage.write_json(folder.rows, [])
            raise UsageError("no")

    with pytest.raises(UsageError):
        begin()
    assert keys(out) == ["runs/other/manifest.json"]


# -- what the store refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{"AWS_SECRET_ACCESS_KEY": "hunter3"}, {"AWS_ACCESS_KEY_ID": "nobody"}])
def test_a_store_that_refuses_is_one_line_without_the_key(
    env: dict[str, str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what the store said, and what to look at; asked before anything is written or paid."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="403 Forbidden") as error:
        check_out(storage.place(f"s3://{next(iter(variables)).lower()}/x".replace("_", "-")))
    assert "AWS_" in str(error.value)
    assert not any(secret in str(error.value) for secret in (*env.values(), "hunter3"))
    assert len(str(error.value).splitlines()) == 1


def test_a_store_that_may_only_be_read_takes_no_run(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write of a run comes before the first call, so nothing is paid for what can't be kept."""
    obstore.put(client(env, "read-only"), "x/there", b"")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    folder = RunFolder(storage.place("s3://read-only/x"), "r1")
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        storage.write_json(folder.rows, [])

    def begin() -> None:
        with nothing_left_on_usage_error(folder):
            storage.write_json(folder.rows, [])

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
        storage.write_whole(out / name, lambda file: file.write_text("image_url\n") and None)
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
    return [str(one.path) for one in sources.find(candidates) if isinstance(one, Stored)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_candidates_are_read_from_a_store(out: ObjectPath, kind: str, tmp_path: Path) -> None:
    """Rows come in the order of the files; a file that is put anew is another input."""
    if kind == "ndjson":
        with pytest.raises(InputError, match="rename"):
            sources.scan([Stored(out / "[a].ndjson", 1, "t")])
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
