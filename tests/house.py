"""What tests of the engine share: a clock that jumps, a scripted service, and a ledger with engines on it."""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.candidates import image_key
from s2v_tasks.detect import Answer, Request, read_answer
from s2v_tasks.engine import Engine, Retries
from s2v_tasks.ledger import Scope
from s2v_tasks.models import WAN22_S2V_DETECT, Candidate, Outcome, Verdict
from s2v_tasks.settings import OnUnknown

PRICE = WAN22_S2V_DETECT.price_micro_usd


class JumpingClock:
    """Time that passes only by sleeping: whoever wakes first moves it, a real millisecond later."""

    def __init__(self) -> None:
        self.now_s = 1000.0
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
            while True:
                await asyncio.sleep(0.001)
                if self._sleepers[0] == entry:
                    break
            self.now_s = max(self.now_s, entry[0])
        finally:
            self._sleepers.remove(entry)
            heapq.heapify(self._sleepers)


class Scripted:
    """A service that answers as told, and keeps the times at which calls left."""

    def __init__(self, clock: JumpingClock | SystemClock, script: Callable[[int, str], Answer]) -> None:
        self.sent_s: list[float] = []
        self.urls: list[str] = []
        self._clock = clock
        self._script = script

    async def send(self, request: Request) -> Answer:
        """Answer the n-th call."""
        self.sent_s.append(self._clock.monotonic())
        self.urls.append(request.body.decode())
        return self._script(len(self.sent_s) - 1, self.urls[-1])


PASSED = read_answer(WAN22_S2V_DETECT, 200, {}, b'{"output":{"check_pass":true},"request_id":"r"}')
THROTTLED = read_answer(WAN22_S2V_DETECT, 429, {}, b'{"code":"Throttling.RateQuota","message":"slow"}')
DOWN = read_answer(WAN22_S2V_DETECT, 503, {}, b"<html>bad gateway</html>")


class House:
    """One ledger file, one clock, and engines on them."""

    def __init__(self, folder: Path, clock: JumpingClock | SystemClock) -> None:
        self.clock = clock
        self.rate_per_s = 5.0
        self.ledger = LedgerDatabase(f"sqlite:///{folder / 'ledger.sqlite3'}", self.clock)

    async def lease(
        self, run_id: str, budget: int = 1000, on_unknown: OnUnknown = "retry", service: str = "test"
    ) -> Lease:
        scope = Scope(service, "default", WAN22_S2V_DETECT)
        return await self.ledger.open_run(run_id, scope, f"run:{run_id}", budget, on_unknown)

    def engine(self, lease: Lease, client: object, retries: Retries | None = None) -> Engine:
        return Engine(self.ledger, lease, client, self.clock, lambda: self.rate_per_s, retries)  # type: ignore[arg-type]

    def scripted(self, script: Callable[[int, str], Answer]) -> Scripted:
        return Scripted(self.clock, script)


def pictures(count: int, origin: str = "http://pictures.example", kind: str = "portrait") -> list[Candidate]:
    urls = [f"{origin}/samples/gen/{kind}-{n}.jpg" for n in range(count)]
    return [Candidate(image_key(url), url) for url in urls]


async def until(clock: JumpingClock | SystemClock, end_s: float) -> None:
    """Let others move the clock to a time."""
    while clock.monotonic() < end_s:  # noqa: ASYNC110  (the clock is theirs to move)
        await asyncio.sleep(0.001)


def outcomes(verdicts: Sequence[Verdict]) -> dict[Outcome, int]:
    return {
        o: sum(v.outcome is o for v in verdicts) for o in Outcome if any(v.outcome is o for v in verdicts)
    }
