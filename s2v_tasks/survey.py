"""Finds what an estimate is made of, free of charge: the rows, the ledger, a look at a random sample."""

import asyncio
from pathlib import Path
from typing import Final

import polars as pl

from s2v_tasks import candidates as stage1
from s2v_tasks.adapters import sources
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.connection import ledger_url
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import Holder, Lease
from s2v_tasks.estimate import Estimate
from s2v_tasks.ledger import images_bought
from s2v_tasks.models import Screened
from s2v_tasks.plan import Question, rows_of
from s2v_tasks.runs import CHUNK_ROWS, fetcher_of

SEED: Final = 0
"""The same rows and ledger give the same sample."""


async def survey(asked: Question, rate_per_s: float) -> tuple[Estimate, list[Screened]]:
    """The estimate, and what was seen of the sample, so that nobody need look again. No paid call.

    Raises:
        InputError: The candidates can't be read, or there are none.
        LedgerUnavailable: The ledger can't be read.
    """
    profile, screening = asked.scope.profile, asked.parameters.screening
    identified = await asyncio.to_thread(_identified, asked)
    fresh = stage1.fresh(identified.lazy()).collect()
    left = await _unknown(asked, fresh)
    seen: list[Screened] = []
    if screening.enabled:
        sample = left.sample(min(screening.estimate_from, left.height), seed=SEED)
        async with fetcher_of(screening) as fetcher:
            seen = await fetcher.screen(stage1.records(sample))
    budget_usd = asked.parameters.budget_usd
    bought = None if budget_usd is None else images_bought(budget_usd, profile.price_micro_usd)
    refused = identified["reason"].count()
    estimate = Estimate(
        rows=identified.height,
        refused=refused,
        duplicates=identified.height - refused - fresh.height,
        known=fresh.height - left.height,
        left=left.height,
        sampled=len(seen),
        sampled_out=sum(s.reason is not None for s in seen),
        price_micro_usd=profile.price_micro_usd,
        rate_per_s=rate_per_s or profile.rate_per_s,
        budget_images=bought,
        is_screened=screening.enabled,
    )
    return estimate, seen


def _identified(asked: Question) -> pl.DataFrame:
    with sources.reading(asked.parameters.candidates):
        rows = rows_of(asked)
        return stage1.identify(rows, asked.parameters.source.url_column).collect(engine="streaming")


def _is_missing(url: str) -> bool:
    parsed = ledger_url(url)
    return parsed.drivername.startswith("sqlite") and not Path(parsed.database or "").is_file()


async def _unknown(asked: Question, fresh: pl.DataFrame) -> pl.DataFrame:
    """The pictures that the ledger holds no answer for; a ledger that is not there yet is not made."""
    if asked.ledger_url is None or _is_missing(asked.ledger_url):
        return fresh
    nobody = Lease(
        "", Holder.current(), "", asked.scope, asked.parameters.spending.on_unknown
    )  # never taken: only to ask with
    known: list[str] = []
    async with LedgerDatabase(asked.ledger_url, SystemClock()) as ledger:
        for chunk in fresh.iter_slices(CHUNK_ROWS):
            standings = await ledger.standings(nobody, chunk["image_key"].to_list())
            known += [
                key
                for key, standing in standings.items()
                if standing.verdict is not None or standing.is_exhausted(asked.parameters.spending.on_unknown)
            ]
    keys = pl.DataFrame({"image_key": known}, schema={"image_key": pl.String})
    return fresh.join(keys, on="image_key", how="anti", maintain_order="left")
