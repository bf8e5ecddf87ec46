"""The Prefect tasks: thin; frames or a run's folder in, frames, counts or a report out.

`screen`, `gate` and `publish` work in any flow. `detect` and `verdicts` work for the run that `open_curation`
has opened: it holds the ledger, the budget, the rate limit and the folder. The tasks find that run through a
context variable, which only this module reads.

No task retries and none is cached: the engine is the one retry layer, and the ledger remembers verdicts.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from s2v_tasks.adapters.http.local_screener import LocalScreener
from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.gate_reports import stamp_of
from s2v_tasks.adapters.storage.run_folder import RunFolder, open_run_folder
from s2v_tasks.domain import candidate_table, gate_rules, passing_segments, publish_rules, verdict_table
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import UsageError
from s2v_tasks.models import FORMAT, WAN22_S2V_DETECT, GateReport
from s2v_tasks.runtime.approval import Prompt
from s2v_tasks.runtime.curation import open_approved_run
from s2v_tasks.runtime.gate_evaluation import approved_file, baseline_of, evaluate
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import Advanced, CurateParameters, Screening, Thresholds
from s2v_tasks.settings.fields import limits

CURRENT_RUN: ContextVar[RunContext] = ContextVar("s2v_current_run")
"""The run that the tasks work for."""
ON_RUN_OPENED: ContextVar[Callable[[RunContext], None] | None] = ContextVar("s2v_on_run_opened", default=None)
"""Called with a run when it is open: the terminal shows its progress."""
APPROVAL_PROMPT: ContextVar[Prompt | None] = ContextVar("s2v_approval_prompt", default=None)
"""Asks for approval in place of the Prefect UI: the command's terminal."""

_QUIET: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False, "retries": 0}


@asynccontextmanager
async def open_curation(parameters: CurateParameters, run_id: str | None = None) -> AsyncIterator[RunContext]:
    """Open a curation run, new or left behind, inside a flow; the tasks called in the block work for it.

    Its cost is estimated and shown first; if that is over ``spending.approve_above_usd`` the flow run pauses
    until a person approves.

    Args:
        parameters: What the run does.
        run_id: Names the run; None for the flow run's own id, so that a retry of it is the same run. Two
            curations in one flow need ids of their own.

    Raises:
        UsageError: The input can't be used, or the run is finished, different or held by another process.
        NotApproved: The run is too expensive, and was not approved.
    """
    async with open_approved_run(parameters, run_id, APPROVAL_PROMPT.get()) as run:
        if (on_opened := ON_RUN_OPENED.get()) is not None:
            on_opened(run)
        with current_run(run):
            yield run


@contextmanager
def current_run(run: RunContext) -> Iterator[None]:
    """Have the tasks called in the block work for an open run."""
    token = CURRENT_RUN.set(run)
    try:
        yield
    finally:
        CURRENT_RUN.reset(token)


@task(**_QUIET)
async def screen(
    images: pl.DataFrame, screening: Screening | None = None, advanced: Advanced | None = None
) -> pl.DataFrame:
    """Screen images for free, by their first bytes.

    Args:
        images: Columns ``image_key`` and ``url``, as `s2v_tasks.unique_images` makes them of any rows;
            ``others``, if there, are more URLs, tried where that one gives no image.
        screening: How to screen; None for the open run's way, or without one the default.
        advanced: Allowed ports; None for the default.

    Returns:
        A row for each image, of `s2v_tasks.domain.verdict_table.SCREENED_SCHEMA`.
    """
    screened = await _screen(images, screening, advanced)
    reasons = screened["screen_reason"].fill_null("kept")
    get_run_logger().info("%d images: %s", screened.height, _counted(reasons))
    return screened


@task(tags=[WAN22_S2V_DETECT.model], **_QUIET)
async def detect(images: pl.DataFrame) -> pl.DataFrame:
    """Have images checked by the paid service, at the account's rate and within the open run's budget.

    Args:
        images: Columns ``image_key`` and ``url``, each image once.

    Returns:
        A row for each image, of `s2v_tasks.domain.verdict_table.CHECKED_SCHEMA`; ``skipped``: not sent.

    Raises:
        UsageError: No run is open.
    """
    verdicts = await _open_run("detect").engine.check_images(candidate_table.records(images))
    outcomes = _counted(v.reason or v.outcome.value for v in verdicts)
    get_run_logger().info("%d images: %s", len(verdicts), outcomes)
    return verdict_table.checked_frame(verdicts)


@task(**_QUIET)
async def verdicts() -> dict[str, int]:
    """Write the open run's ``verdicts.parquet``, one outcome for every input row, and count them by outcome.

    Raises:
        UsageError: No run is open.
    """
    run = _open_run("verdicts")
    counts = await asyncio.to_thread(write_verdict_files, run)
    get_run_logger().info("%s", ", ".join(f"{rows} {outcome}" for outcome, rows in counts.items() if rows))
    return counts


@task(**_QUIET)
async def gate(
    run_dir: StoragePath | str,
    thresholds: Thresholds,
    segment_column: str | None = None,
    *,
    max_error_share: float | None = None,
    max_unknown_share: float | None = None,
    again: bool = False,
    data_docs: bool = False,
) -> GateReport:
    """Evaluate the gate of a run, and write the report beside its verdicts.

    Args:
        run_dir: ``OUT/runs/<run_id>``, a path or s3://..., with ``verdicts.parquet`` and ``manifest.json``.
        thresholds: What the dataset must keep.
        segment_column: Every value of this column is checked against them too.
        max_error_share: The highest share of errors; None for the run's own.
        max_unknown_share: The highest share of lost responses; None for the run's own.
        again: Leave the first report as it is and add one, ``gate-<utc>.json``.
        data_docs: Also write Great Expectations' pages, ``data_docs/`` or ``data_docs-<utc>/``.

    Returns:
        The report; a closed gate is a report too, not an error.

    Raises:
        UsageError: ``run_dir`` is no run's folder, or passing segments are wanted without a segment column.
        SuiteError: A suite is broken, so nothing may pass it.
    """
    folder = open_run_folder(run_dir)
    only_passing = passing_segments.is_wanted(thresholds, segment_column)
    checked_at = datetime.now(UTC)
    stamp = f"-{stamp_of(checked_at)}" if again else ""
    given = {"max_error_share": max_error_share, "max_unknown_share": max_unknown_share}
    moved = {name: thresholds.moved.get(f"thresholds.{name}") for name in given}
    values = {name: moved[name] if value is None else value for name, value in given.items()}
    own = folder.read().parameters.advanced.model_dump(include=set(given))
    advanced = Advanced(**own | {name: value for name, value in values.items() if value is not None})
    limited = limits(thresholds, advanced)
    docs = folder.path / f"data_docs{stamp}" if data_docs else None
    baseline = await asyncio.to_thread(baseline_of, folder, limited)
    median = None if baseline is None else baseline.pass_rate
    report = await asyncio.to_thread(
        evaluate, folder, limited, segment_column, median, checked_at, docs, only_passing=only_passing
    )
    document = gate_rules.document(report, limited)
    if baseline is not None:
        document["baseline"] = baseline.model_dump()
    await asyncio.to_thread(file_io.write_json, folder.path / f"gate{stamp}.json", document)
    for expectation in report.failed:
        get_run_logger().warning("gate: %s", expectation)
    return report


@task(**_QUIET)
async def publish(
    run_dir: StoragePath | str, report: GateReport, *, again: bool = False
) -> publish_rules.Publication | None:
    """Move the pointer ``OUT/published/current.json`` to a run's approved file, if its gate is open.

    Args:
        run_dir: ``OUT/runs/<run_id>``, a path or s3://..., with its verdicts and ``manifest.json``.
        report: What `gate` returned for this run.
        again: Publish it although a rollback withdrew it.

    Returns:
        What is published now; None if the gate is closed, or a run that started later is published.

    Raises:
        UsageError: ``run_dir`` is no run's folder.
        Withdrawn: A rollback withdrew the run.
    """
    folder = open_run_folder(run_dir)
    if not publish_rules.may_publish(report):
        return None
    return await asyncio.to_thread(_publish, folder, report, again=again)


def _publish(folder: RunFolder, report: GateReport, *, again: bool) -> publish_rules.Publication | None:
    approved = approved_file(folder, report)
    with file_io.wrap_storage_errors(folder.path):
        rows = file_io.parquet(approved).select(pl.len()).collect().item()
    manifest = folder.read()
    publication = publish_rules.Publication(
        format=FORMAT,
        run_id=folder.run_id,
        number=manifest.number,
        started_at=manifest.started_at.isoformat(),
        path=str(approved),
        rows=rows,
        sha256=file_io.sha256(approved),
        run_cost_usd=report.facts[0].run_cost_usd,
        dataset_cost_usd=report.facts[0].dataset_cost_usd,
        gate=publish_rules.summary(report),
        segments_left_out=tuple(one.segment for one in report.left_out),
    )
    return pointer.move(folder.out, publication, again=again)


async def _screen(
    images: pl.DataFrame, screening: Screening | None, advanced: Advanced | None
) -> pl.DataFrame:
    """Screen as the open run does, or without one as ``screening`` and ``advanced`` say.

    Not in the task itself: a task may be sent to a task runner, and a context variable can't be pickled.
    """
    if screening is None and (run := CURRENT_RUN.get(None)) is not None:
        return await run.screener.screen(images)
    async with LocalScreener(ScreenOptions.of(screening, advanced)) as screener:
        return await screener.screen(images)


def _open_run(task_name: str) -> RunContext:
    run = CURRENT_RUN.get(None)
    if run is None:
        raise UsageError(
            f"{task_name} needs a ledger and a budget: call it inside `async with open_curation(...)`"
        )
    return run


def _counted(values: Any) -> str:
    return ", ".join(f"{count} {value}" for value, count in Counter(values).most_common())
