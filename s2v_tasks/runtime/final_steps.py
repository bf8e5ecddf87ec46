"""What a run reports: that it has started and, after its end, events, log, thumbnails, page and summary."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from prefect.logging import get_run_logger

from s2v_tasks.adapters.prefect import events
from s2v_tasks.adapters.prefect.artifacts import show_summary
from s2v_tasks.adapters.storage.baseline import read_baseline
from s2v_tasks.adapters.storage.run_folder import RunFolder, Status
from s2v_tasks.domain import by_source, drift, gate_rules
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.domain.summary import Summary, markdown
from s2v_tasks.errors import AccountRefused, S2VError
from s2v_tasks.models import GateReport
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.run_report import link_to, write_report
from s2v_tasks.runtime.run_stats import RunStats
from s2v_tasks.runtime.thumbnails import write_thumbnails
from s2v_tasks.runtime.verdict_file import sources_of


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended. ``report`` None: it stopped before the gate; ``error`` None: it completed."""

    status: Status
    error: S2VError | None
    message: str
    summary: Summary
    report: GateReport | None
    publication: Publication | None


FinalStep = Callable[[RunContext, RunEnd], Awaitable[None]]
"""A step after a run's end is stored: it may fail, with a warning, and changes nothing about that end."""


def report_started(run: RunContext) -> None:
    """Log and emit that a run has started, or continues."""
    message = (
        f"{run.manifest.rows} candidates, {run.partitions.images} different images, for at most USD"
        f" {run.parameters.budget_usd:g}; {run.rate_limit.rate_per_s:g} calls a second by"
        f" {run.rate_limit.source}; ledger {run.manifest.ledger}; run {run.folder.path}"
    )
    get_run_logger().info("%s", message)
    events.emit("s2v.run.started", _payload(run, message))


async def emit_events(run: RunContext, end: RunEnd) -> None:
    """Emit what happened as Prefect events."""
    report, publication, summary = end.report, end.publication, end.summary
    happened: list[tuple[events.Name, bool]] = [
        ("s2v.account.refused", isinstance(run.stopped, AccountRefused)),
        ("s2v.budget.exhausted", report is not None and summary.left_over > 0),
        ("s2v.gate.closed", report is not None and not report.open),
        ("s2v.dataset.published", publication is not None),
    ]
    payload = _payload(
        run,
        end.message,
        rows=summary.passed if publication is None else publication.rows,
        path=None if publication is None else publication.path,
        pass_rate=summary.pass_rate,
        run_cost_usd=summary.run_cost_usd,
        dataset_cost_usd=summary.dataset_cost_usd,
    )
    for name, has_happened in happened:
        if has_happened:
            events.emit(name, payload)


async def log_responses(run: RunContext, _end: RunEnd) -> None:
    """Log the responses that were no verdicts."""
    log_codes(run.engine.stats)


def log_codes(stats: RunStats) -> None:
    """Log the codes of responses without a verdict; in a warning, a sample of those in no table."""
    if stats.codes:
        counted = ", ".join(f"{count} {code}" for code, count in stats.codes.most_common())
        get_run_logger().info("responses without a verdict: %s", counted)
    if stats.first_unrecognised is not None:
        get_run_logger().warning(
            "%d responses that this program does not know; please report the first: %s",
            stats.unrecognised,
            stats.first_unrecognised.sample,
        )


async def show_artifacts(run: RunContext, end: RunEnd) -> None:
    """Show the summary in the Prefect UI."""
    gate = (
        "Gate not evaluated: the run stopped before it."
        if end.report is None
        else gate_rules.message(end.report)
    )
    compared = "" if end.report is None else await asyncio.to_thread(_compared, run.folder, end.report)
    source = run.parameters.source
    table = await asyncio.to_thread(sources_of, run.folder.verdicts, source.url_column, source.segment_column)
    sources = by_source.markdown(by_source.of_kind(table))
    report = await asyncio.to_thread(link_to, run.folder)
    rate = _rate(run)
    text = markdown(
        end.summary, end.message, gate=gate, rate=rate, sources=sources, compared=compared, report=report,
        max_missed_share=run.parameters.thresholds.max_missed_share,
    )  # fmt: skip
    await show_summary(end.summary, text)


async def write_contact_sheets(run: RunContext, end: RunEnd) -> None:
    """Keep thumbnails of a sample of the images, unless the run fetches none or is to be continued."""
    parameters = run.parameters
    is_wanted = parameters.screening.enabled and parameters.advanced.report_images
    if end.status == "stopped" or not is_wanted:
        return
    writing = asyncio.ensure_future(write_thumbnails(run.folder, run.parameters, run.ledger.revoked_keys))
    stopped = asyncio.ensure_future(run.engine.until_stopped())
    try:  # a signal ends the step, not the run: that has ended
        await asyncio.wait({writing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            await writing
    finally:
        writing.cancel()
        stopped.cancel()
        await asyncio.gather(writing, stopped, return_exceptions=True)


async def write_page(run: RunContext, end: RunEnd) -> None:
    """Write the run's ``report.html``, unless the run is to be continued."""
    if end.status != "stopped":
        await asyncio.to_thread(write_report, run.folder.path)


FINAL_STEPS: Final[tuple[FinalStep, ...]] = (
    emit_events, log_responses, write_contact_sheets, write_page, show_artifacts,
)  # fmt: skip
"""The steps after a run's end is stored, in order."""


def _compared(folder: RunFolder, report: GateReport) -> str:
    """The run beside the last publications; nothing if those can't be read: the summary stands without."""
    with suppress(S2VError):
        return drift.markdown(drift.compare(read_baseline(folder), report.all_facts))
    return ""


def _payload(run: RunContext, message: str, **numbers: Any) -> events.Payload:
    folder = run.folder
    return events.Payload(
        run_id=folder.run_id,
        out=str(folder.out),
        run_dir=str(folder.path),
        message=message,
        candidates=run.manifest.rows,
        **numbers,
    )


def _rate(run: RunContext) -> str:
    stats = run.engine.stats
    sent = (
        f"{stats.sent} calls at {stats.rate_per_s:.2f} a second" if stats.sent > 1 else f"{stats.sent} calls"
    )
    return (
        f"{sent}; allowed {run.rate_limit.rate_per_s:g} a second by {run.rate_limit.source}."
        " The limit's slots are not taken: the ledger keeps the rate."
    )
