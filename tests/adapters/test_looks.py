"""Looks in the ledger's database: what is remembered of a picture, for whom and for how long."""

from datetime import UTC, datetime, timedelta

from ledger_backend import Backend

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.models import WAN22_S2V_DETECT, Screened

KEEP = Screened("a" * 32, None, 800, 600, "png", "animated")
SMALL = Screened("b" * 32, "too_small", 100, 600, "jpeg")
FAILED = [
    Screened("c" * 32, "not_found"),
    Screened("d" * 32, "timeout"),
    Screened("e" * 32, "truncated", 800, 600, "png"),
    Screened("f" * 32, "not_an_image"),
    Screened("0" * 32, "private_address"),
    Screened("1" * 32),
]
KEYS = [screened.image_key for screened in (KEEP, SMALL, *FAILED)]


async def known(ledger: LedgerDatabase, allowed: str = "public", hours: float = 24.0) -> list[Screened]:
    """What the ledger gives back of all of them."""
    looks = await ledger.looks(KEYS, allowed, hours, WAN22_S2V_DETECT)
    return sorted(looks, key=lambda screened: screened.image_key)


async def test_what_was_read_of_a_picture_comes_back_and_a_failure_to_read_does_not(
    ledger: LedgerDatabase,
) -> None:
    """Kept and refused by its header: as it was seen; whatever may be the place's fault is asked again."""
    await ledger.keep_looks([KEEP, SMALL, *FAILED], "public", datetime.now(UTC))
    assert await known(ledger) == [KEEP, SMALL]


async def test_a_look_is_for_those_who_may_look_there(ledger: LedgerDatabase) -> None:
    """What was seen inside the private network tells a run nothing that may not look there."""
    await ledger.keep_looks([KEEP], "private", datetime.now(UTC))
    assert await known(ledger) == []
    assert await known(ledger, "private") == [KEEP]


async def test_a_look_grows_old_and_a_newer_one_takes_its_place(ledger: LedgerDatabase) -> None:
    """Its age counts from when it was seen; a look from the future, of a clock set wrongly, counts not."""
    now = datetime.now(UTC)
    await ledger.keep_looks([KEEP], "public", now - timedelta(hours=2))
    assert await known(ledger, hours=3) == [KEEP]
    assert await known(ledger, hours=1) == []
    assert await known(ledger, hours=0) == []
    smaller = Screened(KEEP.image_key, "too_small", 80, 60, "png")
    await ledger.keep_looks([smaller], "public", now)
    assert await known(ledger, hours=1) == [smaller]
    await ledger.keep_looks([smaller], "public", now + timedelta(hours=1))
    assert await known(ledger) == []


async def test_the_reason_is_made_anew_by_the_rules_of_the_day(backend: Backend) -> None:
    """Only the header is kept: a detector with other limits refuses by its own."""
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        await ledger.keep_looks(
            [Screened(KEEP.image_key, "unsupported_format", 800, 600, "png")], "public", datetime.now(UTC)
        )
        (seen,) = await known(ledger)
    assert seen.reason is None
