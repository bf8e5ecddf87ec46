"""The header cache: what is stored of an image and its bytes, for which runs and how long."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from ledger_backend import Backend
from ledger_cases import SCOPE

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.faces import Faces, FileFaces
from s2v_tasks.domain.screen_options import ScreenOptions
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
ONE = Faces(1, 0.9375, 0.25)
PUBLIC = ScreenOptions.of()
PRIVATE = ScreenOptions.of(Screening(allow_private_hosts=True))


async def known(
    ledger: Ledger, screening: ScreenOptions = PUBLIC, *, stale: bool = False, **how: Any
) -> list[Screened]:
    """What the ledger gives back of all of them."""
    cached = await ledger.headers.get(KEYS, replace(screening, **how), WAN22_S2V_DETECT)
    return sorted(cached.stale if stale else cached.fresh, key=lambda screened: screened.image_key)


async def test_what_was_read_of_an_image_comes_back_and_a_failure_to_read_does_not(
    ledger: Ledger,
) -> None:
    """Kept and refused by its header: as it was seen; what may be the host's fault is fetched again."""
    await ledger.headers.put([KEEP, SMALL, *FAILED], PUBLIC, datetime.now(UTC))
    assert await known(ledger) == [KEEP, SMALL]


async def test_a_header_from_before_opt_outs_were_heard_is_fetched_again(ledger: Ledger) -> None:
    """It says nothing about permission; neither fresh nor revalidated does it replace a fetch."""
    tagged = replace(KEEP, validator='"v1"')
    await ledger.headers.put([tagged], PUBLIC, datetime.now(UTC))
    async with ledger.database.transaction() as db:
        await db.execute(sa.update(t.header_cache).values(allowed=PUBLIC.allowed))
    assert await known(ledger) == []
    assert await known(ledger, header_cache_ttl_h=1e-9, stale=True) == []


async def test_an_image_that_opted_out_is_fetched_again_each_time(ledger: Ledger) -> None:
    """Its host may think otherwise tomorrow."""
    await ledger.headers.put([Screened(KEEP.image_key, "opted_out")], PUBLIC, datetime.now(UTC))
    assert await known(ledger) == []


async def test_a_cached_header_is_for_runs_that_may_fetch_there(ledger: Ledger) -> None:
    """What was read in the private network is hidden from a run that may not fetch there."""
    await ledger.headers.put([KEEP], PRIVATE, datetime.now(UTC))
    assert await known(ledger) == []
    assert await known(ledger, PRIVATE) == [KEEP]


async def test_a_cached_header_expires_and_a_newer_one_replaces_it(ledger: Ledger) -> None:
    """Its age counts from when it was read; one from the future, of a clock set wrongly, is ignored."""
    now = datetime.now(UTC)
    await ledger.headers.put([KEEP], PUBLIC, now - timedelta(hours=2))
    assert await known(ledger, header_cache_ttl_h=3) == [KEEP]
    assert await known(ledger, header_cache_ttl_h=1) == []
    assert await known(ledger, header_cache_ttl_h=0) == []
    smaller = Screened(KEEP.image_key, "too_small", 80, 60, "png")
    await ledger.headers.put([smaller], PUBLIC, now)
    assert await known(ledger, header_cache_ttl_h=1) == [smaller]
    await ledger.headers.put([smaller], PUBLIC, now + timedelta(hours=1))
    assert await known(ledger) == []


async def test_a_stale_header_with_a_validator_can_be_revalidated(ledger: Ledger) -> None:
    """As long as it is fresh it is not; without a validator it can't be."""
    tagged, seen_at = replace(SMALL, validator='"v1"'), datetime.now(UTC) - timedelta(hours=2)
    await ledger.headers.put([KEEP, tagged], PUBLIC, seen_at)
    assert await known(ledger, header_cache_ttl_h=1) == []
    assert await known(ledger, header_cache_ttl_h=1, stale=True) == [tagged]
    assert await known(ledger, header_cache_ttl_h=3, stale=True) == []


async def test_a_header_alone_is_not_enough_where_bytes_are_compared(ledger: Ledger) -> None:
    """A run that pays once for the same bytes needs a result with the hash of all bytes, if it is kept."""
    whole = replace(KEEP, content_key="c" * 32, validator='"v1"')
    header = replace(KEEP, image_key="c" * 32, content_key="u" + "c" * 31, validator='"v2"')
    await ledger.headers.put([whole, SMALL, header], PUBLIC, datetime.now(UTC))
    assert await known(ledger, compares_bytes=True) == [whole, SMALL]
    assert await known(ledger, compares_bytes=True, header_cache_ttl_h=1e-9, stale=True) == [whole]
    assert await known(ledger) == [whole, SMALL, header]


async def test_the_reason_is_chosen_again_by_the_current_rules(backend: Backend) -> None:
    """Only the header is kept: a detector with other limits refuses by its own."""
    async with Ledger(backend.url, SystemClock()) as ledger:
        await ledger.headers.put(
            [Screened(KEEP.image_key, "unsupported_format", 800, 600, "png")], PUBLIC, datetime.now(UTC)
        )
        (seen,) = await known(ledger)
    assert seen.reason is None


async def seen_faces(ledger: Ledger, rules: str = "model 1", **how: Any) -> dict[str, Faces]:
    """What the ledger gives back of all faces."""
    return await ledger.headers.faces(KEYS, replace(PUBLIC, **how), rules)


async def test_faces_are_cached_with_the_header_of_the_same_file(ledger: Ledger) -> None:
    """By the model and the rules that saw them; without a header, or with another file's, they are not."""
    tagged, untagged = replace(KEEP, validator='"v1"'), replace(KEEP, image_key=B)
    await ledger.headers.put([tagged, untagged], PUBLIC, datetime.now(UTC))
    other, none, too_large = FileFaces(ONE, '"v0"'), FileFaces(Faces(0), None), FileFaces(Faces(), '"v1"')
    await ledger.headers.put_faces({A: other, B: none, BYTES: other}, PUBLIC, "model 1")
    assert await seen_faces(ledger) == {B: Faces(0)}
    await ledger.headers.put_faces({A: too_large}, PUBLIC, "model 1")
    assert await seen_faces(ledger) == {A: Faces(), B: Faces(0)}
    await ledger.headers.put_faces({A: FileFaces(ONE, '"v1"')}, PUBLIC, "model 2")
    assert await seen_faces(ledger) == {B: Faces(0)}
    assert await seen_faces(ledger, "model 2") == {A: ONE}
    assert await ledger.headers.faces(KEYS, PRIVATE, "model 2") == {}


async def test_cached_faces_expire_with_the_header_and_are_revalidated_with_it(ledger: Ledger) -> None:
    """A header that is read again without the same ETag may be another file's, so its faces are unknown."""
    now = datetime.now(UTC)
    headers = [
        replace(KEEP, image_key=key, validator=tag) for key, tag in ((A, '"v1"'), (B, '"v1"'), (BYTES, None))
    ]
    await ledger.headers.put(headers, PUBLIC, now - timedelta(hours=2))
    found = {one.image_key: FileFaces(ONE, one.validator) for one in headers}
    await ledger.headers.put_faces(found, PUBLIC, "model 1")
    assert await seen_faces(ledger, header_cache_ttl_h=3) == dict.fromkeys((A, B, BYTES), ONE)
    assert await seen_faces(ledger, header_cache_ttl_h=1) == {}
    short = replace(PUBLIC, header_cache_ttl_h=1)
    found_again = await ledger.headers.faces([A, B], short, "model 1", expired=True)
    assert found_again == dict.fromkeys((A, B), ONE), "beside a verdict that is as old"
    assert await seen_faces(ledger, header_cache_ttl_h=0) == {}
    await ledger.headers.put([headers[0], replace(headers[1], validator='"v2"'), headers[2]], PUBLIC, now)
    assert await seen_faces(ledger, header_cache_ttl_h=1) == {A: ONE}
    await ledger.headers.put_faces(found, replace(PUBLIC, header_cache_ttl_h=0), "model 1")
    assert await seen_faces(ledger) == {A: ONE}


async def test_the_first_image_represents_its_bytes_in_every_run(ledger: Ledger) -> None:
    """Other bytes have others; without keys there is nothing to read."""
    assert await ledger.canonical_images.claim(SCOPE, {BYTES: A, OTHERS: "e" * 32}) == {
        BYTES: A,
        OTHERS: "e" * 32,
    }
    assert await ledger.canonical_images.claim(SCOPE, {BYTES: B}) == {BYTES: A}
    assert await ledger.canonical_images.claim(SCOPE, {}) == {}


async def test_bytes_of_another_service_have_others(ledger: Ledger) -> None:
    """An emulator's verdict is never taken for a real one, whatever the bytes."""
    emulated = replace(SCOPE, service="http://127.0.0.1")
    assert await ledger.canonical_images.claim(SCOPE, {BYTES: A}) == {BYTES: A}
    assert await ledger.canonical_images.claim(emulated, {BYTES: B}) == {BYTES: B}


async def test_runs_that_meet_the_same_bytes_at_once_agree(backend: Backend) -> None:
    """Whichever is first; and many of them, in any order, don't deadlock."""
    keys = [f"{n:032x}" for n in range(300)]
    async with (
        Ledger(backend.url, SystemClock()) as one,
        Ledger(backend.url, SystemClock()) as two,
    ):
        for part in range(0, 300, 50):
            some = keys[part : part + 50]
            results = await asyncio.gather(
                one.canonical_images.claim(SCOPE, dict.fromkeys(some, A)),
                two.canonical_images.claim(SCOPE, dict.fromkeys(reversed(some), B)),
            )
            assert results[0] == results[1]
            assert results[0].keys() == set(some)
