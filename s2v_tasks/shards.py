"""Shards on their way: screened, then judged, several at once, awaited in the flow's own event loop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import httpx
import polars as pl
from prefect import Task

from s2v_tasks.errors import RunStopped
from s2v_tasks.runs import Run, Shard
from s2v_tasks.verdicts import kept

_log = logging.getLogger(__name__)
COPIES_ASKED: Final = 3
"""Addresses of the same bytes that are tried in one shard: each may take a late retry's minute."""
DETECTING: Final = 6
"""More than one, so that the slow tail of a shard (a late retry waits a minute) does not idle the pace."""

T = TypeVar("T")
Stage = Callable[[pl.DataFrame], Awaitable[pl.DataFrame]]
"""What works on the pictures of a shard: `s2v_tasks.tasks.screen`, `.detect`, or one that does the same."""


async def through(run: Run, screen: Stage | None, detect: Stage) -> None:
    """Lead every shard of a run through both stages; the first paid call leaves when the first is screened.

    A stopped run starts no further shard. ``screen`` None: every picture is judged unseen.
    """
    looking = run.parameters.screening.shards_at_once
    # More shards under way would only be memory.
    room, screening, detecting = (asyncio.Semaphore(n) for n in (looking + DETECTING, looking, DETECTING))

    async def lead(shard: Shard) -> None:
        try:
            async with screening:
                pictures = await _looked_at(run, screen, shard)
            async with detecting:
                await _judge(run, detect, pictures)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:
            async for shard in run.shards():
                await room.acquire()
                if run.stopped:
                    break
                group.create_task(lead(shard))
    except BaseExceptionGroup as group_of:
        error = _first(group_of)
    except RunStopped as stopped:
        error = stopped
    else:
        return
    if not isinstance(error, RunStopped):
        raise error
    run.engine.stop(error)


async def _judge(run: Run, detect: Stage, kept: pl.DataFrame) -> None:
    """Have pictures judged. Of those that go by one key the next is asked only if the first got no answer."""
    if kept.is_empty() or run.stopped:
        return
    pictures = await run.to_ask(kept)
    for _ in range(COPIES_ASKED):
        if pictures.is_empty() or _over(run):
            return
        first = pl.col("image_key").is_first_distinct()
        await run.keep_judged(await _shown(detect, pictures.filter(first)))
        later = pictures.filter(~first)
        pictures = later if later.is_empty() else await run.unanswered(later)


async def _looked_at(run: Run, screen: Stage | None, shard: Shard) -> pl.DataFrame:
    """The pictures of a shard that go on to be judged."""
    if screen is None or shard.is_screened:
        return shard.pictures
    told = None if _over(run) else await _unless_stopped(run, _shown(screen, shard.pictures))
    if told is None:
        return shard.pictures.clear()
    await run.keep_screened(told)
    return kept(shard.pictures, told)


def _over(run: Run) -> bool:
    return run.stopped is not None or run.engine.budget_spent


async def _shown(work: Stage, shard: pl.DataFrame) -> pl.DataFrame:
    """Work on a shard as a task on Prefect's page; or, while its server is away, unseen."""
    try:
        return await work(shard)
    except httpx.HTTPError as error:
        if not isinstance(work, Task):
            raise
        _log.warning("Prefect's server does not answer (%s); the job goes on", type(error).__name__)
        unseen: Awaitable[pl.DataFrame] = work.fn(shard)
        return await unseen


async def _unless_stopped(run: Run, work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` gives, or None as soon as the run stops: a signal must not wait for slow hosts."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(run.engine.until_stopped())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stopped.cancel()
        working.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


def _first(error: BaseException) -> BaseException:
    """The error inside groups of errors: one is enough to end a run, and its type says how."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
