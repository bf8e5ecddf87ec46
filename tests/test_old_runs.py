"""Run folders of other versions: the first program's are read and evaluated, a newer one's are refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import old_run
import polars as pl
import pytest
from prefect.logging import disable_run_logger
from pydantic import SecretStr

from s2v_tasks import tasks
from s2v_tasks.adapters.http.detect_client import Credentials
from s2v_tasks.adapters.storage import pointer
from s2v_tasks.adapters.storage.run_data import read_verdicts
from s2v_tasks.adapters.storage.run_folder import find_unfinished, open_run_folder
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import UsageError
from s2v_tasks.models import FORMAT
from s2v_tasks.runtime.lifecycle import open_run, previous_partitions
from s2v_tasks.runtime.plan import Plan, plan
from s2v_tasks.runtime.verdict_file import summary_of
from s2v_tasks.settings import CurateParameters, Thresholds


class Rate:
    """A rate limit that never changes."""

    rate_per_s = 5.0
    source = "this test"


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    """The command that began the unfinished run."""
    candidates = tmp_path / "candidates.parquet"
    pl.DataFrame({"image_url": ["https://a.example/0.jpg"]}).write_parquet(candidates)
    parameters = CurateParameters(candidates=str(candidates), out=str(tmp_path / "out"), budget_usd=0.1)
    return plan(parameters, Credentials(f"{old_run.SERVICE}/api/v1", SecretStr("key")))


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


async def test_a_finished_run_of_the_first_version_is_evaluated_and_published_again(tmp_path: Path) -> None:
    """Its verdicts and its manifest are read as they are; the pointer that replaces its own has a format."""
    folder = old_run.finished(tmp_path)
    before = pointer.read(tmp_path)
    assert before is not None
    assert before.format == open_run_folder(folder).read().format == 1
    with disable_run_logger():
        report = await tasks.gate.fn(folder, Thresholds(), again=True)
        assert report.open
        assert (await tasks.gate.fn(folder, Thresholds(min_pass_rate=0.6), again=True)).open is False
        published = await tasks.publish.fn(folder, report)
    assert published is not None
    assert (published.rows, published.sha256, published.path) == (1, before.sha256, before.path)
    assert json.loads((tmp_path / "published" / "current.json").read_text("utf-8"))["format"] == FORMAT


async def test_a_run_of_the_first_version_is_read_by_todays_names(tmp_path: Path) -> None:
    """Columns, outcomes, reasons, status and amounts of a run whose budget was spent; its gate works."""
    folder = open_run_folder(old_run.exhausted(tmp_path))
    manifest = folder.read()
    assert (manifest.status, manifest.format) == ("budget_exhausted", 1)
    assert manifest.counts == {"passed": 1, "unknown": 1, "skipped": 1}
    assert manifest.run_cost_usd == {"billed": old_run.PRICE_USD, "unknown": 2 * old_run.PRICE_USD}
    assert manifest.dataset_cost_usd == 3 * old_run.PRICE_USD
    rows = read_verdicts(folder.verdicts)
    assert rows.collect_schema() == pl.Schema({"image_url": pl.String, **SCHEMA})
    assert rows.select("outcome", "reason").collect().rows() == [
        ("passed", None), ("unknown", "response_lost"), ("skipped", "budget_exhausted"),
    ]  # fmt: skip
    summary = summary_of(folder.verdicts, "image_url")
    assert (summary.passed, summary.unknown, summary.skipped) == (1, 1, 1)
    assert summary.dataset_cost_usd == pytest.approx(3 * old_run.PRICE_USD)
    with disable_run_logger():
        closed = await tasks.gate.fn(folder.path, Thresholds(max_unknown_share=1), again=True)
        assert {one.name for one in closed.failed} == {"skipped_share"}
        partial = Thresholds(max_unknown_share=1, publish="within_budget")
        assert (await tasks.gate.fn(folder.path, partial, again=True)).open


def test_a_run_of_the_first_version_with_a_column_that_is_ours_now_is_refused(tmp_path: Path) -> None:
    """Its input may have named one as this version names its own: which is meant would be a guess."""
    folder = open_run_folder(old_run.finished(tmp_path))
    rows = pl.read_parquet(folder.verdicts).with_columns(checked_at=pl.lit("yesterday"))
    rows.write_parquet(str(folder.verdicts))
    with pytest.raises(UsageError, match="its input has the column 'checked_at', which this version adds"):
        read_verdicts(folder.verdicts)


BEGUN_EARLIER = f"run {old_run.RUN_ID} was begun by an earlier version.*start a new one with --new-run"


async def test_an_unfinished_run_of_the_first_version_is_not_continued(planned: Plan, tmp_path: Path) -> None:
    """Named, or found by the same command, it is refused before anything is fetched, and stays as it is."""
    out = tmp_path / "out"
    folder = old_run.unfinished(out, tmp_path / "candidates.parquet", out / "ledger.sqlite3")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=BEGUN_EARLIER):
        find_unfinished(planned.out, planned.identity)
    with pytest.raises(UsageError, match=BEGUN_EARLIER):
        previous_partitions(planned, old_run.RUN_ID)
    with pytest.raises(UsageError, match=BEGUN_EARLIER):
        async with open_run(planned, old_run.RUN_ID, Rate()):
            pass
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["runs"]


def test_the_command_finds_an_unfinished_run_of_the_first_version_and_begins_no_other(
    planned: Plan, tmp_path: Path
) -> None:
    """One line, exit status 2, no second folder."""
    out, candidates = tmp_path / "out", tmp_path / "candidates.parquet"
    old_run.unfinished(out, candidates, out / "ledger.sqlite3")
    account = {"DASHSCOPE_API_KEY": "key", "DASHSCOPE_HTTP_BASE_URL": f"{old_run.SERVICE}/api/v1"}
    command = ["curate", str(candidates), "--out", str(out), "--budget-usd", "0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "s2v_tasks", *command],
        env={**os.environ, **account},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert re.search(BEGUN_EARLIER, done.stderr)
    assert "\n" not in done.stderr.strip()
    assert [path.name for path in (out / "runs").iterdir()] == [old_run.RUN_ID]


async def test_after_a_new_run_the_unfinished_one_of_the_first_version_is_left_alone(
    planned: Plan, tmp_path: Path
) -> None:
    """The same command is not refused for ever: what began later is continued, or another is begun."""
    out = tmp_path / "out"
    old_run.unfinished(out, tmp_path / "candidates.parquet", out / "ledger.sqlite3")
    async with open_run(planned, "new", Rate()) as run:
        folder, manifest = run.folder, run.manifest
    assert find_unfinished(planned.out, planned.identity) == "new"
    folder.write(manifest.model_copy(update={"status": "published"}))
    assert find_unfinished(planned.out, planned.identity) is None


async def test_a_newer_run_folder_is_refused(planned: Plan, tmp_path: Path) -> None:
    """Every reader refuses it in one line, whatever else is in it; it stays as it is."""
    folder = old_run.finished(tmp_path / "out")
    rewritten(folder / "manifest.json", format=9, status="archived")
    before = (folder / "manifest.json").read_bytes()
    match = rf"manifest.json was written by a newer s2v-tasks \(format 9, supported: {FORMAT}\)\. Upgrade"
    with pytest.raises(UsageError, match=match) as error:
        open_run_folder(folder).read()
    assert error.value.exit_status == 2
    with pytest.raises(UsageError, match=match):
        async with open_run(planned, old_run.RUN_ID, Rate()):
            pass
    assert (folder / "manifest.json").read_bytes() == before


async def test_a_newer_pointer_is_refused_before_anything_is_paid(planned: Plan, tmp_path: Path) -> None:
    """A run that could not be published does not begin: no folder, no ledger."""
    folder = old_run.finished(tmp_path / "out")
    rewritten(tmp_path / "out" / "published" / "current.json", format=9)
    with pytest.raises(UsageError, match=r"current.json was written by a newer s2v-tasks"):
        async with open_run(planned, "new", Rate()):
            pass
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["published", "runs"]
    assert list((tmp_path / "out" / "runs").iterdir()) == [folder]
