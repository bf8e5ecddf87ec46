"""Prefect artifacts of a run: an estimate, a progress bar, a summary, a capped table of reasons."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from s2v_tasks.domain.estimate import Estimate
from s2v_tasks.domain.estimate import markdown as estimate_markdown
from s2v_tasks.domain.progress import Progress
from s2v_tasks.domain.summary import Summary

EVERY_S: Final = 5.0
TIMEOUT_S: Final = 10.0
MAX_REASONS: Final = 50
_log = logging.getLogger(__name__)


@asynccontextmanager
async def progress_artifact(progress: Callable[[], Progress]) -> AsyncIterator[None]:
    """Update a progress artifact inside the block. An unreachable Prefect server is only logged."""
    bar: UUID | None = None

    async def show() -> None:
        nonlocal bar
        with _log_errors():
            async with asyncio.timeout(TIMEOUT_S):
                now = progress()
                if bar is None:
                    bar = await acreate_progress_artifact(now.percent, "s2v-progress", str(now))
                else:
                    await aupdate_progress_artifact(bar, now.percent, str(now))

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
    """Show the estimate in the Prefect UI, before the first call."""
    with _log_errors():
        async with asyncio.timeout(TIMEOUT_S):
            await acreate_markdown_artifact(
                estimate_markdown(estimate), "s2v-estimate", "What the run will cost"
            )


async def show_summary(summary: Summary, text: str) -> None:
    """Show the summary in the Prefect UI, as Markdown, and a table of the reasons."""
    table = [{"outcome": o, "reason": r, "rows": n} for o, r, n in summary.reasons[:MAX_REASONS]]
    with _log_errors():
        async with asyncio.timeout(TIMEOUT_S):
            short = f"{summary.passed:,} of {summary.rows:,} passed, USD {summary.run_cost_usd:.4f} this run"
            await acreate_markdown_artifact(text, "s2v-summary", short)
            if table:
                await acreate_table_artifact(
                    table, "s2v-reasons", "Why rows did not pass, most frequent first"
                )


@contextlib.contextmanager
def _log_errors() -> Iterator[None]:
    """A Prefect UI that can't be updated must not stop a run: log the error."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever the server or its client raises)
        _log.warning("the Prefect UI could not be updated (%s); the run continues", type(error).__name__)
