"""Fetches images in one way, as a separate process: ``_screen_worker.py WAY URLS IN_FLIGHT``.

``WAY`` is ``screen`` (this package's screening) or one of the compared HTTP clients, bare: ``httpx``,
``httpx per host``, ``httpx over aiohttp``, ``aiohttp``. Prints one JSON object.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

Get = Callable[[str], Awaitable[None]]
HEADERS = {"Range": "bytes=0-4095", "Accept-Encoding": "identity"}
SHARD, SHARDS_AT_ONCE = 100, 4


async def screen(urls: list[str]) -> dict[str, int]:
    """Screen as a run does: shards of 100, four at a time."""
    from s2v_tasks.adapters.http.fetch_options import FetchOptions
    from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
    from s2v_tasks.models import WAN22_S2V_DETECT, UniqueImage

    slots, kept = asyncio.Semaphore(SHARDS_AT_ONCE), 0
    async with ImageFetcher(FetchOptions(allow_private_hosts=True), WAN22_S2V_DETECT) as fetcher:

        async def shard(first: int) -> int:
            async with slots:
                results = await fetcher.screen([UniqueImage(url, url) for url in urls[first : first + SHARD]])
            return sum(one.reason is None for one in results)

        kept = sum(await asyncio.gather(*map(shard, range(0, len(urls), SHARD))))
    return {"kept": kept}


async def client(way: str, urls: list[str], in_flight: int) -> dict[str, int]:
    """Fetch 4 KB of each URL with the bare client."""
    async with AsyncExitStack() as stack:
        get, slots = await _getter(way, stack), asyncio.Semaphore(in_flight)

        async def one(url: str) -> None:
            async with slots:
                await get(url)

        await asyncio.gather(*map(one, urls))
    return {}


async def _getter(way: str, stack: AsyncExitStack) -> Get:
    if way == "aiohttp":
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

        async def by_aiohttp(url: str) -> None:
            async with session.get(url, headers=HEADERS) as response:
                await response.read()

        return by_aiohttp
    import httpx

    if way == "httpx over aiohttp":
        from httpx_aiohttp import AiohttpTransport

        transport: httpx.AsyncBaseTransport = AiohttpTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
        )
    else:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        transport = httpx.AsyncHTTPTransport(limits=limits)
    made = await stack.enter_async_context(httpx.AsyncClient(transport=transport, trust_env=False))

    async def by_httpx(url: str) -> None:
        await made.get(url, headers=HEADERS)

    return by_httpx


def main() -> None:
    """Run the work and print its time and CPU, from the first request to the last response."""
    way, file, in_flight = sys.argv[1:]
    urls = Path(file).read_text("utf-8").split()
    work = screen(urls) if way == "screen" else client(way, urls, int(in_flight))
    began, cpu = time.perf_counter(), time.process_time()
    measured = asyncio.run(work)
    measured |= {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    measured["peak_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
