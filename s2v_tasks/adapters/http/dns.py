"""DNS: resolves host names by the system's resolver, in threads of its own."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to addresses, best first; raises ``socket.gaierror`` or ``TimeoutError``."""

_THREADS: Final = 64  # separate, so that slow name servers do not block the event loop's other threads


class SystemResolver:
    """The system's resolver, as a ``Resolver``.

    Args:
        timeout_s: For one lookup, without the wait for a free thread. So a name server that never responds
            costs time, but no other name fails for it.
        threads: Lookups at a time.
        getaddrinfo: Replaces the system's blocking call.
    """

    def __init__(
        self,
        timeout_s: float,
        threads: int = _THREADS,
        getaddrinfo: Callable[[str, int], list[str]] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._getaddrinfo = getaddrinfo or _getaddrinfo
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s2v-dns")
        self._free = asyncio.Semaphore(threads)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Resolve a name to its addresses."""
        await self._free.acquire()
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._getaddrinfo, host, port)
        lookup.add_done_callback(self._done)  # a blocked thread stays taken after its timeout
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.shield(lookup)

    def _done(self, lookup: "asyncio.Future[list[str]]") -> None:
        self._free.release()
        if not lookup.cancelled():
            lookup.exception()  # retrieved, or asyncio would log it after a timeout

    def close(self) -> None:
        """Start no further lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str, port: int) -> list[str]:
    # As bytes: Python's IDNA codec raises on names that are encoded already.
    return [str(found[0]) for *_, found in socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)]
