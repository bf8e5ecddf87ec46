"""Images under several URLs: which one is sent, and which next; it is paid for in place of all."""

import asyncio
from dataclasses import dataclass

import polars as pl

from s2v_tasks.adapters.database.canonical_images import CanonicalImages
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain import alternate_urls, verdict_table
from s2v_tasks.domain.response_rules import UNFETCHED
from s2v_tasks.models import Outcome
from s2v_tasks.runtime.ledger_lookup import LedgerLookup
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.run_state import RunState
from s2v_tasks.runtime.run_stats import RunStats


@dataclass(frozen=True, slots=True)
class CanonicalResolver:
    """Finds the key under which an image is checked.

    Two images are the same if redirects led to the same file and, with ``same_content``, if their bytes are
    equal.
    """

    ledger: RunLedger
    canonical_images: CanonicalImages
    lookup: LedgerLookup
    partitions: PartitionStore
    state: RunState
    stats: RunStats
    same_content: bool

    async def to_check(self, kept: pl.DataFrame) -> pl.DataFrame:
        """Of images that the screen kept, those that need a check.

        Args:
            kept: Columns ``image_key``, ``url``, ``others``, ``url_index`` and, if screened, ``content_key``.

        Returns:
            Columns ``image_key``, ``own_key``, ``url``, ``others`` and ``url_index``. ``image_key`` is the
            canonical image's, so it may be there several times, with different URLs.
        """
        images = kept.select("image_key", pl.col("image_key").alias("own_key"), "url", "others", "url_index")
        comparable = verdict_table.comparable(kept, same_content=self.same_content)
        copies = await self._copies(comparable)
        if copies.is_empty():
            return images
        self.state.several_results = True
        await asyncio.to_thread(self.partitions.add_canonical, copies)
        key = pl.coalesce("canonical_key", "image_key").alias("image_key")
        images = images.join(copies, on="image_key", how="left", maintain_order="left")
        images = images.with_columns(key).drop("canonical_key")
        unchecked = await self.lookup.unchecked(images)
        # The lookup has counted each key once, but copies are reused too.
        self._count_reused(images.height - unchecked.height)
        self.stats.reused -= images["image_key"].n_unique() - unchecked["image_key"].n_unique()
        return unchecked

    async def following(self, images: pl.DataFrame, results: pl.DataFrame) -> pl.DataFrame:
        """The images whose next URL is sent, or a copy of theirs: the vendor could not fetch the first.

        Args:
            images: What `to_check` or this method returned; the first of each key was sent.
            results: Theirs, of `s2v_tasks.domain.verdict_table.CHECKED_SCHEMA`.
        """
        unfetched = results.filter(pl.col("reason").is_in(UNFETCHED))["image_key"]
        following = alternate_urls.following(images, unfetched)
        sent = images.filter(pl.col("image_key").is_first_distinct())
        again = sent.join(following, on="own_key", how="semi").height
        self.stats.checked[Outcome.ERROR] -= again  # one image, counted once
        self._count_reused(images.height - sent.height - (following.height - again))
        if not following.is_empty():
            self.state.several_results = True
            skipped = sent.join(following, on="image_key", how="semi")
            index = skipped.select(pl.col("own_key").alias("image_key"), pl.col("url_index") + 1)
            await asyncio.to_thread(self.partitions.skip_urls, index)
        return following

    def _count_reused(self, images: int) -> None:
        """Count images that are not sent: another's result is theirs."""
        self.state.kept -= images
        self.stats.reused += images

    async def _copies(self, comparable: pl.DataFrame) -> pl.DataFrame:
        """The images that are checked under another's key, of `verdict_table.CANONICAL_SCHEMA`."""
        if comparable.is_empty():
            return pl.DataFrame(schema=verdict_table.CANONICAL_SCHEMA)
        statuses = await self.ledger.image_statuses(comparable["image_key"].to_list())
        charged = [key for key, status in statuses.items() if status.charges]  # they keep their own key
        comparable = comparable.filter(~pl.col("image_key").is_in(charged))
        firsts = dict(comparable.reverse().select("content_key", "image_key").iter_rows())
        canonical = await self.canonical_images.claim(self.ledger.scope, firsts)
        key = pl.col("content_key").replace_strict(canonical, return_dtype=pl.String).alias("canonical_key")
        return comparable.select("image_key", key).filter(pl.col("image_key") != pl.col("canonical_key"))
