"""Who stands for which bytes: the first that was named, for everyone and for good."""

import asyncio
from dataclasses import replace

from ledger_backend import Backend
from test_database import SCOPE, opened

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase

BYTES, OTHERS = "c" * 32, "d" * 32
A, B = "a" * 32, "b" * 32


async def test_the_first_picture_stands_for_its_bytes_in_every_run(ledger: LedgerDatabase) -> None:
    """Other bytes have others; a run that ends changes nothing; nothing asked, nothing said."""
    one, two = await opened(ledger, "one"), await opened(ledger, "two")
    assert await ledger.standing_for(one, {BYTES: A, OTHERS: "e" * 32}) == {BYTES: A, OTHERS: "e" * 32}
    assert await ledger.standing_for(one, {BYTES: B}) == {BYTES: A}
    await ledger.close_run(one, "stopped")
    assert await ledger.standing_for(two, {BYTES: B}) == {BYTES: A}
    assert await ledger.standing_for(two, {}) == {}


async def test_bytes_of_another_service_have_others(ledger: LedgerDatabase) -> None:
    """An emulator's verdict is never taken for a real one, whatever the bytes."""
    real = await opened(ledger, "one")
    emulated = await opened(ledger, "two", scope=replace(SCOPE, service="http://127.0.0.1"))
    assert await ledger.standing_for(real, {BYTES: A}) == {BYTES: A}
    assert await ledger.standing_for(emulated, {BYTES: B}) == {BYTES: B}


async def test_runs_that_meet_the_same_bytes_at_once_agree(backend: Backend) -> None:
    """Whoever is first; and many of them, in whatever order, don't lock each other out."""
    keys = [f"{n:032x}" for n in range(300)]
    async with (
        LedgerDatabase(backend.url, SystemClock()) as one,
        LedgerDatabase(backend.url, SystemClock()) as two,
    ):
        first, second = await opened(one, "one"), await opened(two, "two")
        for part in range(0, 300, 50):
            some = keys[part : part + 50]
            told = await asyncio.gather(
                one.standing_for(first, dict.fromkeys(some, A)),
                two.standing_for(second, dict.fromkeys(reversed(some), B)),
            )
            assert told[0] == told[1]
            assert told[0].keys() == set(some)
