"""The ledger on SQLite and on a real PostgreSQL: what is reserved, paid, lost and given back."""

# ruff: noqa: S608 - statements are put together from this file's own words

import asyncio
import itertools
import json
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.detect import Answer, Kind, no_answer, read_answer
from s2v_tasks.errors import LeaseLost, LedgerUnavailable, UsageError
from s2v_tasks.ledger import Busy, NotReserved, Reserved, Scope, Spent, State
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, Outcome
from s2v_tasks.settings import OnUnknown

RATE = 5.0
PRICE = 574
SCOPE = Scope("dashscope", "default", WAN22_S2V_DETECT)
HOST = "pictures.example"
SECRET = "sesame"  # noqa: S105 - what must not be seen in a message
KEY = "k" * 32

PASSED = Answer(
    Kind.VERDICT, Billing.BILLED, check_pass=True, humanoid=True, request_id="r", http_status=200,
    remembered=True,
)  # fmt: skip
NO_HUMAN = Answer(
    Kind.VERDICT, Billing.NOT_BILLED, "no_human", False, code="InvalidFile.NoHuman", message="nobody",
    request_id="r", http_status=400, remembered=True,
)  # fmt: skip
FREE = Answer(Kind.TRANSIENT, Billing.NOT_BILLED, "service_error", http_status=500)
LOST = no_answer("no answer (ReadTimeout)", sent=True)
THROTTLED = Answer(Kind.THROTTLED, Billing.NOT_BILLED, "throttled", http_status=429)

WORKER = """
import asyncio, json, sys, time
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.detect import Answer, Kind
from s2v_tasks.ledger import Reserved, Scope, Spent
from s2v_tasks.models import WAN22_S2V_DETECT, Billing

what, url, run_id, budget, cap = sys.argv[1:]
FREE = Answer(Kind.TRANSIENT, Billing.NOT_BILLED)
PASSED = Answer(Kind.VERDICT, Billing.BILLED, check_pass=True, remembered=True)

def say(document):
    print(json.dumps(document), flush=True)

async def hold(ledger, lease):
    reserved = await ledger.reserve(lease, "k" * 32, "pictures.example", 5.0)
    say(reserved.attempt_id)
    sys.stdin.readline()

async def hammer(ledger, lease):
    instants, end, n = [], time.monotonic() + 1.5, 0
    while time.monotonic() < end or n < 15:
        n += 1
        reserved = await ledger.reserve(lease, f"{run_id}-{n}", "pictures.example", 100.0)
        if n % 7 == 0:  # missed: that instant is not used
            reserved = await ledger.postpone(lease, reserved, 100.0)
        instants.append(reserved.instant_us)
        await ledger.settle(lease, f"{run_id}-{n}", reserved.attempt_id, PASSED if n % 2 else FREE)
    say(instants)

async def spend(ledger, lease):
    paid, n = 0, 0
    while True:
        n += 1
        come = await ledger.reserve(lease, f"{run_id}-{n}", "pictures.example", 1000.0)
        if isinstance(come, Spent):
            if come.final:
                return say(paid)
            await asyncio.sleep(0.001)
            continue
        await ledger.settle(lease, f"{run_id}-{n}", come.attempt_id, FREE if n % 3 == 0 else PASSED)
        paid += n % 3 != 0

async def main():
    async with LedgerDatabase(url, SystemClock()) as ledger:
        scope = Scope("dashscope", "default", WAN22_S2V_DETECT)
        lease = await ledger.open_run(run_id, scope, budget, int(cap), "retry")
        say("ready")
        sys.stdin.readline()
        await globals()[what](ledger, lease)

asyncio.run(main())
"""


class Worker:
    """Another process that uses the ledger: it says when it is ready, and goes on when told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hear(self) -> Any:
        """The next thing it says."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        assert line, "the worker died"
        return json.loads(line)

    def go_on(self) -> None:
        """Let it do what it is there for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def working(
    what: str, backend: Any, run_id: str, budget: str = "b", cap: int = 1000
) -> AsyncIterator[Worker]:
    """A worker that has its run open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, what, backend.url, run_id, budget, str(cap),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    worker = Worker(process)
    try:
        assert await worker.hear() == "ready"
        yield worker
    finally:
        if process.returncode is None:
            await worker.kill()


@asynccontextmanager
async def team(what: str, backend: Any, runs: str, cap: int = 1000) -> AsyncIterator[list[Worker]]:
    """Several workers at once, one for each letter."""
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(
            *(stack.enter_async_context(working(what, backend, run_id, cap=cap)) for run_id in runs)
        )


async def opened(
    ledger: LedgerDatabase,
    run_id: str = "run",
    budget: str = "b",
    cap: int = 100,
    on_unknown: OnUnknown = "retry",
    scope: Scope = SCOPE,
) -> Lease:
    return await ledger.open_run(run_id, scope, budget, cap, on_unknown)


async def reserved(ledger: LedgerDatabase, lease: Lease, key: str = KEY) -> Reserved:
    come = await ledger.reserve(lease, key, HOST, RATE)
    assert isinstance(come, Reserved), come
    return come


async def asked(ledger: LedgerDatabase, lease: Lease, answer: Answer, key: str = KEY) -> int:
    """One whole call."""
    attempt_id = (await reserved(ledger, lease, key)).attempt_id
    await ledger.settle(lease, key, attempt_id, answer)
    return attempt_id


async def silence(backend: Any, run_id: str, seconds: float = 16.0) -> None:
    """As if a run had given no sign of life for so long; it is on another machine."""
    await backend.sql(
        f"UPDATE runs SET beat_us = beat_us - {round(seconds * 1e6)}, host = 'elsewhere'"
        f" WHERE run_id = '{run_id}'"
    )


async def states(backend: Any, key: str = KEY) -> list[str]:
    rows = await backend.sql(f"SELECT state FROM attempts WHERE image_key = '{key}' ORDER BY id")
    return [state for (state,) in rows]


async def used(backend: Any, budget: str = "b") -> int:
    ((used,),) = await backend.sql(f"SELECT used FROM budgets WHERE name = '{budget}'")
    assert isinstance(used, int)
    return used


# -- one call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state", "counts"),
    [
        (PASSED, "billed", 1),
        (FREE, "not_billed", 0),
        (NO_HUMAN, "not_billed", 0),
        (LOST, "unknown", 1),
    ],
)
async def test_an_answer_settles_its_reservation(
    ledger: LedgerDatabase, backend: Any, answer: Answer, state: str, counts: int
) -> None:
    """Reserved money counts at once; what turns out free is given back."""
    lease = await opened(ledger)
    call = await reserved(ledger, lease)
    assert (await states(backend), await used(backend)) == (["reserved"], 1)
    await ledger.settle(lease, KEY, call.attempt_id, answer)
    assert (await states(backend), await used(backend)) == ([state], counts)


async def test_settling_twice_changes_nothing(ledger: LedgerDatabase, backend: Any) -> None:
    """A known answer is final: no money is given back twice, and no charge is taken back."""
    lease = await opened(ledger)
    free = await asked(ledger, lease, FREE, "free")
    await ledger.settle(lease, "free", free, FREE)
    billed = await asked(ledger, lease, PASSED, "billed")
    await ledger.settle(lease, "billed", billed, FREE)
    await ledger.settle(lease, "billed", billed, LOST)
    assert (await states(backend, "free"), await states(backend, "billed")) == (["not_billed"], ["billed"])
    assert await used(backend) == 1


async def test_a_known_picture_is_not_asked_again(ledger: LedgerDatabase) -> None:
    """By no later run, and its verdict comes back as it was given."""
    await asked(ledger, await opened(ledger, "first"), NO_HUMAN)
    come = await ledger.reserve(await opened(ledger, "second"), KEY, HOST, RATE)
    assert isinstance(come, NotReserved)
    verdict = come.standing.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.reason, verdict.check_pass) == (Outcome.FAILED, "no_human", False)
    assert (verdict.code, verdict.message, verdict.http_status) == ("InvalidFile.NoHuman", "nobody", 400)
    assert (verdict.request_id, verdict.billing) == ("r", Billing.NOT_BILLED)
    assert verdict.judged_at is not None
    assert abs((SystemClock().utcnow() - verdict.judged_at).total_seconds()) < 30
    assert come.standing.verdict_run == "first"


async def test_an_error_is_not_remembered(ledger: LedgerDatabase) -> None:
    """An expired signature must not poison the picture."""
    lease = await opened(ledger)
    await asked(ledger, lease, FREE)
    assert isinstance(await ledger.reserve(lease, KEY, HOST, RATE), Reserved)


async def test_whatever_a_vendor_writes_can_be_kept(ledger: LedgerDatabase) -> None:
    """Half characters, NUL and emoji: an answer that was paid for is not lost over its message."""
    lease = await opened(ledger)
    body = (
        rb'{"output": {"check_pass": false, "message": "\u0000 \ud83d \ud83d\ude00"}, "request_id": "\u0000"}'
    )
    await asked(ledger, lease, read_answer(WAN22_S2V_DETECT, 200, {}, body))
    verdict = (await ledger.standings(lease, [KEY]))[KEY].verdict
    assert verdict is not None
    assert verdict.message == "? ? 😀"


async def test_verdicts_of_one_service_are_nothing_to_another(ledger: LedgerDatabase) -> None:
    """What an emulator said is never used as a real verdict."""
    await asked(ledger, await opened(ledger, "first"), PASSED)
    other = await opened(ledger, "second", scope=Scope("http://127.0.0.1:1", "default", WAN22_S2V_DETECT))
    assert (await ledger.standings(other, [KEY]))[KEY].verdict is None
    assert isinstance(await ledger.reserve(other, KEY, HOST, RATE), Reserved)


async def test_verdicts_are_shared_by_the_accounts_of_a_service(ledger: LedgerDatabase) -> None:
    """A picture that one account paid for is known to the other."""
    await asked(ledger, await opened(ledger, "first"), PASSED)
    other = await opened(ledger, "second", scope=Scope("dashscope", "other", WAN22_S2V_DETECT))
    assert isinstance(await ledger.reserve(other, KEY, HOST, RATE), NotReserved)


# -- the budget ----------------------------------------------------------------------------------------


async def test_what_is_under_way_may_still_turn_out_free(ledger: LedgerDatabase) -> None:
    """A used-up budget is final only once nothing is under way."""
    lease = await opened(ledger, cap=2)
    await asked(ledger, lease, PASSED, "one")
    call = await reserved(ledger, lease, "two")
    assert await ledger.reserve(lease, "three", HOST, RATE) == Spent(final=False)
    await ledger.settle(lease, "two", call.attempt_id, FREE)
    await asked(ledger, lease, LOST, "three")
    assert await ledger.reserve(lease, "four", HOST, RATE) == Spent(final=True)


async def test_a_dead_run_does_not_keep_a_shared_budget_open(ledger: LedgerDatabase, backend: Any) -> None:
    """Its call will never turn out free: waiting for it would be waiting for ever."""
    async with working("hold", backend, "dead", cap=2) as worker:
        worker.go_on()
        await worker.hear()
        lease = await opened(ledger, cap=2)
        await asked(ledger, lease, PASSED, "one")
        assert await ledger.reserve(lease, "two", HOST, RATE) == Spent(final=False)
        await worker.kill()
    assert await ledger.reserve(lease, "two", HOST, RATE) == Spent(final=True)
    assert await states(backend) == ["unknown"]


async def test_a_shared_budget_is_capped_as_the_last_run_says(ledger: LedgerDatabase) -> None:
    """Raised, it buys more; lowered below what is used, it buys nothing."""
    first = await opened(ledger, "first", budget="shared", cap=1)
    await asked(ledger, first, PASSED, "one")
    assert await ledger.reserve(first, "two", HOST, RATE) == Spent(final=True)
    second = await opened(ledger, "second", budget="shared", cap=2)
    await asked(ledger, first, PASSED, "two")
    assert await ledger.reserve(second, "three", HOST, RATE) == Spent(final=True)
    await opened(ledger, "third", budget="shared", cap=1)
    assert await ledger.reserve(first, "three", HOST, RATE) == Spent(final=True)


async def test_budgets_are_apart(ledger: LedgerDatabase) -> None:
    """A run's budget is its own unless it is shared by name."""
    first, second = await opened(ledger, "1", "one", 1), await opened(ledger, "2", "two", 1)
    await asked(ledger, first, PASSED, "one")
    await asked(ledger, second, PASSED, "two")
    assert await ledger.reserve(first, "three", HOST, RATE) == Spent(final=True)


async def test_the_cap_is_met_exactly_by_many_at_once(ledger: LedgerDatabase, backend: Any) -> None:
    """Two dozen pictures at once through four doors to the database, and a budget of eleven."""
    lease = await opened(ledger, cap=11)
    others = [LedgerDatabase(backend.url, SystemClock()) for _ in range(3)]
    try:
        doors = [ledger, *[await other.__aenter__() for other in others]]
        come = await asyncio.gather(
            *(doors[n % 4].reserve(lease, f"picture-{n}", HOST, 1000.0) for n in range(24))
        )
    finally:
        for other in others:
            await other.__aexit__(None, None, None)
    kinds = Counter(type(one) for one in come)
    assert kinds == {Reserved: 11, Spent: 13}
    instants = sorted(one.instant_us for one in come if isinstance(one, Reserved))
    assert all(b - a >= 1010 for a, b in itertools.pairwise(instants))


async def test_the_cap_is_met_exactly_by_several_processes(ledger: LedgerDatabase, backend: Any) -> None:
    """While a third of the calls turn out free and give their money back."""
    async with team("spend", backend, "abc", cap=40) as workers:
        for worker in workers:
            worker.go_on()
        paid = [await worker.hear() for worker in workers]
    assert sum(paid) == 40 == await used(backend)
    assert await backend.sql("SELECT count(*) FROM attempts WHERE state = 'billed'") == [(40,)]


async def test_the_same_picture_at_once_is_asked_once(ledger: LedgerDatabase) -> None:
    """Twenty tasks, one call."""
    lease = await opened(ledger)
    come = await asyncio.gather(*(ledger.reserve(lease, KEY, HOST, RATE) for _ in range(20)))
    assert Counter(type(one) for one in come) == {Reserved: 1, Busy: 19}


async def test_the_same_picture_by_two_accounts_at_once_is_asked_once(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """They do not share a pace, so nothing but the unique key stands between them."""
    leases = [
        await opened(ledger, account, account, scope=Scope("dashscope", account, WAN22_S2V_DETECT))
        for account in "abcd"
    ]
    for n in range(10):
        come = await asyncio.gather(*(ledger.reserve(lease, f"{n}", HOST, 1000.0) for lease in leases))
        assert Counter(type(one) for one in come) == {Reserved: 1, Busy: 3}
    assert sum([await used(backend, account) for account in "abcd"]) == 10


async def test_a_cancelled_reservation_leaves_the_books_right(ledger: LedgerDatabase, backend: Any) -> None:
    """A task cancelled in the middle of a statement gives its money back, and locks nobody out."""
    lease = await opened(ledger, cap=1000)
    chance = random.Random(1)  # noqa: S311 - the same delays each time
    for n in range(60):
        task = asyncio.create_task(ledger.reserve(lease, f"picture-{n}", HOST, 1000.0))
        await asyncio.sleep(chance.uniform(0, 0.006))
        task.cancel()
        (come,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(come, Reserved):  # it was done before
            await ledger.settle(lease, f"picture-{n}", come.attempt_id, FREE)
    await asyncio.wait_for(asked(ledger, lease, PASSED, "after"), 5)
    charged = "SELECT image_key FROM attempts WHERE state <> 'not_billed'"
    assert await backend.sql(charged) == [("after",)]


# -- lost answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_unknown", "asks"), [("retry", 2), ("assume-paid", 1)])
async def test_a_picture_is_asked_so_often_without_an_answer_over_all_runs(
    ledger: LedgerDatabase, on_unknown: OnUnknown, asks: int
) -> None:
    """Then it is asked no more, and each lost answer counts at full price."""
    for n in range(asks):
        await asked(ledger, await opened(ledger, f"run-{n}", on_unknown=on_unknown), LOST)
    lease = await opened(ledger, "last", on_unknown=on_unknown)
    come = await ledger.reserve(lease, KEY, HOST, RATE)
    assert isinstance(come, NotReserved)
    standing = come.standing
    assert (standing.lost, standing.charges, standing.calls_run) == (asks, asks * PRICE, 0)
    assert standing.verdict is None


async def test_an_answer_after_a_lost_one_is_kept(ledger: LedgerDatabase, backend: Any) -> None:
    """One charge may have been made twice; the ledger says so."""
    lease = await opened(ledger)
    await asked(ledger, lease, LOST)
    await asked(ledger, lease, PASSED)
    standing = (await ledger.standings(lease, [KEY]))[KEY]
    assert (standing.charges, standing.lost, standing.calls_run) == (2 * PRICE, 1, 2)
    assert standing.verdict is not None
    assert not standing.is_exhausted("retry")


# -- dead and living runs ------------------------------------------------------------------------------


async def test_a_picture_under_way_in_another_living_run_is_busy(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """On this machine or another one."""
    await reserved(ledger, await opened(ledger, "first"))
    second = await opened(ledger, "second")
    assert isinstance(await ledger.reserve(second, KEY, HOST, RATE), Busy)
    await silence(backend, "first", seconds=13)
    assert isinstance(await ledger.reserve(second, KEY, HOST, RATE), Busy)
    assert await used(backend) == 1


async def test_a_killed_process_is_known_to_be_dead_at_once(ledger: LedgerDatabase, backend: Any) -> None:
    """Its call counts as a lost answer at full price, and the picture can be asked once more."""
    async with working("hold", backend, "killed") as worker:
        worker.go_on()
        await worker.hear()
        lease = await opened(ledger)
        assert isinstance(await ledger.reserve(lease, KEY, HOST, RATE), Busy)
        await worker.kill()
    await reserved(ledger, lease)
    assert await states(backend) == ["unknown", "reserved"]
    assert (await ledger.standings(lease, [KEY]))[KEY].charges == 2 * PRICE


async def test_a_run_that_opens_frees_what_dead_runs_had_reserved(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """Without being asked about those pictures."""
    async with working("hold", backend, "killed") as worker:
        worker.go_on()
        await worker.hear()
        await worker.kill()
    await opened(ledger)
    assert await states(backend) == ["unknown"]


async def test_under_assume_paid_a_dead_runs_picture_is_not_asked_again(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """Its answer is one lost answer."""
    await reserved(ledger, await opened(ledger, "first"))
    second = await opened(ledger, "second", on_unknown="assume-paid")
    await silence(backend, "first")
    assert isinstance(await ledger.reserve(second, KEY, HOST, RATE), NotReserved)
    assert await states(backend) == ["unknown"]


@pytest.mark.parametrize("beat_s", [-16.0, 3600.0])
async def test_a_run_that_gave_no_sign_for_15_seconds_is_dead(
    ledger: LedgerDatabase, backend: Any, beat_s: float
) -> None:
    """On another machine its process can't be looked at; a beat from far ahead is from before a restart."""
    await reserved(ledger, await opened(ledger, "first"))
    second = await opened(ledger, "second")
    await silence(backend, "first", seconds=-beat_s)
    await reserved(ledger, second)
    assert await states(backend) == ["unknown", "reserved"]


async def test_a_beat_a_moment_ahead_is_a_living_runs(ledger: LedgerDatabase, backend: Any) -> None:
    """It may be written between another's look at the clock and its look at the row."""
    first = await opened(ledger, "first")
    await reserved(ledger, first)
    second = await opened(ledger, "second")
    await silence(backend, "first", seconds=-1.0)
    assert isinstance(await ledger.reserve(second, KEY, HOST, RATE), Busy)
    with pytest.raises(UsageError):
        await opened(ledger, "first")


async def test_a_beat_keeps_a_run_alive(ledger: LedgerDatabase, backend: Any) -> None:
    """However long its call takes."""
    first = await opened(ledger, "first")
    await reserved(ledger, first)
    await silence(backend, "first")
    await ledger.beat(first)
    second = await opened(ledger, "second")
    assert isinstance(await ledger.reserve(second, KEY, HOST, RATE), Busy)


async def test_a_run_held_by_a_living_process_can_not_be_opened(ledger: LedgerDatabase, backend: Any) -> None:
    """Two processes on one run would share its folder."""
    async with working("hold", backend, "held") as worker:
        with pytest.raises(UsageError, match="run held is being worked on by process") as caught:
            await opened(ledger, "held")
        assert str(worker.process.pid) in str(caught.value)
        await worker.kill()
    await opened(ledger, "held")


async def test_a_continued_run_counts_its_former_lifes_calls_as_lost(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """Same run, same budget: what was under way when it died has no one waiting for it."""
    async with working("hold", backend, "run", cap=2) as worker:
        worker.go_on()
        await worker.hear()
        await worker.kill()
    lease = await opened(ledger, cap=2)
    assert await states(backend) == ["unknown"]
    assert await ledger.charges(lease) == {
        State.RESERVED: 0,
        State.BILLED: 0,
        State.NOT_BILLED: 0,
        State.UNKNOWN: PRICE,
    }
    await asked(ledger, lease, PASSED)
    assert await ledger.reserve(lease, "next", HOST, RATE) == Spent(final=True)


async def test_a_run_that_was_taken_over_is_fenced(ledger: LedgerDatabase, backend: Any) -> None:
    """It can neither reserve nor move an instant nor beat, and ends nothing of its successor's."""
    old = await opened(ledger)
    call = await reserved(ledger, old)
    await silence(backend, "run")
    new = await opened(ledger)
    for fenced in (
        ledger.reserve(old, "other", HOST, RATE),
        ledger.postpone(old, call, RATE),
        ledger.beat(old),
    ):
        with pytest.raises(LeaseLost, match="run run was taken over"):
            await fenced
    await reserved(ledger, new, "mine")
    await ledger.close_run(old, "stopped")
    assert await states(backend, "mine") == ["reserved"]
    await ledger.beat(new)
    assert await used(backend) == 2


@pytest.mark.parametrize(
    ("answer", "state", "counts"), [(PASSED, "billed", 1), (NO_HUMAN, "not_billed", 0), (LOST, "unknown", 1)]
)
async def test_an_answer_is_kept_even_if_its_run_was_taken_over(
    ledger: LedgerDatabase, backend: Any, answer: Answer, state: str, counts: int
) -> None:
    """It was received and perhaps paid for: lost becomes known, and the successor need not ask."""
    old = await opened(ledger)
    call = await reserved(ledger, old)
    await silence(backend, "run")
    new = await opened(ledger)
    await ledger.settle(old, KEY, call.attempt_id, answer)
    assert (await states(backend), await used(backend)) == ([state], counts)
    come = await ledger.reserve(new, KEY, HOST, RATE)
    assert isinstance(come, NotReserved if answer.remembered else Reserved)


async def test_a_second_known_charge_stays_unknown(ledger: LedgerDatabase, backend: Any) -> None:
    """The late one was first: the later answer counts at full price, is not open, and may be looked up."""
    first = await opened(ledger, "first")
    late = await reserved(ledger, first)
    await silence(backend, "first")
    second = await opened(ledger, "second", cap=2)
    call = await reserved(ledger, second)
    await ledger.settle(first, KEY, late.attempt_id, PASSED)
    await ledger.settle(second, KEY, call.attempt_id, Answer(**_changed(PASSED, request_id="second")))
    assert await states(backend) == ["billed", "unknown"]
    assert await ledger.reserve(second, "other", HOST, RATE) == Spent(final=True)
    assert (await ledger.standings(second, [KEY]))[KEY].charges == 2 * PRICE
    assert await backend.sql("SELECT request_id FROM attempts ORDER BY id") == [("r",), ("second",)]


async def test_a_late_second_charge_stays_unknown(ledger: LedgerDatabase, backend: Any) -> None:
    """The other order: the successor paid first, then the lost answer came."""
    first = await opened(ledger, "first")
    late = await reserved(ledger, first)
    await silence(backend, "first")
    second = await opened(ledger, "second")
    await asked(ledger, second, PASSED)
    await ledger.settle(first, KEY, late.attempt_id, PASSED)
    assert await states(backend) == ["unknown", "billed"]
    verdict = (await ledger.standings(second, [KEY]))[KEY].verdict_run
    assert verdict == "second"


async def test_a_late_answer_does_not_change_what_is_known(ledger: LedgerDatabase, backend: Any) -> None:
    """The first verdict stays; the late one was free, so its money comes back."""
    first = await opened(ledger, "first")
    late = await reserved(ledger, first)
    await silence(backend, "first")
    second = await opened(ledger, "second")
    await asked(ledger, second, PASSED)
    await ledger.settle(first, KEY, late.attempt_id, NO_HUMAN)
    assert (await states(backend), await used(backend)) == (["not_billed", "billed"], 1)
    verdict = (await ledger.standings(second, [KEY]))[KEY].verdict
    assert verdict is not None
    assert verdict.outcome is Outcome.PASSED


def _changed(answer: Answer, **changes: Any) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__dataclass_fields__} | changes


@pytest.mark.parametrize("state", ["reserved", "billed"])
async def test_the_database_itself_refuses_a_second_one(
    ledger: LedgerDatabase, backend: Any, state: str
) -> None:
    """Two open or two known charges for one picture are impossible, whoever writes."""
    row = (
        "INSERT INTO attempts (service, account, model, image_key, host, run_id, budget, state,"
        " price_micro_usd, reserved_at) VALUES"
        f" ('dashscope', 'x', 'wan2.2-s2v-detect', 'new', 'h', 'r', 'x', '{state}', 1, 1)"
    )
    await backend.sql(row)
    with pytest.raises((sqlite3.IntegrityError, asyncpg.UniqueViolationError)):
        await backend.sql(row)


async def test_closing_a_run_counts_what_is_still_out_as_lost(ledger: LedgerDatabase, backend: Any) -> None:
    """Nobody waits for it any more; the run can be opened again at once."""
    lease = await opened(ledger)
    await reserved(ledger, lease)
    await ledger.close_run(lease, "stopped")
    assert (await states(backend), await used(backend)) == (["unknown"], 1)
    assert await backend.sql("SELECT status FROM runs") == [("stopped",)]
    await opened(ledger)


async def test_a_closed_run_asks_nothing_more(ledger: LedgerDatabase, backend: Any) -> None:
    """A straggler's call would count as lost at once, and be asked again by the next run."""
    lease = await opened(ledger)
    call = await reserved(ledger, lease)
    await ledger.close_run(lease, "finished")
    with pytest.raises(LeaseLost):
        await ledger.reserve(lease, "other", HOST, RATE)
    with pytest.raises(LeaseLost):
        await ledger.postpone(lease, call, RATE)
    await ledger.settle(lease, KEY, call.attempt_id, PASSED)
    assert (await states(backend), await states(backend, "other")) == (["billed"], [])


async def test_what_a_run_left_open_when_it_ended_is_lost(ledger: LedgerDatabase, backend: Any) -> None:
    """Whatever its process does now: a run that is not running waits for no answer."""
    await reserved(ledger, await opened(ledger, "first"))
    second = await opened(ledger, "second")
    await backend.sql("UPDATE runs SET status = 'stopped' WHERE run_id = 'first'")
    await reserved(ledger, second)
    assert await states(backend) == ["unknown", "reserved"]


# -- what is known -------------------------------------------------------------------------------------


async def test_standings_tell_this_runs_calls_from_all(ledger: LedgerDatabase) -> None:
    """Attempts and charges of this run, charges and losses of everyone, and pictures never heard of."""
    first, second = await opened(ledger, "first"), await opened(ledger, "second")
    await asked(ledger, first, LOST, "a")
    await asked(ledger, second, FREE, "a")
    await asked(ledger, second, PASSED, "a")
    await reserved(ledger, second, "b")
    standings = await ledger.standings(second, ["a", "b", "c"])
    a, b, c = standings["a"], standings["b"], standings["c"]
    assert list(standings) == ["a", "b", "c"]
    assert (a.calls_run, a.charges_run, a.charges, a.lost) == (2, PRICE, 2 * PRICE, 1)
    assert (b.calls_run, b.charges_run, b.charges, b.lost) == (1, PRICE, PRICE, 0)
    assert (c.calls_run, c.charges_run, c.charges, c.lost, c.verdict) == (0, 0, 0, 0, None)
    assert await ledger.standings(second, []) == {}


async def test_standings_of_ten_thousand_pictures_come_at_once(ledger: LedgerDatabase) -> None:
    """The largest shard there is."""
    lease = await opened(ledger)
    await asked(ledger, lease, PASSED, "1")
    standings = await ledger.standings(lease, [str(n) for n in range(10_000)])
    assert len(standings) == 10_000
    assert standings["1"].verdict is not None


async def test_charges_are_this_runs_by_state(ledger: LedgerDatabase) -> None:
    """To the micro-dollar, other runs left out."""
    await asked(ledger, await opened(ledger, "other"), PASSED, "x")
    lease = await opened(ledger)
    assert set((await ledger.charges(lease)).values()) == {0}
    await asked(ledger, lease, PASSED, "a")
    await asked(ledger, lease, PASSED, "b")
    await asked(ledger, lease, FREE, "c")
    await asked(ledger, lease, LOST, "d")
    await reserved(ledger, lease, "e")
    charges = await ledger.charges(lease)
    assert charges[State.BILLED] == 2 * PRICE
    assert charges[State.UNKNOWN] == charges[State.RESERVED] == PRICE


# -- the pace ------------------------------------------------------------------------------------------


async def test_an_instant_is_told_on_the_local_clock(ledger: LedgerDatabase) -> None:
    """Whoever's clock the ledger uses: the first call may leave now, the second a fifth of a second later."""
    lease, clock = await opened(ledger), SystemClock()
    before = clock.monotonic()
    first, second = await reserved(ledger, lease, "a"), await reserved(ledger, lease, "b")
    assert before - 0.1 <= first.at_s <= clock.monotonic() + 0.1
    assert second.instant_us - first.instant_us == 202_000
    assert second.at_s - first.at_s == pytest.approx(0.202, abs=0.1)


async def test_many_calls_at_once_go_together_and_keep_every_rule(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """Fifty at once: neither a known one nor the same twice, not one over the cap, all instants apart."""
    lease = await opened(ledger, cap=31)
    await asked(ledger, lease, PASSED, "0")
    keys = [str(n) for n in range(50)] + ["7"]
    came = await asyncio.gather(*(ledger.reserve(lease, key, HOST, RATE) for key in keys))
    calls = {key: come for key, come in zip(keys, came, strict=True) if isinstance(come, Reserved)}
    kinds = Counter(type(come) for come in came)
    assert kinds == {Reserved: 30, NotReserved: 1, Busy: 1, Spent: 19}
    assert not any(come.final for come in came if isinstance(come, Spent))
    instants = sorted(call.instant_us for call in calls.values())
    assert {later - earlier for earlier, later in itertools.pairwise(instants)} == {202_000}
    answers = itertools.cycle([PASSED, NO_HUMAN, LOST])
    settled = {key: next(answers) for key in calls}
    await asyncio.gather(
        *(ledger.settle(lease, key, calls[key].attempt_id, answer) for key, answer in settled.items())
    )
    for key, answer in settled.items():
        assert await states(backend, key) == [answer.billing.value]
    assert await used(backend) == 31 - sum(answer is NO_HUMAN for answer in settled.values())
    standings = await ledger.standings(lease, list(settled))
    assert {key for key, standing in standings.items() if standing.verdict} == {
        key for key, answer in settled.items() if answer is not LOST
    }


async def test_one_second_charge_among_many_answers_spoils_no_other(
    ledger: LedgerDatabase, backend: Any
) -> None:
    """Two answers for one picture come in the same moment as others: one is known, one stays unknown."""
    lease = await opened(ledger)
    first = await asked(ledger, lease, LOST, "twice")
    second = await reserved(ledger, lease, "twice")
    others = [await reserved(ledger, lease, key) for key in "abc"]
    await asyncio.gather(
        *(
            ledger.settle(lease, key, call.attempt_id, PASSED)
            for key, call in zip("abc", others, strict=True)
        ),
        ledger.settle(lease, "twice", first, PASSED),
        ledger.settle(lease, "twice", second.attempt_id, PASSED),
    )
    assert sorted(await states(backend, "twice")) == ["billed", "unknown"]
    assert [await states(backend, key) for key in "abc"] == [["billed"]] * 3


@pytest.mark.parametrize("jump_s", [-3600, -20, 3600])
async def test_a_database_whose_clock_is_set_neither_stalls_nor_bursts(
    new_postgresql: Callable[[], Any], jump_s: int
) -> None:
    """The instants go on as before on the local clock: an interval apart, at most a moment away."""
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
    async with LedgerDatabase(backend.url, clock := SystemClock()) as ledger:
        lease = await opened(ledger)
        before = [await reserved(ledger, lease, f"before-{n}") for n in range(5)]
        await backend.sql(f"UPDATE set_clock.ahead SET ahead = interval '{jump_s} s'")
        await ledger.beat(lease)
        after = [await reserved(ledger, lease, f"after-{n}") for n in range(5)]
    assert after[-1].at_s - clock.monotonic() < 2.5
    apart_s = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(after)]
    assert min(apart_s) > 0.19
    assert jump_s > 0 or after[0].at_s - before[-1].at_s > 0.1  # set back: the distance is kept


async def test_a_missed_instant_is_moved(ledger: LedgerDatabase, backend: Any) -> None:
    """Same attempt, same money, another instant."""
    lease = await opened(ledger)
    first = await reserved(ledger, lease, "a")
    second = await reserved(ledger, lease, "b")
    moved = await ledger.postpone(lease, first, RATE)
    assert moved.attempt_id == first.attempt_id
    assert moved.instant_us - second.instant_us >= 202_000
    last = await ledger.postpone(lease, moved, RATE, lead_s=1.0)
    assert last.instant_us >= moved.instant_us
    assert await used(backend) == 2


async def test_a_throttle_pauses_every_run_of_the_account_and_no_other_account(
    ledger: LedgerDatabase,
) -> None:
    """The pause and the wider margin are in the shared row."""
    first, second = await opened(ledger, "first"), await opened(ledger, "second")
    other = await opened(ledger, "third", scope=Scope("dashscope", "other", WAN22_S2V_DETECT))
    call = await reserved(ledger, first, "a")
    await ledger.slow_down(first, call.instant_us, replace(THROTTLED, retry_after_s=3.0))
    mine, theirs, free = [
        await reserved(ledger, lease, key) for lease, key in ((first, "b"), (second, "c"), (other, "d"))
    ]
    assert mine.instant_us - call.instant_us >= 3_000_000
    assert theirs.instant_us - mine.instant_us == 203_000
    assert free.instant_us - call.instant_us < 3_000_000


async def test_no_instant_is_given_out_twice_by_four_processes(backend: Any) -> None:
    """Four processes reserve as fast as they can: every two instants are an interval apart.

    This is what breaks, without any error, when a writer on SQLite does not begin IMMEDIATE.
    """
    async with team("hammer", backend, "abcd") as workers:
        for worker in workers:
            worker.go_on()
        instants = sorted(itertools.chain.from_iterable([await worker.hear() for worker in workers]))
    assert len(instants) > 8
    assert min(later - earlier for earlier, later in itertools.pairwise(instants)) >= 10_100
    wrong = await backend.sql(
        "SELECT b.used FROM budgets b WHERE b.used <> (SELECT count(*) FROM attempts WHERE state = 'billed')"
    )
    assert wrong == []


# -- the database --------------------------------------------------------------------------------------


async def test_several_can_create_the_ledger_at_once(backend: Any) -> None:
    """Eight at once on an empty database."""
    doors = [LedgerDatabase(backend.url, SystemClock()) for _ in range(8)]
    try:
        await asyncio.gather(*(door.__aenter__() for door in doors))
        await asyncio.gather(*(opened(door, f"run-{n}") for n, door in enumerate(doors)))
    finally:
        await asyncio.gather(*(door.__aexit__(None, None, None) for door in doors))


async def somebody_waits(backend: Any) -> None:
    """Come back once a statement waits for a lock."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    for _ in range(500):
        if await backend.sql(waits):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def settings_of(backend: Any, names: list[str]) -> dict[str, str]:
    """What the ledger's own connections are set to, looked at as they are handed out."""
    seen: dict[str, str] = {}

    def look(connection: Any, _record: object, _proxy: object) -> None:
        cursor = connection.cursor()
        for name in names:
            cursor.execute(f"PRAGMA {name}" if backend.is_sqlite else f"SHOW {name}")
            seen[name] = str(cursor.fetchone()[0])
        cursor.close()

    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        sa.event.listen(sa.pool.Pool, "checkout", look)
        try:
            lease = await opened(ledger)
        finally:
            sa.event.remove(sa.pool.Pool, "checkout", look)
        await ledger.beat(lease)
    return seen


async def test_sqlite_writes_survive_a_power_cut(tmp_path: Path) -> None:
    """WAL with synchronous FULL, and ten seconds of patience with others."""
    from ledger_backend import Backend

    seen = await settings_of(
        Backend(f"sqlite:///{tmp_path / 'l.sqlite3'}"), ["journal_mode", "synchronous", "busy_timeout"]
    )
    assert seen == {"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"}


async def test_postgresql_writes_survive_a_power_cut(new_postgresql: Callable[[], Any]) -> None:
    """Even where the database's default is another; and nobody waits for a stuck process for ever."""
    backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    await backend.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    names = ["synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout"]
    assert await settings_of(backend, names) == dict(zip(names, ("on", "10s", "10s"), strict=True))


async def test_taking_over_a_run_and_a_late_answer_do_not_lock_each_other_out(
    new_postgresql: Callable[[], Any],
) -> None:
    """PostgreSQL would end one of them: both take the attempt first and the budget after it."""
    backend = await new_postgresql()
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        call = await reserved(ledger, await opened(ledger))
        await silence(backend, "run")
        late = await asyncpg.connect(backend.url)  # a settling, stopped between its two statements
        try:
            settling = late.transaction()
            await settling.start()
            await late.execute("UPDATE attempts SET state = 'not_billed' WHERE id = $1", call.attempt_id)
            taking = asyncio.create_task(opened(ledger))
            await somebody_waits(backend)
            await late.execute("UPDATE budgets SET used = used - 1")
            await settling.commit()
            await asyncio.wait_for(taking, 5)
        finally:
            await late.close()
    assert (await states(backend), await used(backend)) == (["not_billed"], 0)


async def test_a_postgresql_that_ends_connections_is_unavailable_and_then_used_again(
    new_postgresql: Callable[[], Any], postgresql_server: str
) -> None:
    """In the middle of a statement and before one; once it is back, the ledger goes on."""
    backend = await new_postgresql()
    ((name,),) = await backend.sql("SELECT current_database()")
    admin = type(backend)(postgresql_server.format("postgres"))
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        holder = await asyncpg.connect(backend.url)
        await holder.execute("BEGIN")
        await holder.execute("SELECT * FROM paces FOR UPDATE")
        waiting = asyncio.create_task(ledger.reserve(lease, KEY, HOST, RATE))
        await somebody_waits(backend)
        await admin.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.sql(end)
        with pytest.raises(LedgerUnavailable, match="mend that and run the same command again") as caught:
            await waiting
        assert "\n" not in str(caught.value)
        with pytest.raises(LedgerUnavailable):
            await ledger.beat(lease)
        await holder.close()
        await admin.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await reserved(ledger, lease)


@pytest.mark.parametrize("broken", ["garbage", "table"])
async def test_a_sqlite_file_that_breaks_in_mid_run_is_unavailable(tmp_path: Path, broken: str) -> None:
    """Overwritten or tampered with: the run stops and says which ledger."""
    from ledger_backend import Backend

    path = tmp_path / "ledger.sqlite3"
    backend = Backend(f"sqlite:///{path}")
    async with LedgerDatabase(backend.url, SystemClock()) as ledger:
        lease = await opened(ledger)
        if broken == "table":
            await backend.sql("DROP TABLE paces")
        else:
            await backend.sql("PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                file.write(b"no database any more " * 4000)
        with pytest.raises(LedgerUnavailable, match=r"ledger\.sqlite3"):
            await ledger.reserve(lease, KEY, HOST, RATE)
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(lease, KEY, HOST, RATE)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{tmp}",
        "sqlite:///{tmp}/text.txt",
        "sqlite:///{tmp}/no/such/folder/ledger.sqlite3",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "mysql://u:sesame@127.0.0.1/db",
        "ledger.sqlite3",
        "",
        "postgresql://u:sesame@127.0.0.1:1/db",
        "postgresql://u@127.0.0.1:1/db?password=sesame",
        "postgresql://u:sesame@127.0.0.1:port/db",
        "postgresql://u:sesame@127.0.0.1:1/db?no_such_option=1",
    ],
)
async def test_a_ledger_that_can_not_be_used_is_bad_usage_in_one_line(tmp_path: Path, url: str) -> None:
    """Before anything is asked, with what to mend, without the password."""
    (tmp_path / "text.txt").write_text("This is no database. " * 500)
    with pytest.raises(UsageError) as caught:
        async with LedgerDatabase(url.format(tmp=tmp_path), SystemClock()):
            pass
    message = str(caught.value)
    assert "--ledger" in message
    assert "\n" not in message
    assert SECRET not in message


async def test_a_postgresql_database_that_does_not_exist_is_bad_usage(postgresql_server: str) -> None:
    """In the server's own words."""
    with pytest.raises(UsageError, match='database "nowhere" does not exist'):
        async with LedgerDatabase(postgresql_server.format("nowhere"), SystemClock()):
            pass


async def test_a_postgresql_url_as_providers_hand_it_out_works(new_postgresql: Callable[[], Any]) -> None:
    """With sslmode, which the driver calls otherwise."""
    backend = await new_postgresql()
    async with LedgerDatabase(backend.url + "&sslmode=prefer", SystemClock()) as ledger:
        await opened(ledger)


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{SECRET}@127.0.0.1:1/db", f"postgresql://u@127.0.0.1:1/db?password={SECRET}"]
)
def test_a_password_is_not_shown(url: str) -> None:
    """Neither in the ``repr`` nor in the ``str``."""
    ledger = LedgerDatabase(url, SystemClock())
    assert SECRET not in f"{ledger!r} {ledger}"
    assert "127.0.0.1" in repr(ledger)
