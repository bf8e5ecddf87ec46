"""One caller in a process of its own. Reads its orders from standard input, ends with its parent.

First line in: a JSON object, see `Orders`. Out: the time when it is ready; then, after ``go`` came in, calls
are made until ``stop`` comes in; then one JSON line with what was seen inside. End of file ends the process.
"""

import asyncio
import itertools
import json
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from _measure import quantile
from pydantic import SecretStr

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.dashscope import Access, DetectClient, service_of
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import BEAT_S, Lease
from s2v_tasks.candidates import image_key
from s2v_tasks.detect import build_request
from s2v_tasks.engine import Engine
from s2v_tasks.errors import Interrupted
from s2v_tasks.ledger import Scope
from s2v_tasks.models import WAN22_S2V_DETECT, Candidate

SHARD: Final = 100
SHARDS_UNDER_WAY: Final = 6
"""Both as a run has them."""
KEPT: Final = 10_000
"""Timings kept for the quantiles; of more, the last ones."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What one caller does. ``number`` tells callers apart at the receiving end, ``run`` tells repeats apart.

    ``limit_name`` is a Prefect concurrency limit. At each number of calls in ``report_at`` a line with memory
    and CPU goes out.
    """

    mechanism: str
    number: int
    run: str
    base_url: str
    rate_per_s: float
    ledger: str = ""
    limit_name: str = ""
    images: int = 0
    report_at: tuple[int, ...] = ()

    def urls(self) -> Iterator[str]:
        """Picture addresses that no other caller has; endless."""
        return (f"http://pictures.invalid/{self.run}/{self.number}/{n}.jpg" for n in itertools.count())


class Parent:
    """The pipe to the parent: its words, and its end, which ends this process."""

    def __init__(self) -> None:
        self.orders = Orders(**json.loads(sys.stdin.readline()))
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._words.put(line.strip())
        os._exit(1)

    def say(self, **what: object) -> None:
        """Send one line."""
        print(json.dumps(what), flush=True)

    def hear(self) -> str:
        """Wait for the next word."""
        return self._words.get()

    def ready(self) -> None:
        """Say so, and wait for the start."""
        self.say(ready_s=time.monotonic())
        self.hear()


class TimedLedger(LedgerDatabase):
    """The ledger, with the time that each of its transactions takes, waiting for locks included."""

    def __init__(self, url: str, clock: SystemClock) -> None:
        super().__init__(url, clock)
        self.took_s: dict[str, deque[float]] = {
            name: deque(maxlen=KEPT) for name in ("reserve", "settle", "postpone")
        }
        self.slowed = 0

    async def _timed(self, name: str, statement: Awaitable[Any]) -> Any:
        began_s = time.perf_counter()
        try:
            return await statement
        finally:
            self.took_s[name].append(time.perf_counter() - began_s)

    async def reserve(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("reserve", super().reserve(*args, **named))

    async def settle(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("settle", super().settle(*args, **named))

    async def postpone(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("postpone", super().postpone(*args, **named))

    async def slow_down(self, *args: Any, **named: Any) -> float:
        """As the ledger's."""
        self.slowed += 1
        return await super().slow_down(*args, **named)

    def report(self) -> dict[str, float]:
        """Milliseconds at the median and the 95th percentile, and how many instants were missed."""
        figures: dict[str, float] = {"slow_downs": self.slowed}
        for name, took_s in self.took_s.items():
            values = list(took_s)
            figures[f"{name}s"] = len(values)
            figures[f"{name}_ms_p50"] = round(1e3 * quantile(values, 0.5), 2)
            figures[f"{name}_ms_p95"] = round(1e3 * quantile(values, 0.95), 2)
        return figures


# -- this project ------------------------------------------------------------------------------------------


async def engine(parent: Parent) -> dict[str, float]:
    """Ledger, client and engine as a run has them."""
    orders = parent.orders
    urls = orders.urls()
    async with _engine(orders) as (engine, ledger):
        await asyncio.to_thread(parent.ready)

        async def shards() -> None:
            while not engine.stopped:
                addresses = [next(urls) for _ in range(SHARD)]
                await engine.judge([Candidate(image_key(url) or url, url) for url in addresses])
                done = sum(engine.tally.judged.values())
                while waymarks and done >= waymarks[0]:
                    waymarks.popleft()
                    parent.say(**_weight(done))

        waymarks = deque(orders.report_at)
        async with asyncio.TaskGroup() as group:
            for _ in range(SHARDS_UNDER_WAY):
                group.create_task(shards())
            await asyncio.to_thread(parent.hear)
            engine.stop(Interrupted("the measurement is over"))
        await engine.finish()
        return ledger.report()


@asynccontextmanager
async def _engine(orders: Orders) -> AsyncIterator[tuple[Engine, TimedLedger]]:
    clock = SystemClock()
    access = Access(orders.base_url, SecretStr("benchmark"))
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(TimedLedger(orders.ledger, clock))
        scope = Scope(service_of(orders.base_url), "default", WAN22_S2V_DETECT)
        run_id = f"{orders.run}-{orders.number}"
        lease = await ledger.open_run(run_id, scope, f"run:{run_id}", 10**9, "retry")
        client = await stack.enter_async_context(DetectClient(access, WAN22_S2V_DETECT))
        beat = asyncio.create_task(_beat(ledger, lease))
        stack.callback(beat.cancel)
        await client.warm()
        yield Engine(ledger, lease, client, clock, lambda: orders.rate_per_s), ledger


async def _beat(ledger: LedgerDatabase, lease: Lease) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        await ledger.beat(lease)


def _weight(done: int) -> dict[str, float]:
    import psutil

    me = psutil.Process()
    cpu = me.cpu_times()
    return {
        "done": done,
        "rss_mb": round(me.memory_info().rss / 1e6, 1),
        "cpu_s": round(cpu.user + cpu.system, 2),
        "at_s": time.monotonic(),
    }


# -- what it is compared with --------------------------------------------------------------------------------


async def _calls_after(parent: Parent, permit: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Wait for a permit, send, do not wait for the answer: the loop of whoever has a limiter."""
    orders = parent.orders
    access = Access(orders.base_url, SecretStr("benchmark"))
    async with DetectClient(access, WAN22_S2V_DETECT) as client:
        await client.warm()
        await asyncio.to_thread(parent.ready)
        over = asyncio.create_task(asyncio.to_thread(parent.hear))
        under_way: set[asyncio.Task[Any]] = set()
        for url in orders.urls():
            allowed = asyncio.ensure_future(permit())
            await asyncio.wait({over, allowed}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                allowed.cancel()
                break
            allowed.result()
            call = asyncio.create_task(client.send(build_request(WAN22_S2V_DETECT, url)))
            under_way.add(call)
            call.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return {}


async def prefect_rate_limit(parent: Parent) -> dict[str, float]:
    """Prefect's `rate_limit` before each call, outside of any flow: its cheapest use."""
    from prefect.concurrency.asyncio import rate_limit

    return await _calls_after(parent, lambda: rate_limit(parent.orders.limit_name, strict=True))


class TokenBucket:
    """The limiter that one writes for one process: ``rate_per_s`` tokens a second, as many kept."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = self._tokens = rate_per_s
        self._at_s = time.monotonic()

    async def acquire(self) -> None:
        """Wait for a token and take it."""
        while True:
            now_s = time.monotonic()
            self._tokens = min(self._rate_per_s, self._tokens + (now_s - self._at_s) * self._rate_per_s)
            self._at_s = now_s
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / self._rate_per_s)


async def per_process(parent: Parent) -> dict[str, float]:
    """A limiter in each process: aiolimiter where it is installed, else a token bucket like it."""
    rate_per_s = parent.orders.rate_per_s
    try:
        from aiolimiter import AsyncLimiter
    except ImportError:
        limiter: Any = TokenBucket(rate_per_s)
    else:
        limiter = AsyncLimiter(rate_per_s, 1)
    return await _calls_after(parent, limiter.acquire)


async def bare(parent: Parent) -> dict[str, float]:
    """No ledger: instants from a sum, and the same client. What client and service can do at all."""
    rate_per_s = parent.orders.rate_per_s
    next_s: list[float] = []

    async def permit() -> None:
        instant_s = max(next_s.pop() if next_s else 0.0, time.monotonic() - 0.05)
        next_s.append(instant_s + 1.01 / rate_per_s)
        await asyncio.sleep(max(0.0, instant_s - time.monotonic()))

    return await _calls_after(parent, permit)


def prefect_task_per_image(parent: Parent) -> dict[str, float]:
    """One Prefect task per image, mapped, with `rate_limit` at its top: as first written."""
    from prefect import flow, task
    from prefect.concurrency.sync import rate_limit

    orders = parent.orders
    address = orders.base_url + WAN22_S2V_DETECT.path
    headers = {"Authorization": "Bearer benchmark", "Content-Type": "application/json"}

    with httpx.Client(headers=headers, timeout=60) as client:
        client.options(orders.base_url)

        @task
        def detect(url: str) -> int:
            rate_limit(orders.limit_name, strict=True)
            return client.post(address, content=build_request(WAN22_S2V_DETECT, url).body).status_code

        @flow
        def judge(urls: list[str]) -> list[int]:
            return [future.result() for future in detect.map(urls)]

        def leave() -> None:
            parent.hear()
            parent.say()
            os._exit(0)  # mapped tasks can't be called back

        parent.ready()
        threading.Thread(target=leave, daemon=True).start()
        judge(list(itertools.islice(orders.urls(), orders.images)))
    threading.Event().wait()  # until the parent has seen enough
    return {}


def main() -> None:
    """Do as the parent orders."""
    parent = Parent()
    if parent.orders.mechanism == "prefect_task_per_image":
        prefect_task_per_image(parent)
        return
    mechanisms = {"engine": engine, "prefect": prefect_rate_limit, "per_process": per_process, "bare": bare}
    parent.say(**asyncio.run(mechanisms[parent.orders.mechanism](parent)))
    os._exit(0)  # background threads of a client have nothing left to say


if __name__ == "__main__":
    main()
