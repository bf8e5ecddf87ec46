"""What Prefect's page shows of a run: an estimate, a progress bar, a summary, a capped table of reasons."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from s2v_tasks.estimate import Estimate
from s2v_tasks.estimate import markdown as estimate_markdown
from s2v_tasks.progress import progress
from s2v_tasks.runs import Run
from s2v_tasks.summary import Summary, markdown

EVERY_S: Final = 5.0
PATIENCE_S: Final = 10.0
MAX_REASONS: Final = 50
_log = logging.getLogger(__name__)


@asynccontextmanager
async def reporting(run: Run) -> AsyncIterator[None]:
    """Keep a progress artifact up to date while the run goes on. A server that is away is no obstacle."""
    bar: UUID | None = None

    async def show() -> None:
        nonlocal bar
        with _tolerant():
            async with asyncio.timeout(PATIENCE_S):
                share, words = _progress(run)
                if bar is None:
                    bar = await acreate_progress_artifact(share, "s2v-progress", words)
                else:
                    await aupdate_progress_artifact(bar, share, words)

    async def keep_showing() -> None:
        while True:
            await show()
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await show()


async def show_estimate(estimate: Estimate) -> None:
    """Put the estimate on the run's page, before anything is asked."""
    with _tolerant():
        async with asyncio.timeout(PATIENCE_S):
            await acreate_markdown_artifact(
                estimate_markdown(estimate), "s2v-estimate", "What the run will cost"
            )


async def show_summary(summary: Summary, headline: str, *, gate: str, rate: str) -> None:
    """Put the funnel and the reasons on the run's page."""
    table = [{"outcome": o, "reason": r, "rows": n} for o, r, n in summary.reasons[:MAX_REASONS]]
    with _tolerant():
        async with asyncio.timeout(PATIENCE_S):
            text = markdown(summary, headline, gate=gate, rate=rate)
            short = f"{summary.passed:,} of {summary.rows:,} passed, USD {summary.cost_usd:.4f} this run"
            await acreate_markdown_artifact(text, "s2v-summary", short)
            if table:
                await acreate_table_artifact(
                    table, "s2v-reasons", "Why rows did not pass, most frequent first"
                )


def _progress(run: Run) -> tuple[float, str]:
    now = progress(run)
    percent = 100.0 * now.done / now.total if now.total else 100.0
    left = f", about {now.left_s / 60:.0f} min left" if now.left_s else ""
    return percent, (
        f"{now.done:,} of {now.total:,} pictures, {now.passed:,} passed, USD {now.cost_usd:.4f},"
        f" {now.rate_per_s:.2f} calls/s{left}"
    )


@contextlib.contextmanager
def _tolerant() -> Iterator[None]:
    """A page that can't be updated must not stop a run; it is said once in the log."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever the server or its client raises)
        _log.warning("the run's page could not be updated (%s); the run goes on", type(error).__name__)
