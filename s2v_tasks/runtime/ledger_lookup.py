"""Looks images up in the ledger before anything is fetched or paid for."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.ledger_reader import KEYS_AT_ONCE
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain import candidate_table, verdict_table
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.models import Outcome
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.runtime.partitions import PartitionStore


@dataclass(frozen=True, slots=True)
class LedgerLookup:
    """Finds the images that need a check; the verdicts of the others are added to the partitions' results."""

    ledger: RunLedger
    engine: Engine
    partitions: PartitionStore

    async def unchecked(self, images: pl.DataFrame) -> pl.DataFrame:
        """Those of some images, any columns with ``image_key``, that have no verdict yet, in order."""
        return await self._without_verdict(images, images["image_key"])

    async def unchecked_of(self, partition: int, images: pl.DataFrame) -> pl.DataFrame:
        """The same for images of one partition: the ledger's keys of that range are read at once."""
        keys = images["image_key"]
        key_range = candidate_table.key_range(partition, self.partitions.count)
        return await self._without_verdict(images, await self.ledger.possibly_known(keys, key_range))

    async def _without_verdict(self, images: pl.DataFrame, keys: pl.Series) -> pl.DataFrame:
        """Look ``keys`` up; the ledger knows none of the other images."""
        found = [pl.DataFrame(schema=verdict_table.CHECKED_SCHEMA)]
        for first in range(0, len(keys), KEYS_AT_ONCE):
            known = await self.engine.known(keys[first : first + KEYS_AT_ONCE].to_list())
            found.append(verdict_table.checked_frame(known.values()))
        verdicts = pl.concat(found)
        if verdicts.is_empty():
            return images
        is_charge = verdicts["outcome"] == Outcome.SKIPPED.value
        await asyncio.to_thread(self.partitions.add_checked, verdicts.filter(~is_charge))
        await asyncio.to_thread(self.partitions.add_charged, verdicts.filter(is_charge))
        return images.join(verdicts.filter(~is_charge), on="image_key", how="anti", maintain_order="left")


def known_keys_from_thread(ledger: Ledger, scope: Scope) -> Callable[[list[str]], set[str]]:
    """A function for other threads that returns those of some keys which the ledger has.

    ``ledger`` is open in this event loop, which must run meanwhile.
    """
    loop = asyncio.get_running_loop()

    def known(keys: list[str]) -> set[str]:
        return asyncio.run_coroutine_threadsafe(ledger.known_keys(scope, keys), loop).result()

    return known
