"""The pointer: it moves atomically and never goes back, on this machine and in an object store."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.domain.publish_rules import GateSummary, Publication
from s2v_tasks.errors import S2VError


def publication(number: int) -> Publication:
    started = (datetime(2026, 5, 1, tzinfo=UTC) + timedelta(seconds=number)).isoformat()
    gate = GateSummary(checked_at=started, expectations=1, pass_rate=1.0)
    return Publication(
        run_id=str(number), started_at=started, path="p", rows=number, sha256="0", run_cost_usd=0.0,
        dataset_cost_usd=0.0, gate=gate,
    )  # fmt: skip


def test_the_pointer_of_a_race_is_the_latest_runs(any_out: StoragePath) -> None:
    """Many publish at once: the run that started last is published; readers see whole pointers, in order."""
    order = [7, 3, 19, 0, 12, 5, 16, 1, 14, 9, 18, 2, 11, 6, 17, 4, 13, 8, 15, 10]
    start, seen, over = threading.Barrier(len(order)), [], threading.Event()

    def publish(number: int) -> None:
        start.wait()
        pointer.move(any_out, publication(number))

    def read() -> None:
        while not over.is_set():
            if (current := pointer.read(any_out)) is not None:
                seen.append(current.rows)

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=publish, args=(number,)) for number in order]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()
    assert pointer.read(any_out) == publication(19)
    assert seen == sorted(seen)


def test_a_moved_pointer_leaves_no_temporary_file(any_out: StoragePath) -> None:
    """On this machine a lock stays beside it; a store needs none."""
    assert pointer.move(any_out, publication(1))
    assert pointer.move(any_out, publication(2))
    if isinstance(any_out, Path):
        names = sorted(path.name for path in (any_out / "published").iterdir())
        assert names == [".lock", "current.json", "history"]
        assert len(list((any_out / "published" / "history").iterdir())) == 2
    else:
        paths = [stored.path for stored in any_out.below()]
        assert (paths[0], len(paths)) == (pointer.path_of(any_out), 3)


def test_an_earlier_run_leaves_the_pointer_as_it_is(any_out: StoragePath) -> None:
    """Byte for byte; the same run may publish again."""
    assert pointer.read(any_out) is None
    assert pointer.move(any_out, publication(2))
    before = pointer.path_of(any_out).read_bytes()
    assert not pointer.move(any_out, publication(1))
    assert pointer.path_of(any_out).read_bytes() == before
    assert pointer.move(any_out, publication(2))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
def test_a_file_that_is_no_pointer_is_not_overwritten(any_out: StoragePath, content: bytes) -> None:
    """Another program's file of that name is a clear error, and stays."""
    path = pointer.path_of(any_out)
    file_io.write_whole(path, lambda file: file.write_bytes(content) and None)
    with pytest.raises(S2VError, match="no pointer of this program"):
        pointer.move(any_out, publication(1))
    assert path.read_bytes() == content


@pytest.mark.ci
def test_a_pointer_is_put_only_over_the_one_that_was_read(out: ObjectPath) -> None:
    """The store refuses what was decided on an older pointer, and a first one where there is one."""
    path = pointer.path_of(out)
    assert isinstance(path, ObjectPath)
    assert path.put_if(b"1", None)
    assert not path.put_if(b"2", None)
    _, tag = path.read_tagged()
    assert path.put_if(b"3", tag)
    assert not path.put_if(b"4", tag)
    assert path.read_bytes() == b"3"
