"""Looks up host names by the system's resolver, off the event loop."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to addresses, best first; raises ``socket.gaierror`` or ``TimeoutError``."""

_THREADS: Final = 64  # of our own: slow name servers must not hold up the event loop's other threads


class SystemNames:
    """The system's resolver, as a ``Resolver``. ``timeout_s`` does not run while in line for a thread.

    So names whose servers never answer cost time, but no other name is called unknown for it. ``look_up``
    replaces the system's blocking call.
    """

    def __init__(
        self,
        timeout_s: float,
        threads: int = _THREADS,
        look_up: Callable[[str, int], list[str]] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._look_up = look_up or _look_up
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s2v-dns")
        self._free = asyncio.Semaphore(threads)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Look up a name."""
        await self._free.acquire()
        looking = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host, port)
        looking.add_done_callback(self._done)  # a thread that hangs is not free, whoever gave up on it
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.shield(looking)

    def _done(self, looking: "asyncio.Future[list[str]]") -> None:
        self._free.release()
        if not looking.cancelled():
            looking.exception()  # seen, though nobody may wait for it any more

    def close(self) -> None:
        """Start no further look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    # As bytes: Python's own IDNA would raise on names that are encoded, or left alone, already.
    return [str(found[0]) for *_, found in socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)]
