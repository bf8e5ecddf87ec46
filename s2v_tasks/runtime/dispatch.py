"""Dispatch: takes shards from the queue and runs both stages on them, several shards at once."""

import asyncio
from typing import Final

from s2v_tasks.errors import RunStopped
from s2v_tasks.runtime.best_first import BestFirst
from s2v_tasks.runtime.face_check import FaceChecker
from s2v_tasks.runtime.image_queue import Shard
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.stages import Stage, check_images, screen_shard

CHECKED_AT_ONCE: Final = 6
"""Shards: several, so that the slow tail of one (a late retry waits a minute) leaves no send time unused."""


async def process_shards(run: RunContext, screen: Stage | None, detect: Stage) -> None:
    """Run both stages on every shard of a run; the first paid call is sent when the first shard is screened.

    A stopped run starts no further shard.

    Args:
        run: An open run.
        screen: Takes a shard's images and returns a row each, of
            `s2v_tasks.domain.verdict_table.SCREENED_SCHEMA`; None: nothing is screened.
        detect: Takes the images to check and returns a row each, of
            `s2v_tasks.domain.verdict_table.CHECKED_SCHEMA`.
    """
    if run.is_published:
        return
    try:
        if screen is not None and run.parameters.sample_seed is not None:
            await _process_best_first(run, screen, detect)
        else:
            await _process_in_order(run, screen, detect)
    except BaseExceptionGroup as errors:
        error = _first(errors)
        if not isinstance(error, RunStopped):
            raise error from None
        run.engine.stop(error)


async def _process_best_first(run: RunContext, screen: Stage, detect: Stage) -> None:
    screener, rate_per_s = run.screener, run.rate_limit.rate_per_s
    async with FaceChecker(screener.screening, screener.headers, rate_per_s) as checker:
        await BestFirst(run, screen, detect, checker).process()


async def _process_in_order(run: RunContext, screen: Stage | None, detect: Stage) -> None:
    screened_at_once = run.parameters.advanced.max_concurrent_shards
    # More shards in memory would not be faster.
    shard_slots, screening, checking = (
        asyncio.Semaphore(n) for n in (screened_at_once + CHECKED_AT_ONCE, screened_at_once, CHECKED_AT_ONCE)
    )

    async def process(shard: Shard) -> None:
        try:
            async with screening:
                images = await screen_shard(run, screen, shard)
            async with checking:
                await check_images(run, detect, images)
        finally:
            shard_slots.release()

    async with asyncio.TaskGroup() as group:
        while (shard := await run.queue.next()) is not None:
            await shard_slots.acquire()
            if run.stopped:
                break
            group.create_task(process(shard))


def _first(error: BaseException) -> BaseException:
    """The first error inside groups of errors: one ends the run, and its type decides how."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
