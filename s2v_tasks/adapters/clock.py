"""Clock: the time of day, monotonic seconds and waiting, as an object that tests can replace."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, the time of day, and waiting."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this machine, the same for all its processes."""
        ...

    def utcnow(self) -> datetime:
        """The time of day, UTC, aware."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only yields to the event loop."""
        ...


class SystemClock:
    """The machine's clocks. On Linux and macOS ``monotonic`` is shared by all processes since boot."""

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.monotonic()

    def utcnow(self) -> datetime:
        """The time of day, UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait in the event loop."""
        await asyncio.sleep(max(0.0, seconds))
