"""Decides which image is sent next and when: reserve a send time in the ledger, wait for it, send.

One image at a time reserves and waits (at high rates a tenth of a second's worth); the others queue,
first come, first served, unless the send order says otherwise. Responses are awaited elsewhere, so a slow one
holds up nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain.detect import DetectResponse
from s2v_tasks.domain.ledger import (
    BUDGET_EXHAUSTED,
    RUN_STOPPED,
    Busy,
    NotReserved,
    OutOfBudget,
    Reserved,
    lost_verdict,
    skipped_verdict,
)
from s2v_tasks.domain.retry_policy import RetryPolicy
from s2v_tasks.errors import RunStopped
from s2v_tasks.models import UniqueImage, Verdict
from s2v_tasks.runtime.circuit_breaker import CircuitBreaker
from s2v_tasks.runtime.stop_signal import StopSignal
from s2v_tasks.runtime.written_calls import WrittenCalls

_log = logging.getLogger(__name__)
LATE_S: Final = 0.008
"""A send time missed by more is not used: the call would crowd the next one."""
MAX_LEAD_S: Final = 60.0
"""Longer than any commit that a ledger should take."""
AHEAD_S: Final = 0.1
"""How far ahead one process reserves: at most this, or one call."""
AHEAD_COMMITS: Final = 3
"""On a slow disk: one commit may be under way, the next reserves, and its lead is longer than one."""
SLOW_COMMIT_S: Final = 0.5
"""A commit that takes longer is worth a warning."""
WANTED_LEAD_S: Final = 2 * AHEAD_S
"""How long before its send time a call is best reserved: at least this, or two intervals between calls."""
MAX_RESERVE_DELAY_S: Final = 1.0
PAUSED_POLL_S: Final = 1.0

Call = Callable[[UniqueImage, Reserved], Coroutine[Any, Any, DetectResponse]]


@dataclass(frozen=True, slots=True)
class Sent:
    """The call was sent; ``response`` is done once it is settled."""

    response: asyncio.Task[DetectResponse]


@dataclass(frozen=True, slots=True)
class NotSent:
    """No call was needed, or none was possible: ``verdict`` says which."""

    verdict: Verdict


class SendOrder(Protocol):
    """Which of the waiting images goes first: the lowest rank; of equal ones the first that came."""

    @property
    def is_neutral(self) -> bool:
        """Whether all ranks are equal now."""
        ...

    def rank(self, image: UniqueImage) -> tuple[bool, ...]:
        """The rank of an image, now."""
        ...


@dataclass(eq=False, slots=True)
class _Waiter:
    image: UniqueImage
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SendScheduler:
    """Sends the calls of one run. ``rate_per_s`` is read before each reservation; 0 pauses."""

    def __init__(
        self,
        ledger: RunLedger,
        clock: Clock,
        stop: StopSignal,
        breaker: CircuitBreaker,
        policy: RetryPolicy,
        rate_per_s: Callable[[], float],
        order: SendOrder,
    ) -> None:
        self.budget_exhausted = False
        self.paused_until_s = clock.monotonic()
        self.written = WrittenCalls(clock)
        self._ledger = ledger
        self._clock = clock
        self._stop = stop
        self._breaker = breaker
        self._policy = policy
        self._rate_per_s = rate_per_s
        self._order = order
        self._waiters: list[_Waiter] = []
        self._holder: _Waiter | None = None
        self._reserving = 0
        self._slot_freed = asyncio.Event()
        self._reserve_delay_s = 0.0
        self._commit_s = 0.0
        self._is_slow_reported = False
        self._in_flight: set[asyncio.Task[DetectResponse]] = set()
        self._settled = asyncio.Event()

    async def send(self, image: UniqueImage, call: Call) -> Sent | NotSent:
        """Send one image when its turn and its send time have come. ``call`` sends and settles."""
        while True:
            async with self._send_slot(image) as rate_per_s:
                result = await self._reserve_and_send(image, call, rate_per_s)
            if result is not None:
                return result
            await self._stop.sleep(self._policy.busy_s)

    async def finish(self) -> None:
        """Wait for the calls in flight, a bounded time; those still out are given up: unknown."""
        if self._in_flight:
            _, out = await asyncio.wait(
                set(self._in_flight), timeout=self._stop.at_most(self._policy.settle_s)
            )
            for task in out:
                task.cancel()
            await asyncio.gather(*out, return_exceptions=True)

    # -- the turn ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _send_slot(self, image: UniqueImage) -> AsyncIterator[float]:
        """The turn of an image to reserve and send, at the rate it gives."""
        async with self._turn(image):
            while self._reserving >= max(1, round(self._ahead_s * self._rate_per_s())):
                self._slot_freed.clear()
                await self._slot_freed.wait()
            if self._breaker.backoff_s:  # ever more rarely while the service keeps failing
                await self._stop.sleep(self._breaker.backoff_s)
            rate_per_s = await self._allowed_rate()
            await self._limit_in_flight(rate_per_s)
            if self._reserve_delay_s and not self.budget_exhausted:
                await self._stop.sleep(self._reserve_delay_s)
            self._reserving += 1
        try:
            yield rate_per_s
        finally:
            self._reserving -= 1
            self._slot_freed.set()

    @asynccontextmanager
    async def _turn(self, image: UniqueImage) -> AsyncIterator[None]:
        """The lock that an image holds until it may reserve; the best of those that wait is next."""
        waiter = _Waiter(image)
        self._waiters.append(waiter)
        if self._holder is None:
            self._give_turn()
        try:
            await waiter.turn
            yield
        finally:
            self._waiters.remove(waiter)
            if self._holder in (waiter, None):
                self._give_turn()

    def _give_turn(self) -> None:
        self._holder = self._waiters[0] if self._waiters else None
        if not self._order.is_neutral:
            self._holder = min(self._waiters, key=lambda w: self._order.rank(w.image), default=None)
        if self._holder is not None:
            self._holder.turn.set_result(None)

    def _must_yield(self, image: UniqueImage) -> bool:
        """Whether an image that goes before this one waits; once the run has stopped nothing is sent."""
        if self._stop.error or self._order.is_neutral:
            return False
        own = self._order.rank(image)
        return any(self._order.rank(waiter.image) < own for waiter in self._waiters)

    async def _allowed_rate(self) -> float:
        """The account's rate, waiting while it is 0: the operator's way to pause."""
        while (rate_per_s := self._rate_per_s()) <= 0 and not self._stop.error:
            self._breaker.restart_clock()
            await self._stop.sleep(PAUSED_POLL_S)
        return rate_per_s or self._ledger.scope.detector.rate_per_s

    async def _limit_in_flight(self, rate_per_s: float) -> None:
        """A service that stalls must not pile up calls without bound."""
        larger = max(1.0, rate_per_s / self._ledger.scope.detector.rate_per_s)
        limit = self._policy.max_in_flight * larger
        while len(self._in_flight) + self._reserving >= limit and not self._stop.error:
            self._settled.clear()
            await self._stop.sleep(self._policy.max_backoff_s, self._settled)

    # -- reserve, wait, send -----------------------------------------------------------------------------

    async def _reserve_and_send(
        self, image: UniqueImage, call: Call, rate_per_s: float
    ) -> Sent | NotSent | None:
        """Reserve and send once; None: another run, or an image that goes before this one, comes first."""
        key = image.image_key
        try:
            while not self._stop.error and not self.budget_exhausted:
                if self._must_yield(image):
                    return None
                lead_s = 1.5 * self._commit_s if self._commit_s > LATE_S else 0.0
                with self._timing_commit():
                    result = await self._ledger.reserve(key, image.host, rate_per_s, lead_s)
                match result:
                    case Reserved():
                        self._tune_reserve_delay(result.at_s - self._clock.monotonic(), rate_per_s)
                        try:
                            return await self._send_at(image, call, result, rate_per_s)
                        except asyncio.CancelledError:
                            await self._ledger.release(result)
                            raise
                    case NotReserved():
                        return NotSent(result.image_status.verdict or lost_verdict(key))
                    case Busy():
                        return None
                    case OutOfBudget():
                        await self._wait_for_budget(result)
        except RunStopped as error:
            self._stop.set(error)
        return NotSent(skipped_verdict(key, RUN_STOPPED if self._stop.error else BUDGET_EXHAUSTED))

    async def _send_at(
        self, image: UniqueImage, call: Call, reserved: Reserved, rate_per_s: float
    ) -> Sent | NotSent | None:
        """Wait for the reserved send time and send.

        If the run stops first, or an image that goes before this one has come, the reservation is released.
        """
        lead_s = max(LATE_S, self._commit_s)
        while True:
            await self._stop.sleep(reserved.at_s - self._clock.monotonic())
            if (too_early_s := self.written.next_s(rate_per_s) - self._clock.monotonic()) > 0:
                await self._stop.sleep(too_early_s)
            if self._stop.error or self._must_yield(image):
                await self._ledger.release(reserved)
                stopped = skipped_verdict(image.image_key, RUN_STOPPED)
                return NotSent(stopped) if self._stop.error else None
            now_s = self._clock.monotonic()
            if self._rate_per_s() > 0 and now_s - reserved.at_s <= LATE_S and now_s >= self.paused_until_s:
                break
            lead_s = min(2 * lead_s, MAX_LEAD_S)
            rate_per_s = await self._allowed_rate()
            with self._timing_commit():
                reserved = await self._ledger.postpone(reserved, rate_per_s, lead_s)
        # Nothing is awaited between the send time and the send.
        task = asyncio.create_task(call(image, reserved))
        self._in_flight.add(task)
        task.add_done_callback(self._on_settled)
        return Sent(task)

    def _on_settled(self, task: asyncio.Task[DetectResponse]) -> None:
        self._in_flight.discard(task)
        self._settled.set()

    @contextmanager
    def _timing_commit(self) -> Iterator[None]:
        """Learn how long the ledger takes to commit: a send time must be at least as far away."""
        began_s = self._clock.monotonic()
        yield
        self._commit_s = max(self._clock.monotonic() - began_s, 0.8 * self._commit_s)
        if self._commit_s > SLOW_COMMIT_S and not self._is_slow_reported:
            self._is_slow_reported = True
            _log.warning(
                "the ledger is slow, it took %.1f s to write; a faster disk or database keeps the rate up",
                self._commit_s,
            )

    @property
    def _ahead_s(self) -> float:
        """How far ahead calls are reserved: as many share a commit as are sent in its time."""
        return max(AHEAD_S, AHEAD_COMMITS * self._commit_s)

    def _tune_reserve_delay(self, lead_s: float, rate_per_s: float) -> None:
        """Reserve not long before the send time: a process that joins waits for the leads of all others."""
        surplus_s = lead_s - max(WANTED_LEAD_S, 2 / rate_per_s, self._ahead_s)
        delay_s = self._reserve_delay_s + surplus_s / 2 if lead_s > LATE_S else 0.0
        self._reserve_delay_s = min(max(0.0, delay_s), MAX_RESERVE_DELAY_S)

    async def _wait_for_budget(self, result: OutOfBudget) -> None:
        """The budget is used up: for good, or until a call in flight turns out to be free."""
        if result.final:
            self.budget_exhausted = True
            return
        self._settled.clear()
        await self._stop.sleep(self._policy.busy_s, self._settled)
