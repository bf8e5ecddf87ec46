"""Patience: how long a database is waited for; one that falls silent ends a run and holds up no signal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Final

WRITE_S: Final = 15.0
"""For a whole transaction that writes; longer than what it may wait for a lock."""
READ_S: Final = 60.0
"""For a whole reading; one that reads everything has no end but that of each statement."""
STATEMENT_S: Final = 600.0
"""For any one statement: an upgrade's, or the first rows of a query."""
CLOSE_S: Final = 2.0
"""For closing: a database that does not respond need not know."""


class Patience:
    """The ends of all waits that are under way; `end_within` brings them forward."""

    def __init__(self) -> None:
        self._until_s = inf
        self._waits: set[asyncio.Timeout] = set()

    def end_within(self, seconds: float) -> None:
        """From now on nothing is waited for longer than that, counted from here."""
        self._until_s = min(self._until_s, asyncio.get_running_loop().time() + seconds)
        for wait in self._waits:
            if not wait.expired() and (wait.when() or inf) > self._until_s:
                wait.reschedule(self._until_s)

    @asynccontextmanager
    async def wait(self, seconds: float | None) -> AsyncIterator[None]:
        """End the block after so many seconds (None: only `end_within` ends it).

        Raises:
            TimeoutError: It took longer.
        """
        until_s = min(self._until_s, inf if seconds is None else asyncio.get_running_loop().time() + seconds)
        async with asyncio.timeout_at(None if until_s == inf else until_s) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)
