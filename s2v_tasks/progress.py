"""How far a run is, for whoever watches."""

from dataclasses import dataclass

from s2v_tasks.ledger import usd
from s2v_tasks.models import Outcome
from s2v_tasks.runs import Run


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. ``done`` of ``total`` unique pictures; ``left_s`` None while it can't be told."""

    done: int
    total: int
    passed: int
    cost_usd: float
    rate_per_s: float
    left_s: float | None


def progress(run: Run) -> Progress:
    """How far a run is, now."""
    tally, total = run.engine.tally, run.parts.pictures
    judged, screened_out = sum(tally.judged.values()), run.screened_out
    done = tally.reused + screened_out + judged
    waiting = run.kept - judged if run.parameters.screening.enabled else 0
    unseen = total - done - waiting
    paid_share = run.kept / (run.kept + screened_out) if run.kept else 1.0
    rate = tally.rate_per_s
    return Progress(
        done=done,
        total=total,
        passed=tally.judged[Outcome.PASSED],
        cost_usd=usd(tally.charged_micro_usd),
        rate_per_s=rate,
        left_s=(waiting + unseen * paid_share) / rate if rate else None,
    )
