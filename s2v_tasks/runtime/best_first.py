"""Best first: screens and checks faces ahead, and has the likeliest images of those so far checked next.

A part of the calls goes to the random sample: see `s2v_tasks.domain.audit`. What a rule drops is checked only
there: see `s2v_tasks.runtime.face_rules`.
"""

import asyncio
import logging
from dataclasses import replace
from itertools import count
from math import ceil
from typing import Final

import polars as pl

from s2v_tasks.domain import audit
from s2v_tasks.domain.passing_segments import PASSING_SEGMENTS
from s2v_tasks.models import Outcome, Verdict
from s2v_tasks.runtime.face_check import FaceChecker
from s2v_tasks.runtime.face_queue import FaceQueue
from s2v_tasks.runtime.face_rules import FaceRules
from s2v_tasks.runtime.image_queue import Shard
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.stages import (
    Stage,
    check_canonical,
    screen_shard,
    sends_nothing_more,
    unless_stopped,
)

_log = logging.getLogger(__name__)

WAITING_S: Final = 3.0, 10.0
"""Images are chosen when fewer than these are left to send, of the rate; at first, and at most.

Prefect takes up to 2 s to start a task, and on a busy machine 6.
"""
WAITING_PART: Final = 5
"""Between the two: a fifth of the images chosen so far, as the first are chosen of few."""
TAKEN_OF_WAITING, TAKEN_PART = 3, 100
"""Together are chosen a third of those, or a hundredth of the images chosen so far: few tasks for Prefect."""


class BestFirst:
    """Works through one run's images; ``checker`` is open."""

    def __init__(self, run: RunContext, screen: Stage, detect: Stage, checker: FaceChecker) -> None:
        self._run, self._screen, self._detect, self._checker = run, screen, detect, checker
        run.state.hopeless |= run.partitions.hopeless()
        self._rules = FaceRules(run)
        self._queue = FaceQueue(run.partitions.folder / "face_queue", run.state.hopeless, run.state.rules)
        self._access = asyncio.Lock()
        self._changed = asyncio.Event()
        self._is_read = False
        self._chosen = self._sending = 0
        self._share = audit.Share()
        self._under_way: dict[str, int] = {}
        self._settled: dict[int, str] = {}

    async def process(self) -> None:
        """Screen, check faces and check, all at once, until no image is left or no more is sent."""
        self._run.engine.on_verdict = self._note
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._check())

    async def _read(self) -> None:
        """Screen shards and check their faces, as fast as it goes."""
        slots = asyncio.Semaphore(self._run.parameters.advanced.max_concurrent_shards)
        async with asyncio.TaskGroup() as group:
            for number in count():
                await slots.acquire()
                if self._run.stopped or (shard := await self._run.queue.next()) is None:
                    break
                group.create_task(self._look(number, shard, slots))
        self._is_read = True
        self._changed.set()

    async def _look(self, number: int, shard: Shard, slots: asyncio.Semaphore) -> None:
        try:
            images = self._worth_checking(shard.images, shard)
            images = await screen_shard(self._run, self._screen, replace(shard, images=images))
            images = self._worth_checking(images, shard)
            seen = await unless_stopped(self._run, self._faces(images, shard))
            if seen is not None:
                order = shard.order.join(seen, on="image_key", how="left", maintain_order="left")
                async with self._access:
                    await asyncio.to_thread(self._queue.put, number, order, images)
                self._changed.set()
        finally:
            slots.release()

    def _worth_checking(self, images: pl.DataFrame, shard: Shard) -> pl.DataFrame:
        """Images that can still be sent: not those of segments that are hopeless."""
        if sends_nothing_more(self._run):
            return images.clear()
        is_hopeless = pl.col("segment").is_in([one for one in self._run.state.hopeless if one is not None])
        return images.join(shard.order.filter(is_hopeless), on="image_key", how="anti", maintain_order="left")

    async def _faces(self, images: pl.DataFrame, shard: Shard) -> pl.DataFrame:
        """What is seen of images, and what is cached of those of the shard that have a verdict already.

        None is fetched that an earlier process has checked.
        """
        unknown = images.join(shard.faces, on="image_key", how="anti", maintain_order="left")
        has_verdict = shard.order.filter(pl.col("outcome").is_not_null())
        has_verdict = has_verdict.join(shard.faces, on="image_key", how="anti")
        found = await self._checker.cached(has_verdict["image_key"].to_list())
        if not unknown.is_empty():
            found = pl.concat([found, await self._checker.check(unknown)])
        if not found.is_empty():
            await asyncio.to_thread(self._run.partitions.add_faces, found)
        return pl.concat([shard.faces, found])

    async def _check(self) -> None:
        """Have the next images checked, as the line of those that are not sent yet gets short."""
        line, canonical = self._run.engine.line, self._run.canonical
        async with asyncio.TaskGroup() as group:
            while (images := await self._next()) is not None:
                to_check = await canonical.to_check(images)
                line.enter(to_check["image_key"])
                self._sending += 1
                group.create_task(self._send(images, to_check))
                await unless_stopped(self._run, line.until_shorter_than(self._waiting))

    async def _send(self, images: pl.DataFrame, to_check: pl.DataFrame) -> None:
        """Check images that were taken; those that are not to be checked are copies of others."""
        numbers = dict(images.select("image_key", "number").iter_rows())
        alone = to_check.filter(pl.col("image_key").is_unique()).select("image_key", "own_key")
        self._under_way |= {key: numbers[own] for key, own in alone.iter_rows()}
        try:
            copies = images.join(to_check, left_on="image_key", right_on="own_key", how="anti")["image_key"]
            found = dict.fromkeys(copies, Outcome.DUPLICATE.value)
            found |= await check_canonical(self._run, self._detect, to_check)
        finally:
            self._run.engine.line.leave(to_check["image_key"])
            for key in alone["image_key"]:
                self._under_way.pop(key, None)
        async with self._access:
            self._queue.settle({numbers[key]: outcome for key, outcome in found.items()})
            await self._stop_hopeless()
            await self._rules.evaluate(self._queue.results)
        self._sending -= 1
        self._changed.set()

    def _note(self, verdict: Verdict) -> None:
        """Note a verdict of an image that has no copies beside it: no other of its results counts."""
        number = self._under_way.get(verdict.image_key)
        if number is not None and verdict.outcome in (Outcome.PASSED, Outcome.FAILED):
            self._settled[number] = verdict.outcome.value

    async def _stop_hopeless(self) -> None:
        """Check no more images of segments whose sample shows that they can't reach the gate's pass rate.

        The run stops as a whole where its own sample shows it, unless only passing segments are published.
        """
        state, thresholds = self._run.state, self._run.parameters.thresholds
        lowest, as_run = thresholds.min_pass_rate, thresholds.publish != PASSING_SEGMENTS
        found = self._queue.results.newly_hopeless(lowest, as_run=as_run)
        if new := found.keys() - state.hopeless:
            await asyncio.to_thread(self._run.partitions.set_hopeless, state.hopeless | new)
            state.hopeless |= new
            self._changed.set()
        for segment in sorted(new, key=str):
            _log.info("%s", audit.hopeless_message(segment, found[segment], lowest))

    @property
    def _waiting(self) -> int:
        """How many images may wait to be sent, so that none is missing when its call is due."""
        at_first, at_most = (seconds * self._run.rate_limit.rate_per_s for seconds in WAITING_S)
        return max(1, ceil(max(at_first, min(at_most, self._chosen / WAITING_PART))))

    async def _next(self) -> pl.DataFrame | None:
        """The next images; None if there are no more, or no more is sent."""
        while not sends_nothing_more(self._run):
            self._changed.clear()
            is_read = self._is_read
            may_change = bool(self._rules.used and self._sending)  # a result may switch a rule off
            if not (images := await self._take()).is_empty():
                return images
            if is_read and not may_change:
                return None
            await unless_stopped(self._run, self._changed.wait())
        return None

    def _proof(self, images: int) -> list[pl.DataFrame]:
        """More of the sample, up to so many images, where nothing else waits: until the rules are proven."""
        found: list[pl.DataFrame] = []
        while len(found) < images and (
            self._queue.is_early or not self._rules.may_be_proven(self._queue.results)
        ):
            if (one := self._queue.take_sample(1)).is_empty():
                break
            found.append(one)
        return found

    async def _take(self) -> pl.DataFrame:
        """Images to check at once: the sample's share of them, then the likeliest."""
        most = self._run.parameters.advanced.shard_size
        wanted = max(ceil(self._waiting / TAKEN_OF_WAITING), min(self._chosen // TAKEN_PART, most))
        async with self._access:
            settled, self._settled = self._settled, {}
            self._queue.settle(settled)
            await asyncio.to_thread(self._queue.pass_decided)
            await self._stop_hopeless()
            await self._rules.evaluate(self._queue.results)
            if sends_nothing_more(self._run):
                return pl.DataFrame()
            is_early = self._queue.is_early
            due = self._share.due(wanted, is_early=is_early)
            likeliest = await asyncio.to_thread(self._queue.take, wanted - due)
            if likeliest.height < wanted - due and not is_early:  # a share of the calls that are made
                due = self._share.due(likeliest.height, is_early=is_early)
            sample = await asyncio.to_thread(self._queue.take_sample, due)
            left = wanted - sample.height - likeliest.height
            if left and self._is_read and self._rules.used:
                sample = pl.concat([sample, *await asyncio.to_thread(self._proof, left)])
            self._run.state.left_out = self._queue.left_out
        images = pl.concat([likeliest, sample])
        self._share.took(sample.height, images.height, is_early=is_early)
        self._chosen += images.height
        return images
