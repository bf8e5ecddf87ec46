"""What tests of the ledger share: responses, calls, and other processes that use the same ledger."""

# ruff: noqa: S608 - statements are put together from this file's own words

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import sqlalchemy as sa

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain.detect import DetectResponse, Kind, lost_response
from s2v_tasks.domain.ledger import Reserved, Scope
from s2v_tasks.models import WAN22_S2V_DETECT, Billing
from s2v_tasks.settings import OnLostResponse

RATE = 5.0
PRICE = 574
SCOPE = Scope("dashscope", "default", WAN22_S2V_DETECT)
HOST = "images.example"
SECRET = "sesame"  # noqa: S105 - what must not be seen in a message
KEY = "k" * 32

PASSED = DetectResponse(
    Kind.VERDICT, Billing.BILLED, check_pass=True, humanoid=True, request_id="r", http_status=200,
    remembered=True,
)  # fmt: skip
NO_HUMAN = DetectResponse(
    Kind.VERDICT, Billing.NOT_BILLED, "no_human", False, code="InvalidFile.NoHuman", message="nobody",
    request_id="r", http_status=400, remembered=True,
)  # fmt: skip
FREE = DetectResponse(Kind.TRANSIENT, Billing.NOT_BILLED, "service_error", http_status=500)
LOST = lost_response("no response (ReadTimeout)", sent=True)
THROTTLED = DetectResponse(Kind.THROTTLED, Billing.NOT_BILLED, "throttled", http_status=429)

WORKER = """
import asyncio, json, sys, time
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.domain.ledger import Reserved, Scope, OutOfBudget
from s2v_tasks.models import WAN22_S2V_DETECT, Billing

what, url, run_id, budget, cap = sys.argv[1:]
FREE = DetectResponse(Kind.TRANSIENT, Billing.NOT_BILLED)
PASSED = DetectResponse(Kind.VERDICT, Billing.BILLED, check_pass=True, remembered=True)

def say(document):
    print(json.dumps(document), flush=True)

async def hold(lease):
    reserved = await lease.reserve("k" * 32, "images.example", 5.0)
    say(reserved.attempt_id)
    sys.stdin.readline()

async def hammer(lease):
    send_times, end, n = [], time.monotonic() + 1.5, 0
    while time.monotonic() < end or n < 15:
        n += 1
        reserved = await lease.reserve(f"{run_id}-{n}", "images.example", 100.0)
        if n % 7 == 0:  # missed: that send time is not used
            reserved = await lease.postpone(reserved, 100.0)
        send_times.append(reserved.send_us)
        await lease.settle(f"{run_id}-{n}", reserved.attempt_id, PASSED if n % 2 else FREE)
    say(send_times)

async def spend(lease):
    paid, n = 0, 0
    while True:
        n += 1
        result = await lease.reserve(f"{run_id}-{n}", "images.example", 1000.0)
        if isinstance(result, OutOfBudget):
            if result.final:
                return say(paid)
            await asyncio.sleep(0.001)
            continue
        await lease.settle(f"{run_id}-{n}", result.attempt_id, FREE if n % 3 == 0 else PASSED)
        paid += n % 3 != 0

async def beat(lease):
    while True:  # as a run does: on a busy machine the others may take longer to start than a lease lives
        await asyncio.sleep(2)
        await lease.heartbeat()

async def main():
    async with Ledger(url, SystemClock()) as ledger:
        scope = Scope("dashscope", "default", WAN22_S2V_DETECT)
        lease = await ledger.open_run(run_id, scope, budget, int(cap), "retry")
        beating = asyncio.create_task(beat(lease))
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        await globals()[what](lease)
        beating.cancel()

asyncio.run(main())
"""


class Worker:
    """Another process that uses the ledger: it says when it is ready, and goes on when signalled."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def receive(self) -> Any:
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
        assert await worker.receive() == "ready"
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
    ledger: Ledger,
    run_id: str = "run",
    budget: str = "b",
    cap: int = 100,
    on_lost_response: OnLostResponse = "retry",
    scope: Scope = SCOPE,
) -> RunLedger:
    return await ledger.open_run(run_id, scope, budget, cap, on_lost_response)


async def reserved(lease: RunLedger, key: str = KEY) -> Reserved:
    result = await lease.reserve(key, HOST, RATE)
    assert isinstance(result, Reserved), result
    return result


async def send_and_settle(lease: RunLedger, response: DetectResponse, key: str = KEY) -> int:
    """One whole call."""
    attempt_id = (await reserved(lease, key)).attempt_id
    await lease.settle(key, attempt_id, response)
    return attempt_id


async def silence(backend: Any, run_id: str, seconds: float = 16.0) -> None:
    """As if a run had sent no heartbeat for so long; it is on another machine."""
    await backend.sql(
        f"UPDATE runs SET heartbeat_us = heartbeat_us - {round(seconds * 1e6)}, host = 'elsewhere'"
        f" WHERE run_id = '{run_id}'"
    )


async def states(backend: Any, key: str = KEY) -> list[str]:
    rows = await backend.sql(f"SELECT state FROM attempts WHERE image_key = '{key}' ORDER BY id")
    return [state for (state,) in rows]


async def used(backend: Any, budget: str = "b") -> int:
    ((used,),) = await backend.sql(f"SELECT used FROM budgets WHERE name = '{budget}'")
    assert isinstance(used, int)
    return used


async def wait_for_a_lock(backend: Any) -> None:
    """Come back once a statement waits for a lock."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    for _ in range(500):
        if await backend.sql(waits):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no session waits")


async def settings_of(backend: Any, names: list[str]) -> dict[str, str]:
    """What holds in a transaction that writes."""
    async with Ledger(backend.url, SystemClock()) as ledger, ledger.database.transaction() as db:
        show = "PRAGMA" if backend.is_sqlite else "SHOW"
        return {name: str(await db.scalar(sa.text(f"{show} {name}"))) for name in names}
