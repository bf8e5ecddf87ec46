"""Who stands for which bytes: the first, for everyone, unless its run ended without an answer."""

import pytest
from ledger_backend import Backend
from test_database import PASSED, asked, opened, reserved, silence

from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.errors import LeaseLost

BYTES, OTHERS = "c" * 32, "d" * 32
A, B = "a" * 32, "b" * 32


async def test_the_first_picture_stands_for_its_bytes_in_every_run(ledger: LedgerDatabase) -> None:
    """Other bytes have others; what is asked again gets the same answer; nothing asked, nothing said."""
    one, two = await opened(ledger, "one"), await opened(ledger, "two")
    assert await ledger.standing_for(one, {BYTES: A, OTHERS: "e" * 32}) == {BYTES: A, OTHERS: "e" * 32}
    assert await ledger.standing_for(one, {BYTES: B}) == {BYTES: A}
    assert await ledger.standing_for(two, {BYTES: B}) == {BYTES: A}
    assert await ledger.standing_for(two, {}) == {}


@pytest.mark.parametrize("end", ["closed", "dead"])
async def test_a_picture_that_nobody_asks_any_more_stands_for_nothing(
    ledger: LedgerDatabase, backend: Backend, end: str
) -> None:
    """Its run is over and it has no answer: the next one takes its place."""
    one, two = await opened(ledger, "one"), await opened(ledger, "two")
    await ledger.standing_for(one, {BYTES: A})
    if end == "closed":
        await ledger.close_run(one, "stopped")
    else:
        await silence(backend, "one")
    assert await ledger.standing_for(two, {BYTES: B}) == {BYTES: B}
    assert await ledger.standing_for(await opened(ledger, "three"), {BYTES: A}) == {BYTES: B}


@pytest.mark.parametrize("answered", [True, False])
async def test_a_picture_that_was_paid_for_stands_for_ever(ledger: LedgerDatabase, answered: bool) -> None:
    """With an answer, or with one that was lost: another charge would be a second one."""
    one = await opened(ledger, "one")
    await ledger.standing_for(one, {BYTES: A})
    if answered:
        await asked(ledger, one, PASSED, A)
    else:
        await reserved(ledger, one, A)
    await ledger.close_run(one, "stopped")
    assert await ledger.standing_for(await opened(ledger, "two"), {BYTES: B}) == {BYTES: A}


async def test_a_run_that_lost_its_lease_says_nothing_about_bytes(
    ledger: LedgerDatabase, backend: Backend
) -> None:
    """It is fenced off here too."""
    lease = await opened(ledger, "one")
    await silence(backend, "one")
    await opened(ledger, "one")
    with pytest.raises(LeaseLost):
        await ledger.standing_for(lease, {BYTES: A})
