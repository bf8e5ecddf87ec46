"""One run's parts, wired: opened at the top of a flow, found by its tasks through a context variable.

`open_run` turns parameters into a `Run`: input read, ledger open, run leased, engine and fetcher ready. The
stages stay in their modules; here is only who holds what, and for how long.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from s2v_tasks import verdicts as stage5
from s2v_tasks.adapters import signals, sources, storage
from s2v_tasks.adapters.clock import Clock, SystemClock
from s2v_tasks.adapters.dashscope import DetectClient
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.folder import (
    UNFINISHED,
    Manifest,
    RunFolder,
    masked,
    nothing_left_on_usage_error,
    versions,
)
from s2v_tasks.adapters.lease import BEAT_S, Lease
from s2v_tasks.engine import Engine
from s2v_tasks.errors import (
    InputError,
    Interrupted,
    LeaseLost,
    LedgerUnavailable,
    RunStopped,
    S2VError,
    UsageError,
)
from s2v_tasks.ledger import BUDGET_SPENT, RUN_STOPPED, images_bought
from s2v_tasks.looking import Look, Looking, looking_here
from s2v_tasks.models import WAN22_S2V_DETECT, Outcome, Screened
from s2v_tasks.parts import Parts
from s2v_tasks.plan import Plan, rows_of
from s2v_tasks.settings import CurateParameters, Screening

CHUNK_ROWS: Final = 1_000
"""Pictures looked up in the ledger at once."""


class Rate(Protocol):
    """The account's allowance, calls a second, and where that number is from."""

    rate_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Pictures on their way together, columns ``image_key`` and ``url``.

    ``is_screened``: the screen has kept them in a former life of the run; then with their ``content_key``.
    """

    pictures: pl.DataFrame
    is_screened: bool = False


@dataclass(slots=True)
class Run:
    """Everything that the tasks of one run share. ``parts`` hold the rows and what was told of them."""

    parameters: CurateParameters
    folder: RunFolder
    manifest: Manifest
    ledger: LedgerDatabase
    lease: Lease
    engine: Engine
    looking: Looking
    allowance: Rate
    parts: Parts
    screened_out: int = 0
    kept: int = 0

    @property
    def stopped(self) -> RunStopped | None:
        """Why the run asks nothing more, if so."""
        return self.engine.stopped

    @property
    def is_published(self) -> bool:
        """Whether the run died between its publication and its end: its data stays as it is."""
        pointer = storage.read_pointer(self.folder.out)
        return pointer is not None and pointer.run_id == self.folder.run_id

    def check_lease(self) -> None:
        """Nothing is written into a run's folder that another process works in.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        if isinstance(self.stopped, LeaseLost):
            raise self.stopped

    async def keep_screened(self, told: pl.DataFrame) -> None:
        """Keep what the screen told about a shard: a frame of `s2v_tasks.verdicts.SCREENED_SCHEMA`."""
        await asyncio.to_thread(self.parts.keep_screened, told)
        self._count(told)

    async def keep_judged(self, told: pl.DataFrame) -> None:
        """Keep what the paid stage told about a shard: a frame of `s2v_tasks.verdicts.JUDGED_SCHEMA`."""
        await asyncio.to_thread(self.parts.keep_judged, told)

    def _count(self, screened: pl.DataFrame) -> None:
        self.kept += screened["screen_reason"].null_count()
        self.screened_out += screened["screen_reason"].count()

    async def shards(self) -> AsyncIterator[Shard]:
        """The unique pictures that need a look or a call; what is known of others is kept on the way."""
        if self.is_published:
            return
        for part in range(self.parts.count):
            pictures = await asyncio.to_thread(self.parts.unique, part)
            screened = await asyncio.to_thread(self.parts.screened, part)
            async for shard in self._shards_of(pictures, screened):
                yield shard

    async def _shards_of(self, pictures: pl.DataFrame, screened: pl.DataFrame) -> AsyncIterator[Shard]:
        """The shards of a part. Each is of one part, so the last ones may be small."""
        size = self.parameters.output.shard_size
        left: dict[bool, list[pl.DataFrame]] = {False: [], True: []}
        for chunk in pictures.iter_slices(CHUNK_ROWS):
            unknown = await self._unknown(chunk.select("image_key", "url"))
            before = unknown.select("image_key").join(screened, on="image_key", how="inner")
            self._count(before)
            left[False].append(unknown.join(before, on="image_key", how="anti", maintain_order="left"))
            left[True].append(stage5.kept(unknown, before))
            for is_screened, some in left.items():
                rows = pl.concat(some)
                whole = rows.height - rows.height % size
                for shard in rows.head(whole).iter_slices(size):
                    yield Shard(shard, is_screened)
                left[is_screened] = [rows.slice(whole)]
        for is_screened, some in left.items():
            if some and not (rows := pl.concat(some)).is_empty():
                yield Shard(rows, is_screened)

    async def _unknown(self, pictures: pl.DataFrame) -> pl.DataFrame:
        """The pictures that the ledger has no verdict for; what it tells of others is kept."""
        told = (await self.engine.known(pictures["image_key"].to_list())).values()
        if not told:
            return pictures
        known = stage5.judged_frame(v for v in told if v.outcome is not Outcome.UNSPENT)
        charged = stage5.judged_frame(v for v in told if v.outcome is Outcome.UNSPENT)
        await asyncio.to_thread(self.parts.keep_judged, known)
        await asyncio.to_thread(self.parts.keep_charged, charged)
        return pictures.join(known, on="image_key", how="anti", maintain_order="left")

    async def to_ask(self, kept: pl.DataFrame) -> pl.DataFrame:
        """What is to be asked of pictures that the screen kept: columns ``image_key`` and ``url``.

        Where equal bytes are paid for once, a picture goes by the key of the one that stands for its bytes.
        """
        pictures = kept.select("image_key", "url")
        if not self.parameters.screening.same_content:
            return pictures
        standings = await self.ledger.standings(self.lease, kept["image_key"].to_list())
        charged = [key for key, standing in standings.items() if standing.charges]  # stay what they were
        comparable = kept.drop_nulls("content_key").filter(~pl.col("image_key").is_in(charged))
        firsts = dict(comparable.reverse().select("content_key", "image_key").iter_rows())
        standing = await self.ledger.standing_for(self.lease.scope, firsts)
        others = comparable.select(
            "image_key",
            pl.col("content_key").replace_strict(standing, return_dtype=pl.String).alias("asked_key"),
        ).filter(pl.col("image_key") != pl.col("asked_key"))
        await asyncio.to_thread(self.parts.keep_same, others)
        asked = pl.coalesce("asked_key", "image_key").alias("image_key")
        return await self.unanswered(
            pictures.join(others, on="image_key", how="left", maintain_order="left").select(asked, "url")
        )

    async def unanswered(self, pictures: pl.DataFrame) -> pl.DataFrame:
        """The kept pictures whose key has no answer yet; what others with it were told is kept."""
        unknown = await self._unknown(pictures)
        known = pictures.height - unknown.height
        self.kept -= known
        keys = pictures["image_key"].n_unique() - unknown["image_key"].n_unique()
        self.engine.tally.reused += known - keys  # a copy is as much known as what it copies
        return unknown

    def collect(self) -> dict[str, int]:
        """Write ``verdicts.parquet``, one row for every input row, and count the outcomes.

        Raises:
            ConservationError: Rows or outcomes do not add up.
        """
        with storage.reaching(self.folder.path):
            return self._collect()

    def _collect(self) -> dict[str, int]:
        if self.is_published:
            outcomes = storage.parquet(self.folder.verdicts).group_by("outcome").len()
            return dict(outcomes.collect(engine="streaming").iter_rows())
        unreached = RUN_STOPPED if self.stopped else BUDGET_SPENT
        counts = self.parts.write(
            storage.parquet(self.folder.rows),
            self.folder.verdicts,
            unreached,
            same_content=self.parameters.screening.same_content,
        )
        if self.stopped is None:
            keep = self.parameters.output.keep_duplicates
            verdicts = storage.parquet(self.folder.verdicts)
            storage.sink(stage5.approved(verdicts, keep_duplicates=keep), self.folder.approved)
        return counts


CURRENT: ContextVar[Run] = ContextVar("s2v_run")
"""The run that the tasks work for."""


async def look(pictures: pl.DataFrame, screening: Screening | None = None) -> pl.DataFrame:
    """Look at pictures: as the open run does, or by themselves as ``screening`` says.

    Kept apart from the task, which is sent to task runners: a context variable can't travel.
    """
    if screening is None and (run := CURRENT.get(None)) is not None:
        return await run.looking.at(pictures)
    async with looking_here(screening or Screening()) as looking:
        return await looking(pictures)


WATCHER: ContextVar[Callable[[Run], None] | None] = ContextVar("s2v_watcher", default=None)
"""Told of a run when it opens: how a terminal comes to show its progress."""


@asynccontextmanager
async def open_run(
    planned: Plan,
    run_id: str,
    allowance: Rate,
    clock: Clock | None = None,
    seen: Iterable[Screened] = (),
    looking: Look | None = None,
) -> AsyncIterator[Run]:
    """Open a run, new or left behind, and make it the current one. ``seen`` need not be looked at again.

    ``looking``: what looks at pictures; if None, this event loop.

    Raises:
        UsageError: The input can't be used, or the run is finished, different or in other hands.
    """
    clock = clock or SystemClock()
    folder = RunFolder(planned.out, run_id)
    async with AsyncExitStack() as stack:
        with nothing_left_on_usage_error(folder):
            manifest = _manifest(planned, folder, clock)
            rows = await asyncio.to_thread(_snapshot, planned, folder)
            ledger = await stack.enter_async_context(LedgerDatabase(planned.ledger_url, clock))
        lease = await _lease(planned, run_id, ledger)  # if another process holds the run, its files stay
        client = await stack.enter_async_context(DetectClient(planned.access, WAN22_S2V_DETECT))
        if looking is None:
            looking = await stack.enter_async_context(looking_here(planned.parameters.screening))
        engine = Engine(ledger, lease, client, clock, lambda: allowance.rate_per_s)
        run = Run(
            planned.parameters,
            folder,
            manifest.model_copy(update={"rows": rows}),
            ledger,
            lease,
            engine,
            Looking(
                planned.parameters.screening,
                WAN22_S2V_DETECT,
                ledger,
                clock,
                looking,
                stage5.screened_frame(seen),
            ),
            allowance,
            Parts(folder.scratch(manifest.started_at)),
        )
        await asyncio.to_thread(folder.write, run.manifest)
        await stack.enter_async_context(_beating(ledger, lease, engine))
        stack.push_async_callback(_close, run)  # the lease is kept until the last call has settled
        stack.enter_context(signals.stopping(lambda name: engine.stop(_interrupted(name))))
        await client.warm()
        token = CURRENT.set(run)
        try:
            await _cut(run)
            if (watch := WATCHER.get()) is not None:
                watch(run)
            yield run
        except S2VError as error:
            if not isinstance(error, LeaseLost):  # else the folder is another process's now
                run.manifest = run.manifest.model_copy(update={"status": "stopped", "message": str(error)})
                await asyncio.to_thread(folder.write, run.manifest)
            raise
        finally:
            CURRENT.reset(token)


def former_parts(planned: Plan, run_id: str) -> Parts | None:
    """What an earlier life of a run has left, if there was one."""
    folder = RunFolder(planned.out, run_id)
    if not folder.manifest_path.exists():
        return None
    return Parts(folder.scratch(folder.read().started_at))


async def _close(run: Run) -> None:
    """Let the calls under way settle, then give the lease back; what is still out counts as unknown."""
    await run.engine.finish()
    status = run.manifest.status
    with contextlib.suppress(LedgerUnavailable):  # then the lease runs out by itself
        await run.ledger.close_run(run.lease, "stopped" if status == "running" else status)


def _manifest(planned: Plan, folder: RunFolder, clock: Clock) -> Manifest:
    """The manifest of a new run, or that of the run which is continued."""
    fresh = Manifest(
        run_id=folder.run_id,
        status="running",
        started_at=clock.utcnow(),
        service=planned.service,
        ledger=masked(planned.ledger_url),
        identity=planned.identity,
        parameters=planned.parameters,
        versions=versions(),
    )
    if not folder.manifest_path.exists():
        return fresh
    former = folder.read()
    if former.status not in UNFINISHED:
        raise UsageError(f"run {former.run_id} is finished and is never reopened; leave --run-id out")
    if former.identity != planned.identity:
        raise UsageError(
            f"run {former.run_id} had another input or other parameters;"
            " repeat its command, or leave --run-id out to begin a new run"
        )
    return fresh.model_copy(update={"started_at": former.started_at})


def _snapshot(planned: Plan, folder: RunFolder) -> int:
    """Keep the input as it is now, and count its rows: what is paid for can't change under way."""
    with sources.reading(planned.parameters.candidates):
        if not folder.rows.exists():
            storage.sink(rows_of(planned, stage5.SCHEMA), folder.rows)
        count: int = storage.parquet(folder.rows).select(pl.len()).collect().item()
    if not count:
        raise InputError(f"{planned.parameters.candidates} holds no rows; there is nothing to curate")
    return count


async def _cut(run: Run) -> None:
    """Cut the rows into parts, while the lease is kept and signals are heard.

    Raises:
        RunStopped: A signal came, or the lease was lost.
    """
    rows, url_column = storage.parquet(run.folder.rows), run.parameters.source.url_column

    def cut() -> None:
        with storage.reaching(run.folder.rows):
            run.parts.cut(rows, url_column, go_on=lambda: run.stopped is None)

    await asyncio.to_thread(cut)
    if run.stopped:
        raise run.stopped


def _interrupted(signal_name: str) -> Interrupted:
    return Interrupted(f"stopped by {signal_name}; everything received is kept: the same command continues")


async def _lease(planned: Plan, run_id: str, ledger: LedgerDatabase) -> Lease:
    spending = planned.parameters.spending
    cap = images_bought(planned.parameters.budget_usd, WAN22_S2V_DETECT.price_micro_usd)
    budget = f"name:{spending.budget_name}" if spending.budget_name else f"run:{run_id}"
    return await ledger.open_run(run_id, planned.scope, budget, cap, spending.on_unknown)


@asynccontextmanager
async def _beating(ledger: LedgerDatabase, lease: Lease, engine: Engine) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await ledger.beat(lease)
            except LedgerUnavailable:
                continue  # busy; if it stays so, whatever is written next says it
            except RunStopped as error:
                engine.stop(error)
                return
            except Exception as error:
                # Without a beat others would take this run for dead and pay for its pictures again.
                what = f"the run's lease can't be kept ({type(error).__name__}: {error})"
                engine.stop(LeaseLost(f"{what}; nothing more is asked: run the same command again"))
                raise

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
