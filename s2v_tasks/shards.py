"""Shards on their way: screened, then judged, several at once, awaited in the flow's own event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from s2v_tasks.errors import RunStopped
from s2v_tasks.models import Candidate, Screened, Verdict
from s2v_tasks.runs import Run

IN_HOUSE: Final = 10
"""Shards under way; more would only be memory."""
SCREENING: Final = 4
DETECTING: Final = 6
"""More than one, so that the slow tail of a shard (a late retry waits a minute) does not idle the pace."""

Screen = Callable[[list[Candidate]], Awaitable[list[Screened]]]
Detect = Callable[[list[Candidate]], Awaitable[list[Verdict]]]


async def through(run: Run, screen: Screen | None, detect: Detect) -> None:
    """Lead every shard of a run through both stages; the first paid call leaves when the first is screened.

    A stopped run starts no further shard. ``screen`` None: every picture is judged unseen.
    """
    room, screening, detecting = (asyncio.Semaphore(n) for n in (IN_HOUSE, SCREENING, DETECTING))

    async def lead(shard: list[Candidate]) -> None:
        try:
            if screen is not None:
                async with screening:
                    kept = {s.image_key for s in await screen(shard) if s.reason is None}
                shard = [candidate for candidate in shard if candidate.image_key in kept]
            async with detecting:
                if shard and not run.stopped:
                    await detect(shard)
        except RunStopped as error:
            run.engine.stop(error)
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
        raise _first(group_of) from None


def _first(error: BaseException) -> BaseException:
    """The error inside groups of errors: one is enough to end a run, and its type says how."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
