"""Finds what an estimate is made of, free of charge: the rows, the ledger, a look at a random sample."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from s2v_tasks import candidates as stage1
from s2v_tasks.adapters import sources, storage
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import Holder, Lease
from s2v_tasks.adapters.looks import Looks
from s2v_tasks.errors import NoLedger
from s2v_tasks.estimate import Estimate
from s2v_tasks.ledger import images_bought
from s2v_tasks.looking import fetcher_of, with_seen
from s2v_tasks.models import Screened
from s2v_tasks.parts import Parts
from s2v_tasks.plan import Question, rows_of
from s2v_tasks.runs import CHUNK_ROWS

SEED: Final = 0
"""The same rows and ledger give the same sample."""


class Surveyed(NamedTuple):
    """What a survey found: of the sample, what was ``seen`` now and what was known from earlier looks."""

    estimate: Estimate
    seen_at: datetime
    seen: list[Screened]
    known: list[Screened]


async def survey(asked: Question, rate_per_s: float, former: Parts | None = None) -> Surveyed:
    """The estimate, and what was seen of the sample, so that nobody need look again. No paid call.

    ``former``: what an earlier life of the run has looked at is not looked at again.

    Raises:
        InputError: The candidates can't be read, or there are none.
        LedgerUnavailable: The ledger can't be read.
    """
    profile, screening = asked.scope.profile, asked.parameters.screening
    with tempfile.TemporaryDirectory(prefix="s2v-") as folder:
        counts, sample, looks = await _counted(asked, Parts(Path(folder)), screening.estimate_from)
    seen_at, seen = datetime.now(UTC), list[Screened]()
    known: list[Screened] = []
    if screening.enabled:
        if former is not None:
            known = await asyncio.to_thread(former.looked_at, sample["image_key"])
        keys = {screened.image_key for screened in known}
        known += [screened for screened in looks.fresh if screened.image_key not in keys]
        unseen = sample.filter(~pl.col("image_key").is_in([screened.image_key for screened in known]))
        async with fetcher_of(screening) as fetcher:
            seen = await fetcher.screen(stage1.records(with_seen(unseen, looks.stale)))
    budget_usd = asked.parameters.budget_usd
    bought = None if budget_usd is None else images_bought(budget_usd, profile.price_micro_usd)
    estimate = Estimate(
        **asdict(counts),
        sampled=len(seen) + len(known),
        sampled_out=sum(s.reason is not None for s in (*seen, *known)),
        price_micro_usd=profile.price_micro_usd,
        rate_per_s=rate_per_s or profile.rate_per_s,
        budget_images=bought,
        is_screened=screening.enabled,
    )
    return Surveyed(estimate, seen_at, seen, known)


@dataclass(slots=True)
class _Counts:
    """What is known without looking at a picture, as `s2v_tasks.estimate.Estimate` has it."""

    rows: int = 0
    refused: int = 0
    duplicates: int = 0
    known: int = 0
    left: int = 0


async def _counted(asked: Question, parts: Parts, wanted: int) -> tuple[_Counts, pl.DataFrame, Looks]:
    """Count, part by part, and draw ``wanted`` of the pictures that are left, at random.

    The last is what other runs saw of those.
    """
    over = False
    try:
        await asyncio.to_thread(_cut, asked, parts, go_on=lambda: not over)
    finally:
        over = True  # a cancelled estimate must not be waited for
    counts, sample = _Counts(rows=parts.rows), pl.DataFrame()
    by_lot = pl.col("image_key").hash(SEED)
    looks = Looks([], [])
    async with _memory(asked) as ledger:
        for part in range(parts.count):
            identified = await asyncio.to_thread(parts.identified, part)
            fresh = stage1.fresh(identified.lazy()).collect()
            left = fresh if ledger is None else await _unknown(asked, ledger, fresh)
            refused = identified["reason"].count()
            counts.refused += refused
            counts.duplicates += identified.height - refused - fresh.height
            counts.known += fresh.height - left.height
            counts.left += left.height
            sample = pl.concat([sample, left], how="diagonal").sort(by_lot).head(wanted)
        screening = asked.parameters.screening
        if ledger is not None and not sample.is_empty():
            keys, profile = sample["image_key"].to_list(), asked.scope.profile
            looks = await ledger.looks(keys, screening, profile)
    return counts, sample, looks


def _cut(asked: Question, parts: Parts, *, go_on: Callable[[], bool]) -> None:
    urls = parts.folder / "urls.parquet"  # any source is read once, from its beginning to its end
    with sources.reading(asked.parameters.candidates):
        storage.sink(stage1.addresses(rows_of(asked), asked.parameters.source.url_column), urls)
    parts.cut(storage.parquet(urls), "url", go_on=go_on)


@asynccontextmanager
async def _memory(asked: Question) -> AsyncIterator[LedgerDatabase | None]:
    """The ledger; one that is not there yet is not made."""
    async with AsyncExitStack() as stack:
        ledger = None
        if asked.ledger_url is not None:
            with suppress(NoLedger):
                opening = LedgerDatabase(asked.ledger_url, SystemClock(), existing=True)
                ledger = await stack.enter_async_context(opening)
        yield ledger


async def _unknown(asked: Question, ledger: LedgerDatabase, fresh: pl.DataFrame) -> pl.DataFrame:
    """The pictures that the ledger does not know."""
    on_unknown = asked.parameters.spending.on_unknown
    nobody = Lease("", Holder.current(), "", asked.scope, on_unknown)  # never taken: only to ask with
    known: list[str] = []
    for chunk in fresh.iter_slices(CHUNK_ROWS):
        standings = await ledger.standings(nobody, chunk["image_key"].to_list())
        known += [
            key
            for key, standing in standings.items()
            if standing.verdict is not None or standing.is_exhausted(on_unknown)
        ]
    keys = pl.DataFrame({"image_key": known}, schema={"image_key": pl.String})
    return fresh.join(keys, on="image_key", how="anti", maintain_order="left")
