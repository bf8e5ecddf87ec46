"""History and rollback: what was published is never forgotten, and goes back only on purpose."""

import hashlib
import json
from pathlib import Path

import old_run
import pytest

from s2v_tasks.adapters.storage import file_io, history, pointer, run_numbers
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.rollback import roll_back
from s2v_tasks.domain.publish_rules import GateSummary, Publication
from s2v_tasks.errors import UsageError, Withdrawn


def publication(out: StoragePath, number: int, minute: int = 0) -> Publication:
    """Of run ``r<number>``, whose approved file holds its number."""
    path, at = (
        out / "runs" / f"r{number}" / "approved.parquet",
        f"2026-05-{number:02}T12:{minute:02}:00+00:00",
    )
    file_io.write_whole(path, lambda file: file.write_bytes(b"%d" % number) and None)
    return Publication(
        number=number, run_id=f"r{number}", started_at=f"2026-05-{number:02}T12:00:00+00:00", path=str(path),
        rows=number, sha256=hashlib.sha256(b"%d" % number).hexdigest(), run_cost_usd=0.0,
        dataset_cost_usd=0.0, gate=GateSummary(checked_at=at, expectations=1, pass_rate=1.0),
    )  # fmt: skip


def published(out: StoragePath, *numbers: int) -> None:
    for number in numbers:
        assert pointer.move(out, publication(out, number))


def current(out: StoragePath) -> str:
    found = pointer.read(out)
    assert found is not None
    return found.run_id


def states(out: StoragePath) -> dict[str, bool]:
    """Of each run whether its last publication was withdrawn."""
    return {one.publication.run_id: one.withdrawn for one in history.read(out, pointer.read(out))}


def test_a_rollback_withdraws_all_that_came_after(any_out: StoragePath) -> None:
    """Withdrawn runs and runs that started before them stay out; later ones and a person's wish do not."""
    published(any_out, 1, 2, 4, 5)
    before = history.read(any_out, None)
    done = roll_back(any_out, "r2")
    assert (current(any_out), {one.run_id for one in done.withdrawn}) == ("r2", {"r4", "r5"})
    assert states(any_out) == {"r1": False, "r2": False, "r4": True, "r5": True}
    assert [one.publication for one in history.read(any_out, None)] == [one.publication for one in before]
    for number in (4, 5):
        with pytest.raises(Withdrawn, match=f"r{number} --publish --again"):
            pointer.move(any_out, publication(any_out, number, 1))
    assert pointer.move(any_out, publication(any_out, 3)) is None
    assert run_numbers.take_number(any_out, "next") == 6
    assert pointer.move(any_out, publication(any_out, 2, 1))  # what is published may be published again
    assert pointer.move(any_out, publication(any_out, 4, 1), again=True)
    assert (current(any_out), states(any_out)["r4"], states(any_out)["r5"]) == ("r4", False, True)
    assert pointer.move(any_out, publication(any_out, 3)) is None
    moved = pointer.move(any_out, publication(any_out, 6))
    assert moved is not None
    assert moved.rolled_back is None


def test_a_rollback_that_was_killed_is_completed_by_the_same_command(tmp_path: Path) -> None:
    """All is marked and the pointer has not moved: nothing that is marked publishes, and a later run does."""
    published(tmp_path, 1, 2, 3)
    still = pointer.path_of(tmp_path).read_bytes()
    roll_back(tmp_path, "r1")
    pointer.path_of(tmp_path).write_bytes(still)
    with pytest.raises(Withdrawn):
        pointer.move(tmp_path, publication(tmp_path, 3))
    assert roll_back(tmp_path, "r1").moved
    assert current(tmp_path) == "r1"
    assert not roll_back(tmp_path, "r1").moved


def test_a_publication_whose_record_is_missing_is_recorded_before_the_next(any_out: StoragePath) -> None:
    """As after a kill behind the move of the pointer; the listing has it at once."""
    first = publication(any_out, 1)
    file_io.write_json(pointer.path_of(any_out), first.model_dump())
    assert states(any_out) == {"r1": False}
    published(any_out, 2)
    assert [one.publication.run_id for one in history.read(any_out, None)] == ["r1", "r2"]


def test_a_second_rollback_also_withdraws_what_was_published_after_the_first(any_out: StoragePath) -> None:
    """The second one sees the first: here a later run is published after another rollback."""
    published(any_out, 1, 2, 3)
    roll_back(any_out, "r2")
    published(any_out, 4)
    done = roll_back(any_out, "r1")
    assert {one.run_id for one in done.withdrawn} == {"r2", "r4"}
    with pytest.raises(UsageError, match="r2 was withdrawn"):
        roll_back(any_out, "r2")
    assert run_numbers.take_number(any_out, "next") == 5


@pytest.mark.parametrize("content", [None, b"other"])
def test_a_file_that_is_not_what_was_published_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing or changed: nothing is withdrawn, and the pointer stays."""
    published(tmp_path, 1, 2)
    file = tmp_path / "runs" / "r1" / "approved.parquet"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError, match=r"is missing|is not what was published"):
        roll_back(tmp_path, "r1")
    assert (current(tmp_path), states(tmp_path)) == ("r2", {"r1": False, "r2": False})


def test_what_was_never_published_is_refused(tmp_path: Path) -> None:
    """No publication at all, and a run that is none."""
    with pytest.raises(UsageError, match="nothing is published"):
        roll_back(tmp_path, "r1")
    published(tmp_path, 1)
    with pytest.raises(UsageError, match="r9 is no publication"):
        roll_back(tmp_path, "r9")


def test_a_pointer_of_the_first_version_starts_the_history(tmp_path: Path) -> None:
    """With the facts of its report, and it may be gone back to."""
    folder = old_run.finished(tmp_path)
    published(tmp_path, 1)
    first = history.read(tmp_path, None)[0].publication
    assert (first.run_id, first.number, first.run_cost_usd) == (folder.name, 0, old_run.PRICE_USD)
    assert roll_back(tmp_path, folder.name).moved
    assert json.loads(pointer.path_of(tmp_path).read_bytes())["path"] == str(folder / "approved.parquet")
