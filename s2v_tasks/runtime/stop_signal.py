"""The stop of a run: set once, with its reason; it wakes every sleeping task."""

import asyncio
from math import inf

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.errors import RunStopped


class StopSignal:
    """``error`` is why the run sends nothing more, None while it goes on. The first reason stays."""

    def __init__(self, clock: Clock) -> None:
        self.error: RunStopped | None = None
        self._until_s = inf
        self._clock = clock
        self._event = asyncio.Event()

    def set(self, error: RunStopped, within_s: float = inf) -> None:
        """Send nothing more. Calls in flight finish and settle, ``within_s`` seconds at most."""
        self.error = self.error or error
        self._until_s = min(self._until_s, self._clock.monotonic() + within_s)
        self._event.set()

    def at_most(self, seconds: float) -> float:
        """So many seconds, or what is left of the time to finish."""
        return max(0.0, min(seconds, self._until_s - self._clock.monotonic()))

    async def wait(self) -> None:
        """Wait until the run stops."""
        await self._event.wait()

    async def sleep(self, seconds: float, event: asyncio.Event | None = None) -> None:
        """Sleep, but wake when the run stops, or when ``event`` is set."""
        sleeps: list[asyncio.Future[object]] = [asyncio.ensure_future(self._clock.sleep(seconds))]
        sleeps += [asyncio.ensure_future(e.wait()) for e in (self._event, event) if e is not None]
        try:
            await asyncio.wait(sleeps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sleep in sleeps:
                sleep.cancel()
