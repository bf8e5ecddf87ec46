"""Collects the inputs of an estimate, free of charge: rows, ledger, and a screened random sample."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.header_cache import FACES_SINCE, CachedHeaders
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.ledger_reader import KEYS_AT_ONCE
from s2v_tasks.adapters.http.local_screener import LocalScreener
from s2v_tasks.adapters.images import face_detector
from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.local_files import temporary_dir
from s2v_tasks.domain import candidate_table
from s2v_tasks.domain.estimate import Estimate
from s2v_tasks.domain.face_estimate import SampledFaces
from s2v_tasks.domain.faces import Faces
from s2v_tasks.domain.gate_rules import segment_of
from s2v_tasks.domain.ledger import images_bought
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import LedgerNotFound
from s2v_tasks.models import Screened
from s2v_tasks.runtime.face_check import RULES, FaceChecker
from s2v_tasks.runtime.ledger_lookup import known_keys_from_thread
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.plan import EstimatePlan, read_rows
from s2v_tasks.runtime.screener import with_seen

SEED: Final = 0
"""The same rows and ledger give the same sample."""


class EstimateInputs(NamedTuple):
    """An estimate and the results for its sample: ``screened`` now, ``reused`` from earlier."""

    estimate: Estimate
    screened_at: datetime
    screened: list[Screened]
    reused: list[Screened]


async def estimate_inputs(
    planned: EstimatePlan,
    rate_per_s: float,
    previous: PartitionStore | None = None,
    rows_file: Path | None = None,
    *,
    checks_faces: bool = False,
) -> EstimateInputs:
    """Estimate what a run costs; makes no paid call.

    Args:
        planned: The parameters, checked.
        rate_per_s: The account's rate limit, calls a second; 0 for the documented one.
        previous: Partitions of an earlier process of the run: images that it has screened are reused.
        rows_file: The candidates as `s2v_tasks.runtime.plan.snapshot` has read them; None: they are read now.
        checks_faces: If the run is to check faces, those of the sample that are not cached are checked now.

    Raises:
        InputError: The candidates can't be read, or there are none.
        LedgerUnavailable: The ledger can't be read.
    """
    detector, screening = planned.scope.detector, planned.parameters.screening
    options = ScreenOptions.of(screening, planned.parameters.advanced)
    with temporary_dir() as folder:
        if rows_file is None:
            rows_file = folder / "rows.parquet"
            await read_rows(planned, rows_file)
        partitions = PartitionStore(folder)
        sample_size = planned.parameters.advanced.estimate_sample_size
        counts, sample, cached, seen = await _count(planned, rows_file, partitions, sample_size)
        column = planned.parameters.source.segment_column
        segments = 1 if column is None else await asyncio.to_thread(_segments, rows_file, column)
    screened_at, screened, reused = datetime.now(UTC), list[Screened](), list[Screened]()
    if screening.enabled:
        if previous is not None:
            reused = await asyncio.to_thread(previous.screened_images, sample["image_key"])
        keys = {one.image_key for one in reused}
        reused += [one for one in cached.fresh if one.image_key not in keys]
        missing = sample.filter(~pl.col("image_key").is_in([one.image_key for one in reused]))
        async with LocalScreener(options) as screener:
            screened = await screener.fetch(candidate_table.records(with_seen(missing, cached.stale)))
    kept = [one.image_key for one in (*screened, *reused) if one.reason is None]
    if checks_faces and screening.faces != "off" and face_detector.model_file() is not None:
        async with FaceChecker(options, None) as checker:
            is_unseen = pl.col("image_key").is_in(kept) & ~pl.col("image_key").is_in([*seen])
            found = await checker.check(sample.filter(is_unseen))
        seen |= {key: Faces(*row) for key, *row in found.iter_rows()}
    budget_usd = planned.parameters.budget_usd
    bought = None if budget_usd is None else images_bought(budget_usd, detector.price_micro_usd)
    reasons = Counter(one.reason for one in (*screened, *reused) if one.reason is not None)
    estimate = Estimate(
        **asdict(counts),
        sampled=len(screened) + len(reused),
        sampled_out=sum(reasons.values()),
        reasons=tuple(reasons.most_common()),
        price_micro_usd=detector.price_micro_usd,
        rate_per_s=rate_per_s or detector.rate_per_s,
        budget_images=bought,
        is_screened=screening.enabled,
        faces=_sampled_faces(planned, [seen[key] for key in kept if key in seen], segments),
    )
    return EstimateInputs(estimate, screened_at, screened, reused)


def _sampled_faces(planned: EstimatePlan, seen: Sequence[Faces], segments: int) -> SampledFaces | None:
    """What was seen in the sample; None: the run checks no faces."""
    thresholds, choice = planned.parameters.thresholds, planned.parameters.screening.faces
    if choice == "off":
        return None
    numbers = Counter(min(one.faces_seen, 2) for one in seen if one.faces_seen is not None)
    return SampledFaces(
        examined=len(seen),
        none=numbers[0],
        single=numbers[1],
        several=numbers[2],
        segments=segments,
        choice=choice,
        max_missed_share=thresholds.max_missed_share,
        min_pass_rate=thresholds.min_pass_rate,
    )


def _segments(rows_file: Path, column: str) -> int:
    segment = pl.scan_parquet(rows_file).select(segment_of(column).n_unique())
    return int(segment.collect(engine="streaming").item())


@dataclass(slots=True)
class _Counts:
    """What is known without screening an image, as `s2v_tasks.domain.estimate.Estimate` has it."""

    rows: int = 0
    rejected: int = 0
    duplicates: int = 0
    already_checked: int = 0
    remaining: int = 0


async def _count(
    planned: EstimatePlan, rows_file: Path, partitions: PartitionStore, sample_size: int
) -> tuple[_Counts, pl.DataFrame, CachedHeaders, dict[str, Faces]]:
    """Count, partition by partition; draw a random sample of the images, and look it up in the cache."""
    async with _existing_ledger(planned) as ledger:
        await _build(planned, rows_file, partitions, ledger)
        counts, sample = _Counts(rows=partitions.rows), pl.DataFrame()
        random_order = pl.col("image_key").hash(SEED)
        for number in range(partitions.count):
            rows = await asyncio.to_thread(partitions.marked_rows, number)
            images = await asyncio.to_thread(partitions.unique_images, number)
            key_range = candidate_table.key_range(number, partitions.count)
            unchecked = images if ledger is None else await _unchecked(planned, ledger, images, key_range)
            rejected = rows["reason"].count()
            counts.rejected += rejected
            counts.duplicates += rows.height - rejected - images.height
            counts.already_checked += images.height - unchecked.height
            counts.remaining += unchecked.height
            sample = pl.concat([sample, unchecked], how="diagonal").sort(random_order).head(sample_size)
        cached, seen = CachedHeaders([], []), dict[str, Faces]()
        if ledger is not None and not sample.is_empty():
            options = ScreenOptions.of(planned.parameters.screening, planned.parameters.advanced)
            keys = sample["image_key"].to_list()
            cached = await ledger.headers.get(keys, options, planned.scope.detector)
            if planned.parameters.screening.faces != "off" and ledger.version >= FACES_SINCE:
                seen = await ledger.headers.faces(keys, options, RULES)
    return counts, sample, cached, seen


async def _build(
    planned: EstimatePlan, rows_file: Path, partitions: PartitionStore, ledger: Ledger | None
) -> None:
    is_over = False
    build = partial(partitions.build, file_io.parquet(rows_file), planned.parameters.source.url_column)
    known = {} if ledger is None else {"known": known_keys_from_thread(ledger, planned.scope)}
    try:
        await asyncio.to_thread(build, should_continue=lambda: not is_over, **known)
    finally:
        is_over = True  # a cancelled estimate does not wait for its thread


@asynccontextmanager
async def _existing_ledger(planned: EstimatePlan) -> AsyncIterator[Ledger | None]:
    """The ledger; None if there is none yet: it is not created."""
    async with AsyncExitStack() as stack:
        ledger = None
        if planned.ledger_url is not None:
            with suppress(LedgerNotFound):
                opening = Ledger(planned.ledger_url, SystemClock(), existing=True)
                ledger = await stack.enter_async_context(opening)
        yield ledger


async def _unchecked(
    planned: EstimatePlan, ledger: Ledger, images: pl.DataFrame, key_range: tuple[str, str]
) -> pl.DataFrame:
    """The images of a partition that the ledger has no verdict for."""
    on_lost_response = planned.parameters.spending.on_lost_response
    keys = await ledger.possibly_known(planned.scope, images["image_key"], key_range)
    checked: list[str] = []
    for first in range(0, len(keys), KEYS_AT_ONCE):
        statuses = await ledger.image_statuses(planned.scope, keys[first : first + KEYS_AT_ONCE].to_list())
        checked += [
            key
            for key, status in statuses.items()
            if status.verdict is not None or status.is_exhausted(on_lost_response)
        ]
    known = pl.DataFrame({"image_key": checked}, schema={"image_key": pl.String})
    return images.join(known, on="image_key", how="anti", maintain_order="left")
