"""One caller in a separate process, controlled by its parent through standard input and output.

It reads one line, a JSON object (see `Orders`), and prints the time when it is ready. After ``go`` it sends
calls until ``stop``, and prints one JSON line with its figures. End of file ends the process.
"""

import asyncio
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx
from _measure import quantile
from _parent import Orders, Parent
from pydantic import SecretStr

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.lease import HEARTBEAT_S
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.adapters.http.detect_client import DetectClient, service_of
from s2v_tasks.domain.detect import DetectResponse, build_request
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.domain.response_rules import Kind
from s2v_tasks.errors import Interrupted
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, UniqueImage
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.settings import Credentials

SHARD: Final = 100
SHARDS_IN_FLIGHT: Final = 6
"""Both as a run has them."""
COMMIT_PAIRS: Final = 9
PASSED: Final = DetectResponse(Kind.VERDICT, Billing.BILLED, check_pass=True, humanoid=True, http_status=200)
KEPT: Final = 10_000
"""Timings kept for the quantiles; of more, the last ones."""


class TimedLedger:
    """A run's ledger, with the time that each of its transactions takes, waiting for locks included."""

    def __init__(self, ledger: RunLedger) -> None:
        self._ledger = ledger
        self.took_s: dict[str, deque[float]] = {
            name: deque(maxlen=KEPT) for name in ("reserve", "settle", "postpone")
        }
        self.slowed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def _timed(self, name: str, statement: Awaitable[Any]) -> Any:
        began_s = time.perf_counter()
        try:
            return await statement
        finally:
            self.took_s[name].append(time.perf_counter() - began_s)

    async def reserve(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("reserve", self._ledger.reserve(*args, **named))

    async def settle(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("settle", self._ledger.settle(*args, **named))

    async def postpone(self, *args: Any, **named: Any) -> Any:
        """As the ledger's."""
        return await self._timed("postpone", self._ledger.postpone(*args, **named))

    async def slow_down(self, *args: Any, **named: Any) -> float:
        """As the ledger's."""
        self.slowed += 1
        return await self._ledger.slow_down(*args, **named)

    def report(self) -> dict[str, float]:
        """Milliseconds at the median and the 95th percentile, and how many send times were missed."""
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
                await engine.check_images([UniqueImage(image_key(url) or url, url) for url in addresses])
                done = sum(engine.stats.checked.values())
                while waymarks and done >= waymarks[0]:
                    waymarks.popleft()
                    parent.say(**_weight(done))

        waymarks = deque(orders.report_at)
        async with asyncio.TaskGroup() as group:
            for _ in range(SHARDS_IN_FLIGHT):
                group.create_task(shards())
            await asyncio.to_thread(parent.hear)
            engine.stop(Interrupted("the measurement is over"))
        await engine.finish()
        return ledger.report()


@asynccontextmanager
async def _engine(orders: Orders) -> AsyncIterator[tuple[Engine, TimedLedger]]:
    clock = SystemClock()
    credentials = Credentials(orders.base_url, SecretStr("benchmark"))
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(Ledger(orders.ledger, clock))
        scope = Scope(service_of(orders.base_url), "default", WAN22_S2V_DETECT)
        run_id = f"{orders.run}-{orders.number}"
        run_ledger = await ledger.open_run(run_id, scope, f"run:{run_id}", 10**9, "retry")
        client = await stack.enter_async_context(DetectClient(credentials, WAN22_S2V_DETECT))
        beat = asyncio.create_task(_beat(run_ledger))
        stack.callback(beat.cancel)
        await client.warm()
        timed = TimedLedger(run_ledger)
        as_ledger: Any = timed  # it has all that the engine uses
        yield Engine(as_ledger, client, clock, lambda: orders.rate_per_s), timed


async def commits(parent: Parent) -> dict[str, float]:
    """How long one reserve and one settle take, without a call in between: the median of pairs."""
    took_s: list[float] = []
    urls = parent.orders.urls()
    async with _engine(parent.orders) as (_, ledger):
        await asyncio.to_thread(parent.ready)
        while len(took_s) < COMMIT_PAIRS:
            url = next(urls)
            began_s = time.perf_counter()
            reserved = await ledger.reserve(image_key(url), "images.invalid", 1000.0)
            await ledger.settle(image_key(url), reserved.attempt_id, PASSED)
            took_s.append(time.perf_counter() - began_s)
    return {"commit_s": quantile(took_s, 0.5)}


async def _beat(ledger: RunLedger) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await ledger.heartbeat()


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


# -- baselines --------------------------------------------------------------------------------


async def _calls_after(parent: Parent, permit: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Wait for a permit, send, do not wait for the response: the loop of a client with a rate limiter."""
    orders = parent.orders
    credentials = Credentials(orders.base_url, SecretStr("benchmark"))
    async with DetectClient(credentials, WAN22_S2V_DETECT) as client:
        await client.warm()
        await asyncio.to_thread(parent.ready)
        over = asyncio.create_task(asyncio.to_thread(parent.hear))
        in_flight: set[asyncio.Task[Any]] = set()
        for url in orders.urls():
            allowed = asyncio.ensure_future(permit())
            await asyncio.wait({over, allowed}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                allowed.cancel()
                break
            allowed.result()
            call = asyncio.create_task(client.send(build_request(WAN22_S2V_DETECT, url)))
            in_flight.add(call)
            call.add_done_callback(in_flight.discard)
        await asyncio.gather(*in_flight)
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
    """No ledger: send times from a sum, and the same client; the upper bound of client and service."""
    rate_per_s = parent.orders.rate_per_s
    next_s: list[float] = []

    async def permit() -> None:
        send_at_s = max(next_s.pop() if next_s else 0.0, time.monotonic() - 0.05)
        next_s.append(send_at_s + 1.01 / rate_per_s)
        await asyncio.sleep(max(0.0, send_at_s - time.monotonic()))

    return await _calls_after(parent, permit)


def prefect_task_per_image(parent: Parent) -> dict[str, float]:
    """One Prefect task per image, mapped, with `rate_limit` at its top: as first written."""
    from prefect import flow, task
    from prefect.concurrency.sync import rate_limit

    orders = parent.orders
    url_of_call = orders.base_url + WAN22_S2V_DETECT.path
    headers = {"Authorization": "Bearer benchmark", "Content-Type": "application/json"}

    with httpx.Client(headers=headers, timeout=60) as client:
        client.options(orders.base_url)

        @task
        def detect(url: str) -> int:
            rate_limit(orders.limit_name, strict=True)
            return client.post(url_of_call, content=build_request(WAN22_S2V_DETECT, url).body).status_code

        @flow
        def check(urls: list[str]) -> list[int]:
            return [future.result() for future in detect.map(urls)]

        def leave() -> None:
            parent.hear()
            parent.say()
            os._exit(0)  # mapped tasks can't be called back

        parent.ready()
        threading.Thread(target=leave, daemon=True).start()
        check(list(itertools.islice(orders.urls(), orders.images)))
    threading.Event().wait()  # until the parent has seen enough
    return {}


def main() -> None:
    """Run the job that the parent gives."""
    parent = Parent()
    if parent.orders.mechanism == "prefect_task_per_image":
        prefect_task_per_image(parent)
        return
    mechanisms = {
        "engine": engine,
        "commits": commits,
        "prefect": prefect_rate_limit,
        "per_process": per_process,
        "bare": bare,
    }
    parent.say(**asyncio.run(mechanisms[parent.orders.mechanism](parent)))
    os._exit(0)  # background threads of a client have nothing left to report


if __name__ == "__main__":
    main()
