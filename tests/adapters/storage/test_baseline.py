"""The baseline of a run, from the files of its output folder."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import made_run
import old_run
import pytest
from made_run import row

from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.baseline import read_baseline
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.rollback import roll_back
from s2v_tasks.adapters.storage.run_folder import RunFolder, open_run_folder
from s2v_tasks.domain.drift import Median
from s2v_tasks.domain.publish_rules import GateSummary, Publication
from s2v_tasks.errors import S2VError

FRAME = made_run.verdicts(row("a.example", "web", "passed", 1, image_key="1"))


def facts(rate: float) -> list[dict[str, Any]]:
    """As a report of the gate has them, overall and of a segment."""
    return [
        {"scope": scope, "segment": segment, "attempted": 100, "pass_rate": rate}
        for scope, segment in (("overall", None), ("segment", "web"))
    ]


def publish(out: StoragePath, number: int, rate: float = 0.5, minute: int = 0) -> None:
    """Publish run ``r<number>``; with another minute once more, after another evaluation."""
    folder = RunFolder(out, f"r{number}")
    started_at = made_run.STARTED_AT + timedelta(days=number)
    checked_at = (started_at + timedelta(minutes=minute)).isoformat()
    file_io.write_whole(folder.approved, lambda file: file.write_bytes(b"") and None)
    name = f"gate-{minute:02}.json" if minute else "gate.json"
    file_io.write_json(folder.path / name, {"open": True, "checked_at": checked_at, "facts": facts(rate)})
    publication = Publication(
        number=number, run_id=folder.run_id, started_at=started_at.isoformat(), path=str(folder.approved),
        rows=0, sha256=file_io.sha256(folder.approved), run_cost_usd=0.0, dataset_cost_usd=0.0,
        gate=GateSummary(checked_at=checked_at, expectations=1, pass_rate=rate),
    )  # fmt: skip
    assert pointer.move(out, publication)


def of(out: StoragePath, number: int) -> RunFolder:
    """The folder of run ``r<number>``, finished and not published; its report has no baseline."""
    return open_run_folder(made_run.made(str(out), f"r{number}", FRAME, number, published=False))


def test_the_last_ten_earlier_publications_count(any_out: StoragePath) -> None:
    """Not the run itself, and none that started later; newest first."""
    for number in range(1, 13):
        publish(any_out, number)
    assert read_baseline(of(any_out, 12)).runs == tuple(f"r{n}" for n in range(11, 1, -1))
    assert read_baseline(of(any_out, 3)).runs == ("r2", "r1")
    assert read_baseline(of(any_out, 13)).runs == tuple(f"r{n}" for n in range(12, 2, -1))


def test_a_withdrawn_publication_does_not_count_and_one_published_twice_counts_once(
    any_out: StoragePath,
) -> None:
    """By what it was published with last; a run that is published again after a rollback counts too."""
    publish(any_out, 1, 0.4)
    publish(any_out, 2, 0.6)
    publish(any_out, 2, 0.8, minute=1)
    publish(any_out, 3, 0.1)
    folder = of(any_out, 9)
    assert read_baseline(folder).runs == ("r3", "r2", "r1")
    roll_back(any_out, "r2")
    found = read_baseline(folder)
    assert found.runs == ("r2", "r1")
    wanted = {"metric": "pass_rate", "median": pytest.approx(0.6), "publications": 2}
    assert [one.model_dump() for one in found.medians] == [
        wanted | {"segment": None}, wanted | {"segment": "web"},
    ]  # fmt: skip


def test_a_later_evaluation_has_the_baseline_of_the_first(tmp_path: Path) -> None:
    """Whatever was published or withdrawn in between; the newest report has it, as each has."""
    publish(tmp_path, 1)
    publish(tmp_path, 2)
    folder = of(tmp_path, 3)
    first = read_baseline(folder)
    report = {"open": False, "checked_at": "then", "facts": []}
    file_io.write_json(folder.gate, report | {"baseline": first.model_dump()})
    roll_back(tmp_path, "r1")
    publish(tmp_path, 4, 0.9)
    assert read_baseline(folder) == first
    file_io.write_json(folder.gate, report)  # of an earlier version: what is still published before it
    assert read_baseline(folder).runs == ("r1",)
    folder.gate.write_text("{")
    assert read_baseline(folder).runs == ("r1",)


def test_publications_without_facts_of_segments_are_read(tmp_path: Path) -> None:
    """Those of the first version: its pointer alone, its history, and one whose folder is gone."""
    old_run.finished(tmp_path)
    folder = of(tmp_path, 9)
    assert read_baseline(folder).runs == ()  # no report is left
    publish(tmp_path, 1)
    history = tmp_path / "published" / "history"
    for file in history.iterdir():
        document = json.loads(file.read_text())
        document["facts"] = [fact for fact in document["facts"] if fact["scope"] == "overall"]
        file.write_text(json.dumps(document))
    publish(tmp_path, 2)
    found = read_baseline(folder)
    assert found.runs == ("r2", "r1")
    assert found.medians == (
        Median(metric="pass_rate", segment=None, median=0.5, publications=2),
        Median(metric="pass_rate", segment="web", median=0.5, publications=1),
    )


def test_a_publication_that_the_history_has_not_yet_counts(tmp_path: Path) -> None:
    """As after a kill behind the move of the pointer."""
    publish(tmp_path, 1)
    for file in (tmp_path / "published" / "history").iterdir():
        file.unlink()
    assert read_baseline(of(tmp_path, 2)).runs == ("r1",)


def test_a_damaged_publication_is_named(tmp_path: Path) -> None:
    """What would be left out of the median in silence is an error with its file."""
    publish(tmp_path, 1)
    (file,) = (tmp_path / "published" / "history").iterdir()
    file.write_text("{}")
    with pytest.raises(S2VError, match=f"{file.name} can't be read as a publication"):
        read_baseline(of(tmp_path, 2))
