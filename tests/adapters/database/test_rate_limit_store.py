"""The rate limit of an account on SQLite and on a real PostgreSQL: every send time once, and apart."""

# ruff: noqa: S608 - statements are put together from this file's own words

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ledger_cases import (
    HOST,
    LOST,
    NO_HUMAN,
    PASSED,
    RATE,
    THROTTLED,
    opened,
    reserved,
    send_and_settle,
    states,
    team,
    used,
)

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.ledger import Busy, NotReserved, OutOfBudget, Reserved, Scope
from s2v_tasks.models import WAN22_S2V_DETECT


async def test_a_send_time_is_on_the_local_clock(ledger: Ledger) -> None:
    """Whichever clock it uses: the first call may be sent now, the second a fifth of a second later."""
    lease, clock = await opened(ledger), SystemClock()
    times = [clock.monotonic()]
    calls = []
    for key in "ab":
        calls.append(await reserved(lease, key))
        times.append(clock.monotonic())
    first, second = calls
    took_s = times[2] - times[0]
    assert times[0] - 0.01 <= first.at_s <= times[1] + 0.01
    # On a busy machine the second may be requested when its turn is over: then its send time is later.
    spacing_s = (second.send_us - first.send_us) / 1e6
    assert 0.202 <= spacing_s <= 0.202 + took_s
    # Each transaction reads both clocks at some time between its begin and its end.
    assert second.at_s - first.at_s == pytest.approx(spacing_s, abs=took_s + 0.01)


async def test_many_calls_at_once_go_together_and_keep_every_rule(ledger: Ledger, backend: Any) -> None:
    """Fifty at once: neither a known one nor the same twice, not one over the cap, all send times apart."""
    lease = await opened(ledger, cap=31)
    await send_and_settle(lease, PASSED, "0")
    keys = [str(n) for n in range(50)] + ["7"]
    results = await asyncio.gather(*(lease.reserve(key, HOST, RATE) for key in keys))
    calls = {key: result for key, result in zip(keys, results, strict=True) if isinstance(result, Reserved)}
    kinds = Counter(type(result) for result in results)
    assert kinds == {Reserved: 30, NotReserved: 1, Busy: 1, OutOfBudget: 19}
    assert not any(result.final for result in results if isinstance(result, OutOfBudget))
    send_times = sorted(call.send_us for call in calls.values())
    assert {later - earlier for earlier, later in itertools.pairwise(send_times)} == {202_000}
    responses = itertools.cycle([PASSED, NO_HUMAN, LOST])
    settled = {key: next(responses) for key in calls}
    await asyncio.gather(
        *(lease.settle(key, calls[key].attempt_id, response) for key, response in settled.items())
    )
    for key, response in settled.items():
        assert await states(backend, key) == [response.billing.value]
    assert await used(backend) == 31 - sum(response is NO_HUMAN for response in settled.values())
    image_statuses = await lease.image_statuses(list(settled))
    assert {key for key, image_status in image_statuses.items() if image_status.verdict} == {
        key for key, response in settled.items() if response is not LOST
    }


async def test_one_second_charge_among_many_responses_spoils_no_other(ledger: Ledger, backend: Any) -> None:
    """Two responses for one image come in the same moment as others: one is known, one stays unknown."""
    lease = await opened(ledger)
    first = await send_and_settle(lease, LOST, "twice")
    second = await reserved(lease, "twice")
    others = [await reserved(lease, key) for key in "abc"]
    await asyncio.gather(
        *(lease.settle(key, call.attempt_id, PASSED) for key, call in zip("abc", others, strict=True)),
        lease.settle("twice", first, PASSED),
        lease.settle("twice", second.attempt_id, PASSED),
    )
    assert sorted(await states(backend, "twice")) == ["billed", "unknown"]
    assert [await states(backend, key) for key in "abc"] == [["billed"]] * 3


@pytest.mark.parametrize("jump_s", [-3600, -20, 3600])
async def test_a_database_whose_clock_is_set_neither_stalls_nor_bursts(
    new_postgresql: Callable[[], Any], jump_s: int
) -> None:
    """The send times go on as before on the local clock: an interval apart, at most a moment away."""
    backend = await new_postgresql()
    ((database,),) = await backend.sql("SELECT current_database()")
    now = "SELECT pg_catalog.clock_timestamp() + ahead FROM set_clock.ahead"
    for statement in (
        "CREATE SCHEMA set_clock",
        "CREATE TABLE set_clock.ahead AS SELECT interval '0 s' AS ahead",
        f"CREATE FUNCTION set_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS '{now}'",
        f"ALTER DATABASE {database} SET search_path = set_clock, pg_catalog, public",
    ):
        await backend.sql(statement)
    async with Ledger(backend.url, clock := SystemClock()) as ledger:
        lease = await opened(ledger)
        before = [await reserved(lease, f"before-{n}") for n in range(5)]
        await backend.sql(f"UPDATE set_clock.ahead SET ahead = interval '{jump_s} s'")
        await lease.heartbeat()
        after = [await reserved(lease, f"after-{n}") for n in range(5)]
    assert after[-1].at_s - clock.monotonic() < 10
    apart_s = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(after)]
    assert min(apart_s) > 0.19
    assert jump_s > 0 or after[0].at_s - before[-1].at_s > 0.1  # set back: the distance is kept


async def test_a_missed_send_time_is_moved(ledger: Ledger, backend: Any) -> None:
    """Same attempt, same money, another send time."""
    lease = await opened(ledger)
    first = await reserved(lease, "a")
    second = await reserved(lease, "b")
    moved = await lease.postpone(first, RATE)
    assert moved.attempt_id == first.attempt_id
    assert moved.send_us - second.send_us >= 202_000
    last = await lease.postpone(moved, RATE, lead_s=1.0)
    assert last.send_us >= moved.send_us
    assert await used(backend) == 2


async def test_a_throttle_pauses_every_run_of_the_account_and_no_other_account(
    ledger: Ledger,
) -> None:
    """The pause and the wider margin are in the shared row."""
    first, second = await opened(ledger, "first"), await opened(ledger, "second")
    other = await opened(ledger, "third", scope=Scope("dashscope", "other", WAN22_S2V_DETECT))
    call = await reserved(first, "a")
    await first.slow_down(call.send_us, replace(THROTTLED, retry_after_s=3.0))
    mine, theirs, free = [
        await reserved(lease, key) for lease, key in ((first, "b"), (second, "c"), (other, "d"))
    ]
    assert mine.send_us - call.send_us >= 3_000_000
    assert theirs.send_us - mine.send_us == 203_000
    assert free.send_us - call.send_us < 3_000_000


async def test_no_send_time_is_given_out_twice_by_four_processes(backend: Any) -> None:
    """Four processes reserve as fast as they can: every two send times are an interval apart.

    This is what breaks, without any error, when a writer on SQLite does not begin IMMEDIATE.
    """
    async with team("hammer", backend, "abcd") as workers:
        for worker in workers:
            worker.go_on()
        send_times = sorted(itertools.chain.from_iterable([await worker.receive() for worker in workers]))
    assert len(send_times) > 8
    assert min(later - earlier for earlier, later in itertools.pairwise(send_times)) >= 10_100
    wrong = await backend.sql(
        "SELECT b.used FROM budgets b WHERE b.used <> (SELECT count(*) FROM attempts WHERE state = 'billed')"
    )
    assert wrong == []
