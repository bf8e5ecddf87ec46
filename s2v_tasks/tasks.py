"""The Prefect tasks: thin. Each works for the current run (`s2v_tasks.runs.CURRENT`) or on a run's folder.

No task retries and none is cached: the engine is the one retry layer, and the ledger is what remembers.
"""

import asyncio
import math
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from s2v_tasks import gate as stage6
from s2v_tasks import publish as stage7
from s2v_tasks import verdicts as stage5
from s2v_tasks.adapters import gx, storage
from s2v_tasks.adapters.folder import RunFolder
from s2v_tasks.models import WAN22_S2V_DETECT, Candidate, GateReport, Screened, Verdict
from s2v_tasks.runs import CURRENT
from s2v_tasks.settings import Thresholds

_QUIET: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False, "retries": 0}


@task(**_QUIET)
async def screen(shard: list[Candidate]) -> list[Screened]:
    """Look at the first bytes of a shard of pictures, for free."""
    screened = await CURRENT.get().fetcher.screen(shard)
    get_run_logger().info("%d pictures: %s", len(shard), _counted(s.reason or "kept" for s in screened))
    return screened


@task(tags=[WAN22_S2V_DETECT.model], **_QUIET)
async def detect(shard: list[Candidate]) -> list[Verdict]:
    """Have a shard of pictures judged by the paid service, at the account's pace."""
    verdicts = await CURRENT.get().engine.judge(shard)
    get_run_logger().info("%d pictures: %s", len(shard), _counted(v.outcome.value for v in verdicts))
    return verdicts


@task(**_QUIET)
async def verdicts() -> dict[str, int]:
    """Write the current run's verdicts, one outcome for every row, and count them by outcome."""
    run = CURRENT.get()
    counts = await asyncio.to_thread(run.collect)
    get_run_logger().info("%s", ", ".join(f"{rows} {outcome}" for outcome, rows in counts.items() if rows))
    return counts


@task(**_QUIET)
async def gate(
    run_dir: Path, thresholds: Thresholds, segment_column: str | None = None, *, again: bool = False
) -> GateReport:
    """Judge a run's verdicts and write the report beside them; ``again`` leaves the first report as it is."""
    folder = RunFolder.of(run_dir)
    judged_at = datetime.now(UTC)
    stamp = f"-{judged_at:%Y%m%dT%H%M%S%fZ}" if again else ""
    report = await asyncio.to_thread(
        _judge, folder, thresholds, segment_column, judged_at, folder.path / f"data_docs{stamp}"
    )
    storage.write_json(folder.path / f"gate{stamp}.json", _document(report, thresholds))
    for expectation in report.failed:
        get_run_logger().warning("gate: %s", expectation)
    return report


@task(**_QUIET)
async def publish(run_dir: Path, report: GateReport) -> stage7.Publication | None:
    """Move the pointer to a run's approved file if the gate is open; None if a later run's stays."""
    folder = RunFolder.of(run_dir)
    if not stage7.may_publish(report):
        return None
    manifest = folder.read()
    publication = stage7.Publication(
        run_id=folder.run_id,
        started_at=manifest.started_at.isoformat(),
        path=str(folder.approved),
        rows=storage.parquet(folder.approved).select(pl.len()).collect().item(),
        sha256=storage.sha256(folder.approved),
        cost_usd=report.facts[0].cost_usd,
        data_set_cost_usd=report.facts[0].data_set_cost_usd,
        gate=stage7.summary(report),
    )
    return publication if storage.publish(folder.out, publication) else None


def _judge(
    folder: RunFolder, thresholds: Thresholds, segment_column: str | None, judged_at: datetime, docs: Path
) -> GateReport:
    verdicts = storage.parquet(folder.verdicts)
    own = verdicts.select(*stage5.SCHEMA).collect()
    stage6.check_unique(own)
    frame = stage6.facts_of(verdicts, segment_column).collect()
    segments = 0
    if segment_column is not None:
        segments = verdicts.select(pl.col(segment_column).n_unique()).collect().item()
    rows = folder.read().rows  # counted where they were read
    parameters = stage6.parameters(thresholds, rows=rows, segments=segments)
    return stage6.report(gx.judge(own, frame, parameters, docs), stage6.read_facts(frame), judged_at)


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


def _counted(values: Any) -> str:
    return ", ".join(f"{count} {value}" for value, count in Counter(values).most_common())
