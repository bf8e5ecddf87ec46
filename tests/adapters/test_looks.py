"""Looks in the ledger's database: what is remembered of a picture and its bytes, for whom and how long."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ledger_backend import Backend
from test_database import SCOPE

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.models import WAN22_S2V_DETECT, Screened
from s2v_tasks.settings import Screening

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


BYTES, OTHERS = "c" * 32, "d" * 32
A, B = "a" * 32, "b" * 32
PUBLIC = Screening()
PRIVATE = Screening(allow_private_hosts=True)


async def known(
    ledger: LedgerDatabase, screening: Screening = PUBLIC, *, stale: bool = False, **how: Any
) -> list[Screened]:
    """What the ledger gives back of all of them."""
    looks = await ledger.looks(KEYS, screening.model_copy(update=how), WAN22_S2V_DETECT)
    return sorted(looks.stale if stale else looks.fresh, key=lambda screened: screened.image_key)


async def test_what_was_read_of_a_picture_comes_back_and_a_failure_to_read_does_not(
    ledger: LedgerDatabase,
) -> None:
    """Kept and refused by its header: as it was seen; whatever may be the place's fault is asked again."""
    await ledger.keep_looks([KEEP, SMALL, *FAILED], PUBLIC, datetime.now(UTC))
    assert await known(ledger) == [KEEP, SMALL]


async def test_a_look_is_for_those_who_may_look_there(ledger: LedgerDatabase) -> None:
    """What was seen inside the private network tells a run nothing that may not look there."""
    await ledger.keep_looks([KEEP], PRIVATE, datetime.now(UTC))
    assert await known(ledger) == []
    assert await known(ledger, PRIVATE) == [KEEP]


async def test_a_look_grows_old_and_a_newer_one_takes_its_place(ledger: LedgerDatabase) -> None:
    """Its age counts from when it was seen; a look from the future, of a clock set wrongly, counts not."""
    now = datetime.now(UTC)
    await ledger.keep_looks([KEEP], PUBLIC, now - timedelta(hours=2))
    assert await known(ledger, fresh_for_h=3) == [KEEP]
    assert await known(ledger, fresh_for_h=1) == []
    assert await known(ledger, fresh_for_h=0) == []
    smaller = Screened(KEEP.image_key, "too_small", 80, 60, "png")
    await ledger.keep_looks([smaller], PUBLIC, now)
    assert await known(ledger, fresh_for_h=1) == [smaller]
    await ledger.keep_looks([smaller], PUBLIC, now + timedelta(hours=1))
    assert await known(ledger) == []


async def test_an_old_look_with_a_validator_can_be_asked_after(ledger: LedgerDatabase) -> None:
    """As long as it is fresh it is not; without a validator there is nothing to ask after."""
    tagged, seen_at = replace(SMALL, validator='"v1"'), datetime.now(UTC) - timedelta(hours=2)
    await ledger.keep_looks([KEEP, tagged], PUBLIC, seen_at)
    assert await known(ledger, fresh_for_h=1) == []
    assert await known(ledger, fresh_for_h=1, stale=True) == [tagged]
    assert await known(ledger, fresh_for_h=3, stale=True) == []


async def test_a_look_at_the_header_alone_is_none_where_bytes_are_compared(ledger: LedgerDatabase) -> None:
    """A run that pays once for the same bytes needs a look that had them all, if it kept it."""
    whole = replace(KEEP, content_key="c" * 32, validator='"v1"')
    header = replace(KEEP, image_key="c" * 32, validator='"v2"')
    await ledger.keep_looks([whole, SMALL, header], PUBLIC, datetime.now(UTC))
    assert await known(ledger, same_content=True) == [whole, SMALL]
    assert await known(ledger, same_content=True, fresh_for_h=1e-9, stale=True) == [whole]
    assert await known(ledger) == [whole, SMALL, header]


async def test_the_reason_is_made_anew_by_the_rules_of_the_day(backend: Backend) -> None:
    """Only the header is kept: a detector with other limits refuses by its own."""
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        await ledger.keep_looks(
            [Screened(KEEP.image_key, "unsupported_format", 800, 600, "png")], PUBLIC, datetime.now(UTC)
        )
        (seen,) = await known(ledger)
    assert seen.reason is None


async def test_the_first_picture_stands_for_its_bytes_in_every_run(ledger: LedgerDatabase) -> None:
    """Other bytes have others; nothing asked, nothing said."""
    assert await ledger.standing_for(SCOPE, {BYTES: A, OTHERS: "e" * 32}) == {BYTES: A, OTHERS: "e" * 32}
    assert await ledger.standing_for(SCOPE, {BYTES: B}) == {BYTES: A}
    assert await ledger.standing_for(SCOPE, {}) == {}


async def test_bytes_of_another_service_have_others(ledger: LedgerDatabase) -> None:
    """An emulator's verdict is never taken for a real one, whatever the bytes."""
    emulated = replace(SCOPE, service="http://127.0.0.1")
    assert await ledger.standing_for(SCOPE, {BYTES: A}) == {BYTES: A}
    assert await ledger.standing_for(emulated, {BYTES: B}) == {BYTES: B}


async def test_runs_that_meet_the_same_bytes_at_once_agree(backend: Backend) -> None:
    """Whoever is first; and many of them, in whatever order, don't lock each other out."""
    keys = [f"{n:032x}" for n in range(300)]
    async with (
        LedgerDatabase(backend.url, SystemClock()) as one,
        LedgerDatabase(backend.url, SystemClock()) as two,
    ):
        for part in range(0, 300, 50):
            some = keys[part : part + 50]
            told = await asyncio.gather(
                one.standing_for(SCOPE, dict.fromkeys(some, A)),
                two.standing_for(SCOPE, dict.fromkeys(reversed(some), B)),
            )
            assert told[0] == told[1]
            assert told[0].keys() == set(some)
