"""The ledger on SQLite and on a real PostgreSQL: what is reserved, paid, lost and given back."""

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

import pytest
from ledger_cases import (
    FREE,
    HOST,
    KEY,
    LOST,
    NO_HUMAN,
    PASSED,
    PRICE,
    RATE,
    opened,
    reserved,
    send_and_settle,
    states,
    team,
    used,
    working,
)

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.detect import DetectResponse, parse_response
from s2v_tasks.domain.ledger import Busy, NotReserved, OutOfBudget, Reserved, Scope
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, Outcome
from s2v_tasks.settings import OnLostResponse

# -- one call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "state", "counts"),
    [
        (PASSED, "billed", 1),
        (FREE, "not_billed", 0),
        (NO_HUMAN, "not_billed", 0),
        (LOST, "unknown", 1),
    ],
)
async def test_a_response_settles_its_reservation(
    ledger: Ledger, backend: Any, response: DetectResponse, state: str, counts: int
) -> None:
    """Reserved money counts at once; what turns out free is given back."""
    lease = await opened(ledger)
    call = await reserved(lease)
    assert (await states(backend), await used(backend)) == (["reserved"], 1)
    await lease.settle(KEY, call.attempt_id, response)
    assert (await states(backend), await used(backend)) == ([state], counts)


async def test_settling_twice_changes_nothing(ledger: Ledger, backend: Any) -> None:
    """A known response is final: no money is given back twice, and no charge is taken back."""
    lease = await opened(ledger)
    free = await send_and_settle(lease, FREE, "free")
    await lease.settle("free", free, FREE)
    billed = await send_and_settle(lease, PASSED, "billed")
    await lease.settle("billed", billed, FREE)
    await lease.settle("billed", billed, LOST)
    assert (await states(backend, "free"), await states(backend, "billed")) == (["not_billed"], ["billed"])
    assert await used(backend) == 1


async def test_a_known_image_is_not_sent_again(ledger: Ledger) -> None:
    """By no later run, and its verdict comes back as it was given."""
    await send_and_settle(await opened(ledger, "first"), NO_HUMAN)
    result = await (await opened(ledger, "second")).reserve(KEY, HOST, RATE)
    assert isinstance(result, NotReserved)
    verdict = result.image_status.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.reason, verdict.check_pass) == (Outcome.FAILED, "no_human", False)
    assert (verdict.code, verdict.message, verdict.http_status) == ("InvalidFile.NoHuman", "nobody", 400)
    assert (verdict.request_id, verdict.billing) == ("r", Billing.NOT_BILLED)
    assert verdict.checked_at is not None
    assert abs((SystemClock().utcnow() - verdict.checked_at).total_seconds()) < 30
    assert result.image_status.verdict_run == "first"


async def test_an_error_is_not_remembered(ledger: Ledger) -> None:
    """An expired signature must not condemn the image."""
    lease = await opened(ledger)
    await send_and_settle(lease, FREE)
    assert isinstance(await lease.reserve(KEY, HOST, RATE), Reserved)


async def test_whatever_a_vendor_writes_can_be_kept(ledger: Ledger) -> None:
    """Half characters, NUL and emoji: a response that was paid for is not lost over its message."""
    lease = await opened(ledger)
    body = (
        rb'{"output": {"check_pass": false, "message": "\u0000 \ud83d \ud83d\ude00"}, "request_id": "\u0000"}'
    )
    await send_and_settle(lease, parse_response(WAN22_S2V_DETECT, 200, {}, body))
    verdict = (await lease.image_statuses([KEY]))[KEY].verdict
    assert verdict is not None
    assert verdict.message == "? ? 😀"


async def test_verdicts_of_one_service_are_nothing_to_another(ledger: Ledger) -> None:
    """What an emulator said is never used as a real verdict."""
    await send_and_settle(await opened(ledger, "first"), PASSED)
    other = await opened(ledger, "second", scope=Scope("http://127.0.0.1:1", "default", WAN22_S2V_DETECT))
    assert (await other.image_statuses([KEY]))[KEY].verdict is None
    assert isinstance(await other.reserve(KEY, HOST, RATE), Reserved)


async def test_verdicts_are_shared_by_the_accounts_of_a_service(ledger: Ledger) -> None:
    """An image that one account paid for is known to the other."""
    await send_and_settle(await opened(ledger, "first"), PASSED)
    other = await opened(ledger, "second", scope=Scope("dashscope", "other", WAN22_S2V_DETECT))
    assert isinstance(await other.reserve(KEY, HOST, RATE), NotReserved)


# -- the budget ----------------------------------------------------------------------------------------


async def test_what_is_under_way_may_still_turn_out_free(ledger: Ledger) -> None:
    """A used-up budget is final only once nothing is under way."""
    lease = await opened(ledger, cap=2)
    await send_and_settle(lease, PASSED, "one")
    call = await reserved(lease, "two")
    assert await lease.reserve("three", HOST, RATE) == OutOfBudget(final=False)
    await lease.settle("two", call.attempt_id, FREE)
    await send_and_settle(lease, LOST, "three")
    assert await lease.reserve("four", HOST, RATE) == OutOfBudget(final=True)


async def test_a_dead_run_does_not_keep_a_shared_budget_open(ledger: Ledger, backend: Any) -> None:
    """Its call will never turn out free: waiting for it would be waiting for ever."""
    async with working("hold", backend, "dead", cap=2) as worker:
        worker.go_on()
        await worker.receive()
        lease = await opened(ledger, cap=2)
        await send_and_settle(lease, PASSED, "one")
        assert await lease.reserve("two", HOST, RATE) == OutOfBudget(final=False)
        await worker.kill()
    assert await lease.reserve("two", HOST, RATE) == OutOfBudget(final=True)
    assert await states(backend) == ["unknown"]


async def test_a_shared_budget_is_capped_as_the_last_run_says(ledger: Ledger) -> None:
    """Raised, it buys more; lowered below what is used, it buys nothing."""
    first = await opened(ledger, "first", budget="shared", cap=1)
    await send_and_settle(first, PASSED, "one")
    assert await first.reserve("two", HOST, RATE) == OutOfBudget(final=True)
    second = await opened(ledger, "second", budget="shared", cap=2)
    await send_and_settle(first, PASSED, "two")
    assert await second.reserve("three", HOST, RATE) == OutOfBudget(final=True)
    await opened(ledger, "third", budget="shared", cap=1)
    assert await first.reserve("three", HOST, RATE) == OutOfBudget(final=True)


async def test_budgets_are_apart(ledger: Ledger) -> None:
    """A run's budget is its own unless it is shared by name."""
    first, second = await opened(ledger, "1", "one", 1), await opened(ledger, "2", "two", 1)
    await send_and_settle(first, PASSED, "one")
    await send_and_settle(second, PASSED, "two")
    assert await first.reserve("three", HOST, RATE) == OutOfBudget(final=True)


async def test_the_cap_is_met_exactly_by_many_at_once(ledger: Ledger, backend: Any) -> None:
    """Two dozen images at once by four runs, each with a connection of its own, and a budget of eleven."""
    others = [Ledger(backend.url, SystemClock()) for _ in range(3)]
    try:
        ledgers = [ledger, *[await other.__aenter__() for other in others]]
        runs = [await opened(one, f"run-{n}", cap=11) for n, one in enumerate(ledgers)]
        results = await asyncio.gather(*(runs[n % 4].reserve(f"image-{n}", HOST, 1000.0) for n in range(24)))
    finally:
        for other in others:
            await other.__aexit__(None, None, None)
    kinds = Counter(type(one) for one in results)
    assert kinds == {Reserved: 11, OutOfBudget: 13}
    send_times = sorted(one.send_us for one in results if isinstance(one, Reserved))
    assert all(b - a >= 1010 for a, b in itertools.pairwise(send_times))


async def test_the_cap_is_met_exactly_by_several_processes(ledger: Ledger, backend: Any) -> None:
    """While a third of the calls turn out free and give their money back."""
    async with team("spend", backend, "abc", cap=40) as workers:
        for worker in workers:
            worker.go_on()
        paid = [await worker.receive() for worker in workers]
    assert sum(paid) == 40 == await used(backend)
    assert await backend.sql("SELECT count(*) FROM attempts WHERE state = 'billed'") == [(40,)]


async def test_the_same_image_at_once_is_sent_once(ledger: Ledger) -> None:
    """Twenty tasks, one call."""
    lease = await opened(ledger)
    results = await asyncio.gather(*(lease.reserve(KEY, HOST, RATE) for _ in range(20)))
    assert Counter(type(one) for one in results) == {Reserved: 1, Busy: 19}


async def test_the_same_image_by_two_accounts_at_once_is_sent_once(ledger: Ledger, backend: Any) -> None:
    """They do not share a rate limit, so nothing but the unique key separates them."""
    leases = [
        await opened(ledger, account, account, scope=Scope("dashscope", account, WAN22_S2V_DETECT))
        for account in "abcd"
    ]
    for n in range(10):
        results = await asyncio.gather(*(lease.reserve(f"{n}", HOST, 1000.0) for lease in leases))
        assert Counter(type(one) for one in results) == {Reserved: 1, Busy: 3}
    assert sum([await used(backend, account) for account in "abcd"]) == 10


async def test_a_cancelled_reservation_leaves_the_balances_right(ledger: Ledger, backend: Any) -> None:
    """A task cancelled in the middle of a statement gives its money back, and blocks no other task."""
    lease = await opened(ledger, cap=1000)
    chance = random.Random(1)  # noqa: S311 - the same delays each time
    for n in range(60):
        task = asyncio.create_task(lease.reserve(f"image-{n}", HOST, 1000.0))
        await asyncio.sleep(chance.uniform(0, 0.006))
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Reserved):  # it was done before
            await lease.settle(f"image-{n}", result.attempt_id, FREE)
    await asyncio.wait_for(send_and_settle(lease, PASSED, "after"), 60)
    charged = "SELECT image_key FROM attempts WHERE state <> 'not_billed'"
    assert await backend.sql(charged) == [("after",)]


# -- lost responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_lost_response", "calls"), [("retry", 2), ("assume-paid", 1)])
async def test_an_image_is_sent_so_often_without_a_response_over_all_runs(
    ledger: Ledger, on_lost_response: OnLostResponse, calls: int
) -> None:
    """Then it is sent no more, and each lost response counts at full price."""
    for n in range(calls):
        await send_and_settle(await opened(ledger, f"run-{n}", on_lost_response=on_lost_response), LOST)
    lease = await opened(ledger, "last", on_lost_response=on_lost_response)
    result = await lease.reserve(KEY, HOST, RATE)
    assert isinstance(result, NotReserved)
    image_status = result.image_status
    assert (image_status.lost, image_status.charges, image_status.calls_run) == (calls, calls * PRICE, 0)
    assert image_status.verdict is None


async def test_a_response_after_a_lost_one_is_kept(ledger: Ledger, backend: Any) -> None:
    """One charge may have been made twice; the ledger says so."""
    lease = await opened(ledger)
    await send_and_settle(lease, LOST)
    await send_and_settle(lease, PASSED)
    image_status = (await lease.image_statuses([KEY]))[KEY]
    assert (image_status.charges, image_status.lost, image_status.calls_run) == (2 * PRICE, 1, 2)
    assert image_status.verdict is not None
    assert not image_status.is_exhausted("retry")
