"""Looks at pictures, here or elsewhere; none twice: what was seen of late is not asked for again."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from s2v_tasks import candidates as stage1
from s2v_tasks import verdicts as stage5
from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.hosts import FetchOptions
from s2v_tasks.adapters.images import ImageFetcher
from s2v_tasks.addresses import WEB_PORTS
from s2v_tasks.errors import LedgerUnavailable
from s2v_tasks.models import WAN22_S2V_DETECT, Profile, Screened
from s2v_tasks.settings import Screening

Look = Callable[[pl.DataFrame], Awaitable[pl.DataFrame]]
"""Looks at pictures, columns ``image_key``, ``url`` and perhaps ``seen``; `verdicts.SCREENED_SCHEMA`, a row
each, in order."""


def fetcher_of(screening: Screening) -> ImageFetcher:
    """What looks at pictures, as a form's group says."""
    options = FetchOptions(
        screening.allow_private_hosts, WEB_PORTS.union(screening.allow_ports), screening.same_content
    )
    return ImageFetcher(options, WAN22_S2V_DETECT)


@asynccontextmanager
async def looking_here(screening: Screening) -> AsyncIterator[Look]:
    """Looks at pictures in this event loop."""
    async with fetcher_of(screening) as fetcher:

        async def look(pictures: pl.DataFrame) -> pl.DataFrame:
            return stage5.screened_frame(await fetcher.screen(stage1.records(pictures)))

        yield look


def with_seen(pictures: pl.DataFrame, stale: Iterable[Screened]) -> pl.DataFrame:
    """Pictures with what an old look told of them, as column ``seen``."""
    before = stage5.screened_frame(stale).select("image_key", pl.struct(pl.all()).alias("seen"))
    return pictures.join(before, on="image_key", how="left", maintain_order="left")


@dataclass(frozen=True, slots=True)
class Looking:
    """A run's looks. ``seen``: pictures that were looked at already; ``look`` looks at the others."""

    screening: Screening
    profile: Profile
    ledger: LedgerDatabase
    clock: Clock
    look: Look
    seen: pl.DataFrame

    async def at(self, pictures: pl.DataFrame) -> pl.DataFrame:
        """What the free screen tells of each picture, in order."""
        told = self.seen.join(pictures, on="image_key", how="semi")
        unseen = pictures.join(told, on="image_key", how="anti", maintain_order="left")
        known = await self.ledger.looks(unseen["image_key"].to_list(), self.screening, self.profile)
        fresh = stage5.screened_frame(known.fresh)
        told = pl.concat([told, fresh])
        unseen = with_seen(unseen.join(fresh, on="image_key", how="anti", maintain_order="left"), known.stale)
        if not unseen.is_empty():
            seen_at, seen = self.clock.utcnow(), await self.look(unseen)
            await self.remember(stage5.screened_records(seen), seen_at)
            told = pl.concat([told, seen])
        return pictures.select("image_key").join(told, on="image_key", how="left", maintain_order="left")

    async def remember(self, seen: Iterable[Screened], seen_at: datetime) -> None:
        """Keep what was seen of pictures, for the runs to come."""
        with contextlib.suppress(LedgerUnavailable):  # then they are looked at again
            await self.ledger.keep_looks(seen, self.screening, seen_at)
