"""The queue of images to check: what is checked next, and in which order."""

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain import audit, verdict_table
from s2v_tasks.runtime.ledger_lookup import LedgerLookup
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.run_state import RunState

_SHARD: Final = "__s2v_shard"
_NO_ORDER: Final = pl.DataFrame(
    schema={"image_key": pl.String(), "segment": pl.String(), "outcome": pl.String()}
)


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that are worked on together: columns ``image_key``, ``url``, ``others`` and ``url_index``.

    See `s2v_tasks.runtime.partitions.PartitionStore.unique_images`.
    ``images``: those to screen. ``kept``: those that an earlier process of the run has screened and kept, as
    `s2v_tasks.domain.verdict_table.kept` returns them. ``faces``: what it saw of faces, of
    `s2v_tasks.domain.faces.SCHEMA`.

    ``order``: in a run with a sample, the part of its order that the shard covers, ``image_key``, ``segment``
    (null: the run has none) and ``outcome`` of images that have a result already.
    """

    images: pl.DataFrame
    kept: pl.DataFrame
    faces: pl.DataFrame
    order: pl.DataFrame


class ImageQueue:
    """Hands out the images of a run that still need a check, in shards.

    Durable without a file of its own: an image is in the queue until the partitions or the ledger hold its
    result, so a continued run opens it again and gets the rest. Memory: the images of one partition.

    Order: partition by partition; of each partition first the images that an earlier process of the run has
    screened, as they can be paid for at once; images suspected of a systemic refusal after all others.
    With a ``seed``, in the order of `s2v_tasks.domain.audit` instead: the same for each process, so it also
    holds the images that have a result already.
    """

    def __init__(
        self,
        partitions: PartitionStore,
        lookup: LedgerLookup,
        state: RunState,
        shard_size: int,
        suspects: Collection[str] = (),
        seed: int | None = None,
    ) -> None:
        self._partitions = partitions
        self._lookup = lookup
        self._state = state
        self._shard_size = shard_size
        self._suspects = list(suspects)
        self._seed = seed
        self._ready: deque[Shard] = deque()
        passes = (False, True) if suspects else (False,)
        self._partitions_left = deque(
            (number, is_suspect) for is_suspect in passes for number in range(partitions.count)
        )

    async def next(self) -> Shard | None:
        """What is checked next; None at the end."""
        while not self._ready and self._partitions_left:
            await self._read(*self._partitions_left.popleft())
        return self._ready.popleft() if self._ready else None

    async def _read(self, partition: int, is_suspect: bool) -> None:
        """Cut what is left of a partition into shards: each is of one partition, so the last may be small."""
        images = await asyncio.to_thread(self._partitions.unique_images, partition)
        images = images.filter(pl.col("image_key").is_in(self._suspects) == is_suspect)
        unchecked = await self._lookup.unchecked_of(partition, images.drop("row"))
        screened = await asyncio.to_thread(self._partitions.screened, partition)
        results = unchecked.select("image_key").join(screened, on="image_key", how="inner")
        self._state.known += images.height - unchecked.height
        self._state.count_screened(results)
        seen = await asyncio.to_thread(self._partitions.faces, partition)
        kept = verdict_table.kept(unchecked, results)
        unscreened = unchecked.join(results, on="image_key", how="anti", maintain_order="left")
        if self._seed is None:
            of_kept, of_others = (frame.iter_slices(self._shard_size) for frame in (kept, unscreened))
            self._ready += (Shard(unscreened.clear(), part, seen, _NO_ORDER) for part in of_kept)
            self._ready += (Shard(part, kept.clear(), seen.clear(), _NO_ORDER) for part in of_others)
            return
        order = await self._in_order(partition, images, unchecked)
        shard = (pl.int_range(pl.len()) // self._shard_size).alias(_SHARD)
        place = order.select("image_key", shard)
        cut = [
            frame.join(place, on="image_key", maintain_order="left").partition_by(
                _SHARD, as_dict=True, include_key=False
            )
            for frame in (unscreened, kept, seen)
        ]
        empty = unscreened.clear(), kept.clear(), seen.clear()
        for number, part in enumerate(order.iter_slices(self._shard_size)):
            here = [frames.get((number,), none) for frames, none in zip(cut, empty, strict=True)]
            self._ready.append(Shard(here[0], here[1], here[2], part))

    async def _in_order(self, partition: int, images: pl.DataFrame, unchecked: pl.DataFrame) -> pl.DataFrame:
        """Images of a partition in the sample's order, as `Shard` has it."""
        segments = await asyncio.to_thread(self._partitions.segments, partition)
        results = await asyncio.to_thread(self._partitions.checked, partition)
        known = results.select("image_key", "outcome").join(unchecked, on="image_key", how="anti")
        return (
            images.select("image_key", "row")
            .sort(audit.position(self._seed or 0, self._partitions.count))
            .join(segments, on="row", how="left", maintain_order="left")
            .join(known, on="image_key", how="left", maintain_order="left")
            .select(_NO_ORDER.columns)
        )
