"""How a run ends: its manifest, and the Prefect state that says the same in words."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from s2v_tasks.adapters.prefect.retries import drop_retries
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.run_folder import Manifest, Status
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.ledger import State as AttemptState
from s2v_tasks.domain.ledger import usd
from s2v_tasks.domain.passing_segments import PASSING_SEGMENTS
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.domain.summary import Summary
from s2v_tasks.errors import (
    BudgetExhausted,
    GateClosed,
    LedgerUnavailable,
    RunStopped,
    S2VError,
)
from s2v_tasks.models import GateReport
from s2v_tasks.runtime.final_steps import FINAL_STEPS, FinalStep, RunEnd
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.verdict_file import summary_of


@dataclass(frozen=True, slots=True)
class CurationResult:
    """The result of a curation run, for callers: the `curate` flow returns it."""

    run_id: str
    run_dir: StoragePath
    status: Status
    summary: Summary
    publication: Publication | None
    message: str


async def finalize_run(
    run: RunContext,
    report: GateReport | None = None,
    publication: Publication | None = None,
    refused: S2VError | None = None,
    steps: Sequence[FinalStep] | None = None,
) -> State[Any]:
    """Store how a run ended, run the steps after that, and return the run's state.

    Args:
        run: The open run, with ``verdicts.parquet`` written.
        report: What the gate found; None if the run stopped before it.
        publication: What was published, if anything.
        refused: Why the run must not be published although its gate is open.
        steps: Run in this order, whatever becomes of the others; None for ``FINAL_STEPS``.

    Returns:
        Completed with a `CurationResult`, or failed with the error that ended the run.
    """
    source = run.parameters.source
    summary = await asyncio.to_thread(
        summary_of, run.folder.verdicts, source.url_column, source.segment_column
    )
    status, error, message = _outcome(run, summary, report, publication, refused)
    end = RunEnd(status, error, message, summary, report, publication)
    await _store(run, end)
    for step in FINAL_STEPS if steps is None else steps:
        await _try_step(step, run, end)
    if error is not None:
        return await failed_state(error)
    result = CurationResult(run.folder.run_id, run.folder.path, status, summary, publication, message)
    return Completed(message=message, data=result)


async def failed_state(error: S2VError) -> State[Any]:
    """A failed state with the error's message; callers still get the exception.

    Prefect retries it, where retries are set, only if that can help: a final "no" stays one.
    """
    if not error.retryable:
        await drop_retries()
    return Failed(message=error.message, data=error)


def _outcome(
    run: RunContext,
    summary: Summary,
    report: GateReport | None,
    publication: Publication | None,
    refused: S2VError | None,
) -> tuple[Status, S2VError | None, str]:
    if report is None:
        error: S2VError = run.stopped or RunStopped("the run stopped on the way; run the same command again")
        return "stopped", error, error.message
    if report.open:
        skipped = f"; {summary.left_over} rows were not reached by the budget" if summary.left_over else ""
        if publication is None and refused is not None:
            return "superseded", refused, refused.message
        if publication is None:
            return "superseded", None, f"gate open, but a run that started later is published{skipped}"
        left_out = gate_rules.left_out_message(report)
        also = f"{skipped}; {left_out}" if left_out else skipped
        return "published", None, f"published {publication.rows} approved images{also}"
    gate = gate_rules.message(report)
    if summary.left_over and run.parameters.thresholds.publish != PASSING_SEGMENTS:
        error = BudgetExhausted(
            f"the budget is exhausted: {summary.left_over} of {summary.rows} rows were not checked; run again"
            f" with a new --budget-usd (images already checked cost nothing), or --publish-partial. {gate}"
        )
        return "budget_exhausted", error, error.message
    if summary.hopeless:
        gate = f"{gate} {summary.hopeless} rows were not checked: the pass rate can't reach the threshold."
    return "closed", GateClosed(gate), gate


async def _store(run: RunContext, end: RunEnd) -> None:
    """Write the manifest; remove what only an unfinished run needs."""
    run_cost_usd = {}
    with contextlib.suppress(LedgerUnavailable):  # why the run stopped: its message says so
        charges = await run.ledger.charges()
        run_cost_usd = {
            "billed": usd(charges[AttemptState.BILLED]),
            "unknown": usd(charges[AttemptState.UNKNOWN] + charges[AttemptState.RESERVED]),
        }
    files = await asyncio.to_thread(run.folder.hashes)
    await asyncio.to_thread(run.folder.write, _manifest(run, end, run_cost_usd, files))
    run.state.status = end.status
    if end.status != "stopped":
        await asyncio.to_thread(run.folder.clean)
        await asyncio.to_thread(run.partitions.remove)


def _manifest(
    run: RunContext, end: RunEnd, run_cost_usd: dict[str, float], files: dict[str, str]
) -> Manifest:
    names = ("passed", "failed", "screened_out", "error", "unknown", "skipped")
    counts = {**{name: getattr(end.summary, name) for name in names}, "duplicate": end.summary.duplicates}
    faces, thresholds = end.summary.faces, run.parameters.thresholds
    failed = None if end.report is None else [str(expectation) for expectation in end.report.failed]
    return run.manifest.model_copy(
        update={
            "status": end.status,
            "finished_at": datetime.now(UTC),
            "message": end.message,
            "counts": counts,
            "run_cost_usd": run_cost_usd,
            "dataset_cost_usd": end.summary.dataset_cost_usd,
            "face_check": None if faces is None else faces.figures(thresholds.max_missed_share),
            "gate": None
            if end.report is None
            else {
                "open": end.report.open,
                "failed": failed,
                "left_out": [one.segment for one in end.report.left_out],
            },
            "files": files,
            "suspects": dict(run.engine.refusals.stop_counts),
            "publication": end.publication,
        }
    )


async def _try_step(step: FinalStep, run: RunContext, end: RunEnd) -> None:
    try:
        await step(run, end)
    except Exception as error:  # noqa: BLE001  (whatever a step raises: the run's end is stored)
        # The text of others' errors may hold a URL with a secret.
        reason = error.message if isinstance(error, S2VError) else type(error).__name__
        name = getattr(step, "__name__", type(step).__name__)
        get_run_logger().warning("%s failed (%s); the run's result stands", name, reason)
