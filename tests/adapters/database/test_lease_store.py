"""Leases on SQLite and on a real PostgreSQL: runs that died, runs that live, and who takes them over."""

# ruff: noqa: S608 - statements are put together from this file's own words

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
import pytest
from ledger_cases import (
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
    silence,
    states,
    used,
    working,
)

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.detect import DetectResponse
from s2v_tasks.domain.ledger import Busy, NotReserved, OutOfBudget, Reserved, State
from s2v_tasks.errors import LeaseLost, LedgerUnavailable, UsageError
from s2v_tasks.models import Outcome


@asynccontextmanager
async def locked(backend: Any) -> AsyncIterator[None]:
    """No other connection can write to the database."""
    if backend.is_sqlite:
        with closing(sqlite3.connect(backend.url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield
    else:
        connection = await asyncpg.connect(backend.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()


async def test_an_image_under_way_in_another_living_run_is_busy(ledger: Ledger, backend: Any) -> None:
    """On this machine or another one."""
    await reserved(await opened(ledger, "first"))
    second = await opened(ledger, "second")
    assert isinstance(await second.reserve(KEY, HOST, RATE), Busy)
    await silence(backend, "first", seconds=13)
    assert isinstance(await second.reserve(KEY, HOST, RATE), Busy)
    assert await used(backend) == 1


async def test_a_killed_process_is_known_to_be_dead_at_once(ledger: Ledger, backend: Any) -> None:
    """Its call counts as a lost response at full price, and the image can be sent once more."""
    async with working("hold", backend, "killed") as worker:
        worker.go_on()
        await worker.receive()
        lease = await opened(ledger)
        assert isinstance(await lease.reserve(KEY, HOST, RATE), Busy)
        await worker.kill()
    await reserved(lease)
    assert await states(backend) == ["unknown", "reserved"]
    assert (await lease.image_statuses([KEY]))[KEY].charges == 2 * PRICE


async def test_a_run_that_opens_frees_what_dead_runs_had_reserved(ledger: Ledger, backend: Any) -> None:
    """Its successor never names those images."""
    async with working("hold", backend, "killed") as worker:
        worker.go_on()
        await worker.receive()
        await worker.kill()
    await opened(ledger)
    assert await states(backend) == ["unknown"]


async def test_under_assume_paid_a_dead_runs_image_is_not_sent_again(ledger: Ledger, backend: Any) -> None:
    """Its response is one lost response."""
    await reserved(await opened(ledger, "first"))
    second = await opened(ledger, "second", on_lost_response="assume-paid")
    await silence(backend, "first")
    assert isinstance(await second.reserve(KEY, HOST, RATE), NotReserved)
    assert await states(backend) == ["unknown"]


@pytest.mark.parametrize("beat_s", [-16.0, 3600.0])
async def test_a_run_that_gave_no_sign_for_15_seconds_is_dead(
    ledger: Ledger, backend: Any, beat_s: float
) -> None:
    """On another machine its process can't be checked; a heartbeat far ahead is from before a restart."""
    await reserved(await opened(ledger, "first"))
    second = await opened(ledger, "second")
    await silence(backend, "first", seconds=-beat_s)
    await reserved(second)
    assert await states(backend) == ["unknown", "reserved"]


async def test_a_beat_a_moment_ahead_is_a_living_runs(ledger: Ledger, backend: Any) -> None:
    """It may be written between another's reading of the clock and of the row."""
    first = await opened(ledger, "first")
    await reserved(first)
    second = await opened(ledger, "second")
    await silence(backend, "first", seconds=-1.0)
    assert isinstance(await second.reserve(KEY, HOST, RATE), Busy)
    with pytest.raises(UsageError):
        await opened(ledger, "first")


async def test_a_beat_keeps_a_run_alive(ledger: Ledger, backend: Any) -> None:
    """However long its call takes."""
    first = await opened(ledger, "first")
    await reserved(first)
    await silence(backend, "first")
    await first.heartbeat()
    second = await opened(ledger, "second")
    assert isinstance(await second.reserve(KEY, HOST, RATE), Busy)


async def test_a_run_held_by_a_living_process_can_not_be_opened(ledger: Ledger, backend: Any) -> None:
    """Two processes on one run would share its folder."""
    async with working("hold", backend, "held") as worker:
        with pytest.raises(UsageError, match="run held is being worked on by process") as caught:
            await opened(ledger, "held")
        assert str(worker.process.pid) in str(caught.value)
        await worker.kill()
    await opened(ledger, "held")


async def test_a_run_that_could_not_store_its_end_is_continued_by_its_process_at_once(
    ledger: Ledger, backend: Any
) -> None:
    """As when a flow is retried in its process, after a stop because the database was unavailable."""
    async with Ledger(backend.url, SystemClock()) as other:
        lease = await opened(other)
        await reserved(lease)
        async with locked(backend):
            other.end_waits_within(0.2)
            with pytest.raises(LedgerUnavailable):
                await lease.close("stopped")
    await reserved(await opened(ledger))
    assert await states(backend) == ["unknown", "reserved"]


async def test_a_continued_run_counts_its_earlier_processes_calls_as_lost(
    ledger: Ledger, backend: Any
) -> None:
    """Same run, same budget: what was under way when it died has no one waiting for it."""
    async with working("hold", backend, "run", cap=2) as worker:
        worker.go_on()
        await worker.receive()
        await worker.kill()
    lease = await opened(ledger, cap=2)
    assert await states(backend) == ["unknown"]
    assert await lease.charges() == {
        State.RESERVED: 0,
        State.BILLED: 0,
        State.NOT_BILLED: 0,
        State.UNKNOWN: PRICE,
    }
    await send_and_settle(lease, PASSED)
    assert await lease.reserve("next", HOST, RATE) == OutOfBudget(final=True)


async def test_a_run_that_was_taken_over_is_fenced(ledger: Ledger, backend: Any) -> None:
    """It can neither reserve, nor postpone, nor renew its lease, and ends nothing of its successor's."""
    old = await opened(ledger)
    call = await reserved(old)
    await silence(backend, "run")
    new = await opened(ledger)
    for fenced in (
        old.reserve("other", HOST, RATE),
        old.postpone(call, RATE),
        old.heartbeat(),
    ):
        with pytest.raises(LeaseLost, match="run run was taken over"):
            await fenced
    await reserved(new, "mine")
    await old.close("stopped")
    assert await states(backend, "mine") == ["reserved"]
    await new.heartbeat()
    assert await used(backend) == 2


@pytest.mark.parametrize(
    ("response", "state", "counts"),
    [(PASSED, "billed", 1), (NO_HUMAN, "not_billed", 0), (LOST, "unknown", 1)],
)
async def test_a_response_is_kept_even_if_its_run_was_taken_over(
    ledger: Ledger, backend: Any, response: DetectResponse, state: str, counts: int
) -> None:
    """It was received and perhaps paid for: lost becomes known, and the successor need not send it."""
    old = await opened(ledger)
    call = await reserved(old)
    await silence(backend, "run")
    new = await opened(ledger)
    await old.settle(KEY, call.attempt_id, response)
    assert (await states(backend), await used(backend)) == ([state], counts)
    result = await new.reserve(KEY, HOST, RATE)
    assert isinstance(result, NotReserved if response.remembered else Reserved)


async def test_a_second_confirmed_charge_stays_unknown(ledger: Ledger, backend: Any) -> None:
    """The late one was first: the later response counts at full price, is not open, and may be looked up."""
    first = await opened(ledger, "first")
    late = await reserved(first)
    await silence(backend, "first")
    second = await opened(ledger, "second", cap=2)
    call = await reserved(second)
    await first.settle(KEY, late.attempt_id, PASSED)
    await second.settle(KEY, call.attempt_id, DetectResponse(**_changed(PASSED, request_id="second")))
    assert await states(backend) == ["billed", "unknown"]
    assert await second.reserve("other", HOST, RATE) == OutOfBudget(final=True)
    assert (await second.image_statuses([KEY]))[KEY].charges == 2 * PRICE
    assert await backend.sql("SELECT request_id FROM attempts ORDER BY id") == [("r",), ("second",)]


async def test_a_late_second_charge_stays_unknown(ledger: Ledger, backend: Any) -> None:
    """The other order: the successor paid first, then the lost response came."""
    first = await opened(ledger, "first")
    late = await reserved(first)
    await silence(backend, "first")
    second = await opened(ledger, "second")
    await send_and_settle(second, PASSED)
    await first.settle(KEY, late.attempt_id, PASSED)
    assert await states(backend) == ["unknown", "billed"]
    verdict = (await second.image_statuses([KEY]))[KEY].verdict_run
    assert verdict == "second"


async def test_a_late_response_does_not_change_what_is_known(ledger: Ledger, backend: Any) -> None:
    """The first verdict stays; the late one was free, so its money comes back."""
    first = await opened(ledger, "first")
    late = await reserved(first)
    await silence(backend, "first")
    second = await opened(ledger, "second")
    await send_and_settle(second, PASSED)
    await first.settle(KEY, late.attempt_id, NO_HUMAN)
    assert (await states(backend), await used(backend)) == (["not_billed", "billed"], 1)
    verdict = (await second.image_statuses([KEY]))[KEY].verdict
    assert verdict is not None
    assert verdict.outcome is Outcome.PASSED


def _changed(response: DetectResponse, **changes: Any) -> dict[str, Any]:
    return {name: getattr(response, name) for name in DetectResponse.__dataclass_fields__} | changes


@pytest.mark.parametrize("state", ["reserved", "billed"])
async def test_the_database_itself_refuses_a_second_one(ledger: Ledger, backend: Any, state: str) -> None:
    """Two open or two confirmed charges for one image are impossible, whichever process writes."""
    row = (
        "INSERT INTO attempts (service, account, model, image_key, host, run_id, budget, state,"
        " price_micro_usd, reserved_at) VALUES"
        f" ('dashscope', 'x', 'wan2.2-s2v-detect', 'new', 'h', 'r', 'x', '{state}', 1, 1)"
    )
    await backend.sql(row)
    with pytest.raises((sqlite3.IntegrityError, asyncpg.UniqueViolationError)):
        await backend.sql(row)


async def test_closing_a_run_counts_what_is_still_out_as_lost(ledger: Ledger, backend: Any) -> None:
    """No process waits for it any more; the run can be opened again at once."""
    lease = await opened(ledger)
    await reserved(lease)
    await lease.close("stopped")
    assert (await states(backend), await used(backend)) == (["unknown"], 1)
    assert await backend.sql("SELECT status FROM runs") == [("stopped",)]
    await opened(ledger)


async def test_a_closed_run_reserves_nothing_more(ledger: Ledger, backend: Any) -> None:
    """A straggler's call would count as lost at once, and be sent again by the next run."""
    lease = await opened(ledger)
    call = await reserved(lease)
    await lease.close("finished")
    with pytest.raises(LeaseLost):
        await lease.reserve("other", HOST, RATE)
    with pytest.raises(LeaseLost):
        await lease.postpone(call, RATE)
    await lease.settle(KEY, call.attempt_id, PASSED)
    assert (await states(backend), await states(backend, "other")) == (["billed"], [])


async def test_what_a_run_left_open_when_it_ended_is_lost(ledger: Ledger, backend: Any) -> None:
    """Whatever its process does now: a run that is not running waits for no response."""
    await reserved(await opened(ledger, "first"))
    second = await opened(ledger, "second")
    await backend.sql("UPDATE runs SET status = 'stopped' WHERE run_id = 'first'")
    await reserved(second)
    assert await states(backend) == ["unknown", "reserved"]
