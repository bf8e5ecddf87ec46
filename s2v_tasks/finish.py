"""How a run ends: its manifest, its page, and the Prefect state that says the same in words."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from s2v_tasks import gate as stage6
from s2v_tasks.adapters import events
from s2v_tasks.adapters.artifacts import show_summary
from s2v_tasks.adapters.folder import Status
from s2v_tasks.adapters.storage import Place
from s2v_tasks.engine import Tally
from s2v_tasks.errors import AccountRefused, BudgetSpent, GateClosed, LedgerUnavailable, S2VError
from s2v_tasks.ledger import State as AttemptState
from s2v_tasks.ledger import usd
from s2v_tasks.models import GateReport
from s2v_tasks.parts import summary_of
from s2v_tasks.publish import Publication
from s2v_tasks.runs import Run
from s2v_tasks.summary import Summary


@dataclass(frozen=True, slots=True)
class Curated:
    """What a curation run came to, for callers: the `curate` flow's result."""

    run_id: str
    run_dir: Place
    status: Status
    summary: Summary
    publication: Publication | None
    message: str


async def ended(
    run: Run,
    report: GateReport | None = None,
    publication: Publication | None = None,
) -> State[Any]:
    """Write the manifest, show the summary, and return the run's state.

    Without a ``report`` the run stopped on the way.
    """
    summary = await asyncio.to_thread(summary_of, run.folder.verdicts)
    status, error, message = _end(run, summary, report, publication)
    cost_usd = {}
    with contextlib.suppress(LedgerUnavailable):  # the reason why the run stopped: it says so itself
        charges = await run.ledger.charges(run.lease)
        cost_usd = {
            "billed": usd(charges[AttemptState.BILLED]),
            "unknown": usd(charges[AttemptState.UNKNOWN] + charges[AttemptState.RESERVED]),
        }
    run.manifest = run.manifest.model_copy(
        update={
            "status": status,
            "finished_at": datetime.now(UTC),
            "message": message,
            "counts": _counts(summary),
            "cost_usd": cost_usd,
            "data_set_cost_usd": summary.data_set_cost_usd,
            "gate": _gate(report),
            "files": await asyncio.to_thread(run.folder.hashes),
        }
    )
    await asyncio.to_thread(run.folder.write, run.manifest)
    if status != "stopped":
        await asyncio.to_thread(run.folder.clean)
        await asyncio.to_thread(run.parts.remove)
    _tell(run, summary, report, publication)
    log_answers(run.engine.tally)
    gate = stage6.words(report) if report is not None else "Gate not judged: the run stopped on the way."
    await show_summary(summary, message, gate=gate, rate=_pace(run))
    curated = Curated(run.folder.run_id, run.folder.path, status, summary, publication, message)
    return Completed(message=message, data=curated) if error is None else failed(error)


def begun(run: Run) -> None:
    """Tell that a run has started, or goes on."""
    words = (
        f"{run.manifest.rows} candidates, {run.parts.pictures} different pictures, for at most USD"
        f" {run.parameters.budget_usd:g}; {run.allowance.rate_per_s:g} calls a second by"
        f" {run.allowance.source}; ledger {run.manifest.ledger}; run {run.folder.path}"
    )
    get_run_logger().info("%s", words)
    events.tell("s2v.run.started", _payload(run, words))


def failed(error: S2VError) -> State[Any]:
    """A state that says in plain words what happened; callers still get the exception."""
    return Failed(message=error.message, data=error)


def _end(
    run: Run, summary: Summary, report: GateReport | None, publication: Publication | None
) -> tuple[Status, S2VError | None, str]:
    if report is None:
        error: S2VError = run.stopped or S2VError("the run stopped on the way; run the same command again")
        return "stopped", error, error.message
    if report.open:
        spent = f"; {summary.unspent} rows were not reached by the budget" if summary.unspent else ""
        if publication is None:
            return "published", None, f"gate open, but a run that started later is published{spent}"
        return "published", None, f"published {publication.rows} approved pictures{spent}"
    words = stage6.words(report)
    if summary.unspent:
        error = BudgetSpent(
            f"the budget was spent before {summary.unspent} of {summary.rows} rows were judged; run again"
            f" with a new --budget-usd (what is known costs nothing), or --allow-partial. {words}"
        )
        return "budget_spent", error, error.message
    return "closed", GateClosed(words), words


def _tell(run: Run, summary: Summary, report: GateReport | None, publication: Publication | None) -> None:
    happened: list[tuple[events.Name, bool]] = [
        ("s2v.account.refused", isinstance(run.stopped, AccountRefused)),
        ("s2v.budget.spent", report is not None and summary.unspent > 0),
        ("s2v.gate.closed", report is not None and not report.open),
        ("s2v.dataset.published", publication is not None),
    ]
    payload = _payload(
        run,
        run.manifest.message or "",
        rows=summary.passed if publication is None else publication.rows,
        path=None if publication is None else publication.path,
        pass_rate=summary.pass_rate,
        cost_usd=summary.cost_usd,
        data_set_cost_usd=summary.data_set_cost_usd,
    )
    for name, so in happened:
        if so:
            events.tell(name, payload)


def log_answers(tally: Tally) -> None:
    """What the service answered instead of a verdict; aloud, if this program does not know it."""
    if tally.codes:
        counted = ", ".join(f"{count} {code}" for code, count in tally.codes.most_common())
        get_run_logger().info("answers without a verdict: %s", counted)
    if tally.first_unrecognised is not None:
        get_run_logger().warning(
            "%d answers that this program does not know; please report the first: %s",
            tally.unrecognised,
            tally.first_unrecognised.sample,
        )


def _payload(run: Run, message: str, **numbers: Any) -> events.Payload:
    folder = run.folder
    return events.Payload(
        run_id=folder.run_id,
        out=str(folder.out),
        run_dir=str(folder.path),
        message=message,
        candidates=run.manifest.rows,
        **numbers,
    )


def _pace(run: Run) -> str:
    tally = run.engine.tally
    used = (
        f"{tally.sent} calls at {tally.rate_per_s:.2f} a second" if tally.sent > 1 else f"{tally.sent} calls"
    )
    return (
        f"{used}; allowed {run.allowance.rate_per_s:g} a second by {run.allowance.source}."
        " The limit's slots are not taken: the ledger keeps the pace."
    )


def _gate(report: GateReport | None) -> dict[str, object] | None:
    if report is None:
        return None
    return {"open": report.open, "failed": [str(expectation) for expectation in report.failed]}


def _counts(summary: Summary) -> dict[str, int]:
    names = ("passed", "failed", "screened_out", "error", "unknown", "unspent")
    return {**{name: getattr(summary, name) for name in names}, "duplicate": summary.duplicates}
