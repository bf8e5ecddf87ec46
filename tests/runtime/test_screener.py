"""The cached screener: no image is fetched twice, and an expired result is revalidated."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain import candidate_table
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.verdict_table import screened_frame, screened_records
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage
from s2v_tasks.runtime.screener import CachedScreener
from s2v_tasks.settings import Advanced

ESTIMATED, FRESH, OLD, UNTAGGED, NEW = (letter * 32 for letter in "abcde")


def kept(key: str, width_px: int = 800, validator: str | None = '"v1"') -> Screened:
    return Screened(key, None, width_px, 600, "png", validator=validator)


class FakeHosts:
    """A screener without a network: it records what it fetches and confirms what it should revalidate."""

    def __init__(self) -> None:
        self.fetched: list[UniqueImage] = []

    async def screen(self, images: pl.DataFrame) -> pl.DataFrame:
        candidates = candidate_table.records(images)
        self.fetched.extend(candidates)
        return screened_frame(one.cached or kept(one.image_key, 900) for one in candidates)


def images(*keys: str) -> pl.DataFrame:
    return pl.DataFrame({"image_key": keys, "url": [f"https://a.example/{key}" for key in keys]})


async def test_only_what_is_not_cached_is_fetched(tmp_path: Path) -> None:
    """Results of the estimate and fresh cached ones are reused; expired ones with an ETag are revalidated."""
    hosts, clock = FakeHosts(), SystemClock()
    async with Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3", clock) as ledger:
        screening, now = ScreenOptions.of(advanced=Advanced(header_cache_ttl_h=1)), clock.utcnow()
        await ledger.headers.put([kept(FRESH)], screening, now)
        old = [kept(OLD), kept(UNTAGGED, validator=None)]
        await ledger.headers.put(old, screening, now - timedelta(hours=2))
        estimated = screened_frame([kept(ESTIMATED, 700)])
        screener = CachedScreener(hosts, estimated, screening, WAN22_S2V_DETECT, ledger.headers, clock)
        keys = [NEW, OLD, ESTIMATED, UNTAGGED, FRESH]
        results = screened_records(await screener.screen(images(*keys)))

        assert [(one.image_key, one.cached) for one in hosts.fetched] == [
            (NEW, None),
            (OLD, kept(OLD)),
            (UNTAGGED, None),
        ]
        assert [(one.image_key, one.width_px) for one in results] == [
            (NEW, 900),
            (OLD, 800),
            (ESTIMATED, 700),
            (UNTAGGED, 900),
            (FRESH, 800),
        ]
        cached = await ledger.headers.get(keys, screening, WAN22_S2V_DETECT)
        assert {one.image_key for one in cached.fresh} == {NEW, OLD, UNTAGGED, FRESH}


async def test_with_a_ttl_of_zero_the_cache_is_neither_read_nor_written(tmp_path: Path) -> None:
    """Every image is fetched, whatever other runs have cached."""
    hosts, clock = FakeHosts(), SystemClock()
    async with Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3", clock) as ledger:
        await ledger.headers.put([kept(FRESH, 700)], ScreenOptions.of(), clock.utcnow())
        screening = ScreenOptions.of(advanced=Advanced(header_cache_ttl_h=0))
        screener = CachedScreener(
            hosts, screened_frame([]), screening, WAN22_S2V_DETECT, ledger.headers, clock
        )
        results = await screener.screen(images(FRESH, NEW))
        assert results["width_px"].to_list() == [900, 900]
        cached = await ledger.headers.get([FRESH, NEW], ScreenOptions.of(), WAN22_S2V_DETECT)
        assert cached.fresh == [kept(FRESH, 700)]
