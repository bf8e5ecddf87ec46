"""Looks at pictures: each at most once, and an old one is asked whether it still holds."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from s2v_tasks import candidates as stage1
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.looking import Looking
from s2v_tasks.models import WAN22_S2V_DETECT, Candidate, Screened
from s2v_tasks.settings import Screening
from s2v_tasks.verdicts import screened_frame, screened_records

ESTIMATED, FRESH, OLD, UNTAGGED, NEW = (letter * 32 for letter in "abcde")


def kept(key: str, width_px: int = 800, validator: str | None = '"v1"') -> Screened:
    return Screened(key, None, width_px, 600, "png", validator=validator)


async def test_only_what_is_not_known_of_late_is_looked_at(tmp_path: Path) -> None:
    """What the estimate saw and what is fresh is not; what is old is, with what it was."""
    asked: list[Candidate] = []
    clock = SystemClock()

    async def look(pictures: pl.DataFrame) -> pl.DataFrame:
        asked.extend(stage1.records(pictures))
        return screened_frame(one.seen or kept(one.image_key, 900) for one in asked)

    async with LedgerDatabase(f"sqlite:///{tmp_path}/ledger.sqlite3", clock) as ledger:
        screening, now = Screening(fresh_for_h=1), clock.utcnow()
        await ledger.keep_looks([kept(FRESH)], screening, now)
        old = [kept(OLD), kept(UNTAGGED, validator=None)]
        await ledger.keep_looks(old, screening, now - timedelta(hours=2))
        looking = Looking(
            screening, WAN22_S2V_DETECT, ledger, clock, look, screened_frame([kept(ESTIMATED, 700)])
        )
        keys = [NEW, OLD, ESTIMATED, UNTAGGED, FRESH]
        pictures = pl.DataFrame({"image_key": keys, "url": [f"https://a.example/{key}" for key in keys]})
        told = screened_records(await looking.at(pictures))

        assert [(one.image_key, one.seen) for one in asked] == [
            (NEW, None),
            (OLD, kept(OLD)),
            (UNTAGGED, None),
        ]
        assert [(one.image_key, one.width_px) for one in told] == [
            (NEW, 900),
            (OLD, 800),
            (ESTIMATED, 700),
            (UNTAGGED, 900),
            (FRESH, 800),
        ]
        known = await ledger.looks(keys, screening, WAN22_S2V_DETECT)  # all that was looked at is fresh now
        assert {one.image_key for one in known.fresh} == {NEW, OLD, UNTAGGED, FRESH}


async def test_a_run_for_which_nothing_stays_fresh_keeps_and_asks_nothing(tmp_path: Path) -> None:
    """Zero hours: every picture is looked at, whatever others saw."""
    clock = SystemClock()

    async def look(pictures: pl.DataFrame) -> pl.DataFrame:
        return screened_frame(replace(kept(key), validator=None) for key in pictures["image_key"])

    async with LedgerDatabase(f"sqlite:///{tmp_path}/ledger.sqlite3", clock) as ledger:
        await ledger.keep_looks([kept(FRESH, 700)], Screening(), clock.utcnow())
        looking = Looking(Screening(fresh_for_h=0), WAN22_S2V_DETECT, ledger, clock, look, screened_frame([]))
        told = await looking.at(
            pl.DataFrame({"image_key": [FRESH, NEW], "url": ["https://a/1", "https://a/2"]})
        )
        assert told["width_px"].to_list() == [800, 800]
        known = await ledger.looks([FRESH, NEW], Screening(), WAN22_S2V_DETECT)
        assert known.fresh == [kept(FRESH, 700)]
