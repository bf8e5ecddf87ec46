"""What tests of the engine share: a clock that jumps, a scripted service, and a ledger with engines on it."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Unpack

from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.clock import Clock, SystemClock
from s2v_tasks.adapters.database.connection import Database, Opening
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain.detect import DetectResponse, Request, parse_response
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.domain.retry_policy import RetryPolicy
from s2v_tasks.models import WAN22_S2V_DETECT, Outcome, UniqueImage, Verdict
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.settings import OnLostResponse

PRICE = WAN22_S2V_DETECT.price_micro_usd


QUIET_POLLS = 4
"""Polls in which nothing happens before time jumps: tasks that are about to use the database come first."""


class JumpingClock:
    """Time that passes only by sleeping: the sleeper that is due first moves it, a real millisecond later.

    While the database works (``busy``) it stands still, however slow the machine is.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.busy = 0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int]] = []
        self._count = 0

    def monotonic(self) -> float:
        """Seconds, moved by sleepers."""
        return self.now_s

    def utcnow(self) -> datetime:
        """The same as a time of day."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for one's turn, then move time to one's end."""
        self.slept.append(seconds)
        self._count += 1
        entry = (self.now_s + max(0.0, seconds), self._count)
        heapq.heappush(self._sleepers, entry)
        try:
            quiet = 0
            while quiet < QUIET_POLLS:
                await asyncio.sleep(0.001)
                quiet = quiet + 1 if self._sleepers[0] == entry and not self.busy else 0
            self.now_s = max(self.now_s, entry[0])
        finally:
            self._sleepers.remove(entry)
            heapq.heapify(self._sleepers)


class Scripted:
    """A service with scripted responses that records when calls were sent."""

    def __init__(
        self, clock: JumpingClock | SystemClock, script: Callable[[int, str], DetectResponse]
    ) -> None:
        self.sent_s: list[float] = []
        self.urls: list[str] = []
        self._clock = clock
        self._script = script

    async def send(self, request: Request, on_written: Callable[[], None]) -> DetectResponse:
        """Respond to the n-th call."""
        on_written()
        self.sent_s.append(self._clock.monotonic())
        self.urls.append(request.body.decode())
        return self._script(len(self.sent_s) - 1, self.urls[-1])


PASSED = parse_response(WAN22_S2V_DETECT, 200, {}, b'{"output":{"check_pass":true},"request_id":"r"}')
THROTTLED = parse_response(WAN22_S2V_DETECT, 429, {}, b'{"code":"Throttling.RateQuota","message":"slow"}')
DOWN = parse_response(WAN22_S2V_DETECT, 503, {}, b"<html>bad gateway</html>")


class WatchedDatabase(Database):
    """A database that stops its `JumpingClock` while it works; a commit takes ``commit_s``."""

    def __init__(self, url: str, clock: Clock, **opening: Unpack[Opening]) -> None:
        assert isinstance(clock, JumpingClock)
        super().__init__(url, clock, **opening)
        self.commit_s = 0.0
        self._jumping = clock
        self._disk = asyncio.Lock()

    @asynccontextmanager
    async def _connection(self, within_s: float | None, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        async with self._disk if writes else nullcontext():
            self._jumping.busy += 1
            try:
                async with super()._connection(within_s, writes=writes) as db:
                    yield db
            finally:
                self._jumping.busy -= 1
            if writes and self.commit_s:
                await self._jumping.sleep(self.commit_s)


class WatchedLedger(Ledger):
    """A ledger in such a database."""

    database_type = WatchedDatabase


class EngineHarness:
    """A ledger file, a clock, and engines on both."""

    def __init__(self, folder: Path, clock: JumpingClock | SystemClock) -> None:
        self.clock = clock
        self.rate_per_s = 5.0
        url = f"sqlite:///{folder / 'ledger.sqlite3'}"
        is_jumping = isinstance(clock, JumpingClock)
        self.ledger = WatchedLedger(url, clock) if is_jumping else Ledger(url, clock)

    async def lease(
        self,
        run_id: str,
        budget: int = 1000,
        on_lost_response: OnLostResponse = "retry",
        service: str = "test",
    ) -> RunLedger:
        scope = Scope(service, "default", WAN22_S2V_DETECT)
        return await self.ledger.open_run(run_id, scope, f"run:{run_id}", budget, on_lost_response)

    def engine(self, lease: RunLedger, client: object, retries: RetryPolicy | None = None) -> Engine:
        return Engine(lease, client, self.clock, lambda: self.rate_per_s, retries)  # type: ignore[arg-type]

    def scripted(self, script: Callable[[int, str], DetectResponse]) -> Scripted:
        return Scripted(self.clock, script)


def make_images(
    count: int, origin: str = "http://images.example", kind: str = "portrait"
) -> list[UniqueImage]:
    urls = [f"{origin}/samples/gen/{kind}-{n}.jpg" for n in range(count)]
    return [UniqueImage(image_key(url), url) for url in urls]


async def until(clock: JumpingClock | SystemClock, end_s: float) -> None:
    """Let others move the clock to a time."""
    while clock.monotonic() < end_s:  # noqa: ASYNC110  (the clock is theirs to move)
        await asyncio.sleep(0.001)


def outcomes(verdicts: Sequence[Verdict]) -> dict[Outcome, int]:
    return {
        o: sum(v.outcome is o for v in verdicts) for o in Outcome if any(v.outcome is o for v in verdicts)
    }
