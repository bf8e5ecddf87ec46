"""The stages of one shard: screen, then check; each as a Prefect task, with what follows from its results."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx
import polars as pl
from prefect import Task

from s2v_tasks.domain.alternate_urls import MAX_URLS
from s2v_tasks.domain.verdict_table import kept
from s2v_tasks.models import Outcome
from s2v_tasks.runtime.image_queue import Shard
from s2v_tasks.runtime.run_context import RunContext

_log = logging.getLogger(__name__)

T = TypeVar("T")
Stage = Callable[[pl.DataFrame], Awaitable[pl.DataFrame]]
"""Works on the images of a shard: `s2v_tasks.tasks.screen`, `.detect`, or one that does the same."""


async def screen_shard(run: RunContext, screen: Stage | None, shard: Shard) -> pl.DataFrame:
    """The images of a shard that are kept."""
    if shard.images.is_empty():
        return shard.kept
    if screen is None:
        return shard.images
    results = None if sends_nothing_more(run) else await unless_stopped(run, _run_stage(screen, shard.images))
    if results is None:
        return shard.kept
    await asyncio.to_thread(run.partitions.add_screened, results)
    run.state.count_screened(results)
    return pl.concat([shard.kept, kept(shard.images, results)])


async def check_images(run: RunContext, detect: Stage, kept_images: pl.DataFrame) -> None:
    """Check images of those that the screen kept, where they have no verdict yet."""
    if not (kept_images.is_empty() or run.stopped):
        await check_canonical(run, detect, await run.canonical.to_check(kept_images))


async def check_canonical(run: RunContext, detect: Stage, images: pl.DataFrame) -> dict[str, str]:
    """Check images; the next URL of one, or a copy's, is sent if the vendor could not fetch the first.

    Args:
        run: An open run.
        detect: Checks images.
        images: As `s2v_tasks.runtime.canonical.CanonicalResolver.to_check` returns them.

    Returns:
        The outcomes by ``own_key``; ``duplicate``: of a copy that was not sent itself. Images that were not
        reached have none.
    """
    outcomes: dict[str, str] = {}
    for _ in range(MAX_URLS):  # each may wait for a late retry's minute
        if images.is_empty() or sends_nothing_more(run):
            break
        first = images.filter(pl.col("image_key").is_first_distinct())
        results = await _run_stage(detect, first.select("image_key", "url"))
        await asyncio.to_thread(run.partitions.add_checked, results)
        of_key = dict(results.select("image_key", "outcome").iter_rows())
        outcomes |= dict.fromkeys(images["own_key"], Outcome.DUPLICATE.value)
        outcomes |= {own: of_key[key] for own, key in first.select("own_key", "image_key").iter_rows()}
        images = await run.canonical.following(images, results)
    return {own: outcome for own, outcome in outcomes.items() if outcome != Outcome.SKIPPED.value}


def sends_nothing_more(run: RunContext) -> bool:
    """Whether no further call is made: the run has stopped or is hopeless, or its budget covers none."""
    return run.stopped is not None or run.engine.budget_exhausted or run.state.is_hopeless


async def _run_stage(stage: Stage, images: pl.DataFrame) -> pl.DataFrame:
    """Run a stage as a Prefect task; while the Prefect server is away, as a plain function."""
    try:
        return await stage(images)
    except httpx.HTTPError as error:
        if not isinstance(stage, Task):
            raise
        _log.warning("the Prefect server does not respond (%s); the run goes on", type(error).__name__)
        results: Awaitable[pl.DataFrame] = stage.fn(images)
        return await results


async def unless_stopped(run: RunContext, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of ``work``; None as soon as the run stops: a signal must not wait for slow hosts."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(run.engine.until_stopped())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stopped.cancel()
        working.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
