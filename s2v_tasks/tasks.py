"""The Prefect tasks: thin; frames or a run's folder in, frames, counts or a report out.

`screen`, `gate` and `publish` work in any flow. `detect` and `verdicts` work for the run that
`s2v_tasks.curation.open_curation` has opened: it holds the ledger, the budget, the pace and the folder.

No task retries and none is cached: the engine is the one retry layer, and the ledger is what remembers.
"""

import asyncio
import math
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from s2v_tasks import candidates as stage1
from s2v_tasks import gate as stage6
from s2v_tasks import publish as stage7
from s2v_tasks import verdicts as stage5
from s2v_tasks.adapters import gx, storage
from s2v_tasks.adapters.folder import RunFolder
from s2v_tasks.adapters.storage import Place
from s2v_tasks.errors import UsageError
from s2v_tasks.models import WAN22_S2V_DETECT, GateReport
from s2v_tasks.parts import check_unique
from s2v_tasks.runs import CURRENT, Run, look
from s2v_tasks.settings import Screening, Thresholds

_QUIET: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False, "retries": 0}


@task(**_QUIET)
async def screen(pictures: pl.DataFrame, screening: Screening | None = None) -> pl.DataFrame:
    """Look at the first bytes of pictures, for free.

    Args:
        pictures: Columns ``image_key`` and ``url``, as `s2v_tasks.candidates.fresh` makes them of any rows.
        screening: How to look; if None as the open run says, else by default.

    Returns:
        A row for each picture, `s2v_tasks.verdicts.SCREENED_SCHEMA`: ``screen_reason`` null means keep.
    """
    screened = await look(pictures, screening)
    reasons = screened["screen_reason"].fill_null("kept")
    get_run_logger().info("%d pictures: %s", screened.height, _counted(reasons))
    return screened


@task(tags=[WAN22_S2V_DETECT.model], **_QUIET)
async def detect(pictures: pl.DataFrame) -> pl.DataFrame:
    """Have pictures judged by the paid service, at the account's pace and within the open run's budget.

    Args:
        pictures: Columns ``image_key`` and ``url``, each picture once.

    Returns:
        A row for each picture, `s2v_tasks.verdicts.JUDGED_SCHEMA`; ``unspent`` is what was not asked.

    Raises:
        UsageError: No run is open.
    """
    verdicts = await _open_run("detect").engine.judge(stage1.records(pictures))
    outcomes = _counted(v.reason or v.outcome.value for v in verdicts)
    get_run_logger().info("%d pictures: %s", len(verdicts), outcomes)
    return stage5.judged_frame(verdicts)


@task(**_QUIET)
async def verdicts() -> dict[str, int]:
    """Write the open run's ``verdicts.parquet``, one outcome for every input row, and count them by outcome.

    Raises:
        UsageError: No run is open.
    """
    run = _open_run("verdicts")
    counts = await asyncio.to_thread(run.collect)
    get_run_logger().info("%s", ", ".join(f"{rows} {outcome}" for outcome, rows in counts.items() if rows))
    return counts


@task(**_QUIET)
async def gate(
    run_dir: Place | str, thresholds: Thresholds, segment_column: str | None = None, *, again: bool = False
) -> GateReport:
    """Judge a run's verdicts and write the report and its Data Docs beside them.

    Args:
        run_dir: ``OUT/runs/<run_id>``, a path or s3://..., with ``verdicts.parquet`` and ``manifest.json``.
        thresholds: What the data set must keep.
        segment_column: Every value of this column is held against them too.
        again: Leave the first report as it is and add one, ``gate-<utc>.json``.

    Returns:
        The report; a closed gate is a report too, not an error.

    Raises:
        UsageError: ``run_dir`` is no run's folder.
        SuiteError: A suite is broken, so nothing may pass it.
    """
    folder = RunFolder.of(storage.place(run_dir))
    judged_at = datetime.now(UTC)
    stamp = f"-{judged_at:%Y%m%dT%H%M%S%fZ}" if again else ""
    report = await asyncio.to_thread(
        _judge, folder, thresholds, segment_column, judged_at, folder.path / f"data_docs{stamp}"
    )
    document = _document(report, thresholds)
    await asyncio.to_thread(storage.write_json, folder.path / f"gate{stamp}.json", document)
    for expectation in report.failed:
        get_run_logger().warning("gate: %s", expectation)
    return report


@task(**_QUIET)
async def publish(run_dir: Place | str, report: GateReport) -> stage7.Publication | None:
    """Move the pointer ``OUT/published/current.json`` to a run's approved file, if its gate is open.

    Args:
        run_dir: ``OUT/runs/<run_id>``, a path or s3://..., with ``approved.parquet`` and ``manifest.json``.
        report: What `gate` said of this run.

    Returns:
        What is published now; None if the gate is closed, or a run that started later is published.

    Raises:
        UsageError: ``run_dir`` is no run's folder.
    """
    folder = RunFolder.of(storage.place(run_dir))
    if not stage7.may_publish(report):
        return None
    return await asyncio.to_thread(_publish, folder, report)


def _publish(folder: RunFolder, report: GateReport) -> stage7.Publication | None:
    with storage.reaching(folder.path):
        rows = storage.parquet(folder.approved).select(pl.len()).collect().item()
    publication = stage7.Publication(
        run_id=folder.run_id,
        started_at=folder.read().started_at.isoformat(),
        path=str(folder.approved),
        rows=rows,
        sha256=storage.sha256(folder.approved),
        cost_usd=report.facts[0].cost_usd,
        data_set_cost_usd=report.facts[0].data_set_cost_usd,
        gate=stage7.summary(report),
    )
    return publication if storage.publish(folder.out, publication) else None


def _judge(
    folder: RunFolder, thresholds: Thresholds, segment_column: str | None, judged_at: datetime, docs: Place
) -> GateReport:
    verdicts = storage.parquet(folder.verdicts)
    rows, segments = folder.read().rows, 0  # counted where they were read
    with storage.reaching(folder.path):
        check_unique(verdicts, rows)
        frame = stage6.facts_of(verdicts, segment_column).collect(engine="streaming")
        if segment_column is not None:
            segments = verdicts.select(pl.col(segment_column).n_unique()).collect(engine="streaming").item()
        parameters = stage6.parameters(thresholds, rows=rows, segments=segments)
        with storage.filled(docs) as local:
            judged = gx.judge(verdicts, frame, parameters, local)
    return stage6.report(judged, stage6.read_facts(frame), judged_at)


def _document(report: GateReport, thresholds: Thresholds) -> dict[str, object]:
    """A report as JSON: what is infinite (a cost per nothing) is null."""
    facts = [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(fact).items()
        }
        for fact in report.facts
    ]
    return {
        "open": report.open,
        "judged_at": report.judged_at.isoformat(),
        "thresholds": thresholds.model_dump(),
        "expectations": [asdict(expectation) for expectation in report.expectations],
        "facts": facts,
    }


def _open_run(task_name: str) -> Run:
    run = CURRENT.get(None)
    if run is None:
        raise UsageError(
            f"{task_name} needs a ledger and a budget: call it inside `async with open_curation(...)`"
        )
    return run


def _counted(values: Any) -> str:
    return ", ".join(f"{count} {value}" for value, count in Counter(values).most_common())
