"""What a run's folder holds, read as data frames: of this version, of the first one, and from a store."""

import json
from pathlib import Path

import made_run
import old_run
import polars as pl
import pytest
from made_run import row
from object_store import client

from s2v_tasks import published, read_run
from s2v_tasks.adapters.storage.run_folder import RunFolder
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import UsageError

ROWS = made_run.verdicts(
    row("a.example", "web", "passed", 1, request_id="r-1"),
    row("b.example", "web", "failed", 2),
    row("b.example", "web", "skipped"),
)


def test_a_run_is_read_as_frames(tmp_path: Path) -> None:
    """Verdicts, what passed, what was sent, manifest and gate."""
    run = read_run(made_run.made(tmp_path, "one", ROWS))
    assert run.verdicts.collect().equals(ROWS)
    assert run.approved.select("row").collect().rows() == [(0,)]
    assert run.attempts.select("row", "attempts", "request_id").collect().rows() == [
        (0, 1, "r-1"),
        (1, 2, None),
    ]
    assert (run.manifest.rows, run.publication, run.url_column) == (3, None, "image_url")
    assert run.gate is not None
    assert run.gate["open"] is True


def test_the_gate_is_the_newest_report_and_for_a_publication_its_own(tmp_path: Path) -> None:
    """``s2v gate`` writes a report beside the first; the pointer names the one that opened."""
    folder = Path(made_run.made(tmp_path, "one", ROWS))
    later = {"open": False, "checked_at": "2026-12-01T00:00:00+00:00"}
    (folder / "gate-20261201T000000Z.json").write_text(json.dumps(later))
    assert read_run(folder).gate == later
    assert (published(tmp_path).gate or {})["open"] is True
    (folder / "gate.json").unlink()
    (folder / "gate-20261201T000000Z.json").unlink()
    assert read_run(folder).gate is None


def test_a_folder_of_the_first_version_is_read_by_todays_names(tmp_path: Path) -> None:
    """Columns, and the facts of its gate's report."""
    folder = old_run.finished(tmp_path)
    facts = {"unspent": 1, "unspent_share": 0.5, "cost_usd": 0.1, "data_set_cost_usd": 0.2, "rows": 2}
    (folder / "gate.json").write_text(json.dumps({"open": True, "judged_at": "then", "facts": [facts]}))
    run = published(tmp_path)
    assert run.verdicts.collect_schema() == pl.Schema({"image_url": pl.String, **SCHEMA})
    assert run.approved.collect().height == 1
    assert run.gate == {
        "open": True,
        "checked_at": "then",
        "facts": [
            {"skipped": 1, "skipped_share": 0.5, "run_cost_usd": 0.1, "dataset_cost_usd": 0.2, "rows": 2}
        ],
    }
    assert run.publication is not None
    assert run.publication.rows == 1


def test_a_run_in_an_object_store_is_read(in_store: dict[str, str]) -> None:
    """Its newest report too, among the files of the folder alone."""
    client(in_store, "frames").put("there", b"")
    path = made_run.made("s3://frames/out [1]", "one", ROWS)
    run = published("s3://frames/out [1]")
    assert str(run.folder.path) == path
    assert run.verdicts.collect(engine="streaming").equals(ROWS)
    assert run.gate is not None


def test_what_can_not_be_read_is_one_line(tmp_path: Path) -> None:
    """No such folder, not finished, no publication, a damaged file: each names the path and the fix."""
    folder = Path(made_run.made(tmp_path / "out", "one", ROWS, published=False))
    with pytest.raises(UsageError, match=r"nothing is published in .*/out; name the folder of a run"):
        published(tmp_path / "out")
    with pytest.raises(UsageError, match="no run's folder"):
        read_run(tmp_path)
    (folder / "verdicts.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match=r"verdicts.parquet can't be read"):
        read_run(folder)
    (folder / "verdicts.parquet").unlink()
    with pytest.raises(UsageError, match=r"verdicts.parquet is missing; name the folder of another run"):
        read_run(folder)
    manifest = RunFolder(tmp_path / "out", "one")
    manifest.write(manifest.read().model_copy(update={"status": "stopped"}))
    with pytest.raises(UsageError, match=r"run one is not finished; finish it with the command"):
        read_run(folder)
