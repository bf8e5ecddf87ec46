"""Counts the progress of an open run."""

from s2v_tasks.domain.ledger import usd
from s2v_tasks.domain.progress import Progress
from s2v_tasks.models import Outcome
from s2v_tasks.runtime.run_context import RunContext


def progress(run: RunContext) -> Progress:
    """The progress of a run, now."""
    stats, state, total = run.engine.stats, run.state, run.partitions.images
    checked = sum(stats.checked.values())
    done = stats.reused + state.screened_out + state.left_out + checked
    waiting = state.kept - state.left_out - checked if run.parameters.screening.enabled else 0
    unscreened = total - done - waiting
    kept_share = state.kept / (state.kept + state.screened_out) if state.kept else 1.0
    rate = stats.rate_per_s
    return Progress(
        done=done,
        total=total,
        passed=stats.checked[Outcome.PASSED],
        run_cost_usd=usd(stats.charged_micro_usd),
        rate_per_s=rate,
        left_s=(waiting + unscreened * kept_share) / rate if rate else None,
    )
