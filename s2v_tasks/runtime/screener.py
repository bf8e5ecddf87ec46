"""Screeners: `LocalScreener` in the event loop, `TaskRunnerScreener` on workers, `CachedScreener` on top.

No image is fetched twice: results that a run has already, and those in the header cache, are reused.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database.header_cache import HeaderCache
from s2v_tasks.domain import verdict_table
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import LedgerUnavailable
from s2v_tasks.models import DetectorSpec, Screened


class Screener(Protocol):
    """Decides for free whether images can pass."""

    async def screen(self, images: pl.DataFrame) -> pl.DataFrame:
        """Screen images.

        Args:
            images: Columns ``image_key`` and ``url``; ``others``, if there, are more URLs, tried where that
                one gives no image; ``seen``, if there, is an expired cached result that need only be
                revalidated.

        Returns:
            A row each, in order, of `s2v_tasks.domain.verdict_table.SCREENED_SCHEMA`.
        """
        ...


@dataclass(frozen=True, slots=True)
class CachedScreener:
    """Screens with ``screener`` only what neither ``screened`` nor the header cache holds.

    ``screened``: results that this run has already, of `s2v_tasks.domain.verdict_table.SCREENED_SCHEMA`.
    """

    screener: Screener
    screened: pl.DataFrame
    screening: ScreenOptions
    detector: DetectorSpec
    headers: HeaderCache
    clock: Clock

    async def screen(self, images: pl.DataFrame) -> pl.DataFrame:
        """Screen images: see `Screener`."""
        results = self.screened.join(images, on="image_key", how="semi")
        missing = images.join(results, on="image_key", how="anti", maintain_order="left")
        cached = await self.headers.get(missing["image_key"].to_list(), self.screening, self.detector)
        fresh = verdict_table.screened_frame(cached.fresh)
        results = pl.concat([results, fresh])
        missing = with_seen(
            missing.join(fresh, on="image_key", how="anti", maintain_order="left"), cached.stale
        )
        if not missing.is_empty():
            fetched_at, fetched = self.clock.utcnow(), await self.screener.screen(missing)
            await self.put(verdict_table.screened_records(fetched), fetched_at)
            results = pl.concat([results, fetched])
        return images.select("image_key").join(results, on="image_key", how="left", maintain_order="left")

    async def put(self, screened: Iterable[Screened], fetched_at: datetime) -> None:
        """Put results into the header cache, for later runs."""
        with contextlib.suppress(LedgerUnavailable):  # then they are fetched again
            await self.headers.put(screened, self.screening, fetched_at)


def with_seen(images: pl.DataFrame, stale: Iterable[Screened]) -> pl.DataFrame:
    """Images with their expired cached results, as column ``seen``."""
    before = verdict_table.screened_frame(stale).select("image_key", pl.struct(pl.all()).alias("seen"))
    return images.join(before, on="image_key", how="left", maintain_order="left")
