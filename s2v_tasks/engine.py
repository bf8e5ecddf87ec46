"""The only loop that pays: reserve -> wait -> send -> read -> settle, and the one retry layer.

All pictures of a process go through one turnstile, first come first served: whoever is in it reserves an
instant in the ledger, waits for it and sends. It holds one picture, or at large allowances a tenth of a
second's. Answers are waited for outside, so a slow answer holds up nobody. Every call, the first or a retry,
goes through a reservation of its own.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlsplit

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.detect import Answer, Kind, Request, build_request, no_answer, refusal
from s2v_tasks.errors import AccountRefused, LedgerUnavailable, Outage, RunStopped
from s2v_tasks.ledger import (
    BUDGET_SPENT,
    RUN_STOPPED,
    Busy,
    NotReserved,
    Reserved,
    Spent,
    Standing,
    best_of,
    charged,
    is_success,
    lost_verdict,
    unasked,
    verdict_of,
)
from s2v_tasks.models import Billing, Candidate, Outcome, Verdict
from s2v_tasks.pace import FIRST_PAUSE_US, SECOND_US

LATE_S: Final = 0.008
"""An instant missed by more is not sent blindly: it would crowd the next one."""
MAX_LEAD_S: Final = 1.0
AHEAD_S: Final = 0.1
"""How far ahead one process reserves: at most this, or one call."""
WANTED_LEAD_S: Final = 2 * AHEAD_S
"""How long before its instant a call is best reserved: this, or two intervals between calls."""
MAX_PATIENCE_S: Final = 1.0
FIRST_PAUSE_S: Final = FIRST_PAUSE_US / SECOND_US
PAUSED_LOOK_S: Final = 1.0


class Client(Protocol):
    """What makes the call: `s2v_tasks.adapters.dashscope.DetectClient`."""

    async def send(self, request: Request) -> Answer:
        """Make one call; never raises for a failed one."""
        ...


@dataclass(frozen=True, slots=True)
class Retries:
    """The one retry policy. Times in seconds; a late retry waits a random time between its two bounds.

    After failures of the service a run repeats up to ``budget`` calls and ``budget_share`` of all answered
    ones: a service in trouble is not asked ever more. ``max_under_way`` is for the model's own rate, and
    grows with a larger allowance.
    """

    transient: int = 4
    budget: int = 100
    budget_share: float = 0.2
    backoff_s: float = 1.0
    max_backoff_s: float = 30.0
    late: int = 1
    late_s: tuple[float, float] = (20.0, 60.0)
    outage_after_s: float = 300.0
    busy_s: float = 0.5
    max_under_way: int = 64
    settle_s: float = 30.0


@dataclass(slots=True)
class Tally:
    """What this process did so far, for progress bars; the ledger is the truth about money."""

    judged: Counter[Outcome] = field(default_factory=Counter)
    reused: int = 0
    calls: int = 0
    charged_micro_usd: int = 0
    throttled: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    unrecognised: int = 0
    first_unrecognised: Answer | None = None
    sent: int = 0
    first_sent_s: float = 0.0
    last_sent_s: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Calls a second from the first to the last one sent."""
        span_s = self.last_sent_s - self.first_sent_s
        return (self.sent - 1) / span_s if span_s > 0 else 0.0

    def note_sent(self, now_s: float) -> None:
        """Count a call that leaves."""
        self.first_sent_s = self.first_sent_s if self.sent else now_s
        self.last_sent_s = now_s
        self.sent += 1


@dataclass(slots=True)
class _History:
    """What one picture went through in this run."""

    transient: int = 0
    late: int = 0


class Engine:
    """Judges pictures for one run. ``rate_per_s`` is asked before each reservation; 0 pauses."""

    def __init__(
        self,
        ledger: LedgerDatabase,
        lease: Lease,
        client: Client,
        clock: Clock,
        rate_per_s: Callable[[], float],
        retries: Retries | None = None,
    ) -> None:
        self.tally = Tally()
        self.stopped: RunStopped | None = None
        self.budget_spent = False
        self._ledger = ledger
        self._lease = lease
        self._client = client
        self._clock = clock
        self._rate_per_s = rate_per_s
        self._retries = retries or Retries()
        self._door = asyncio.Lock()
        self._inside = 0
        self._left = asyncio.Event()
        self._repeated = 0
        self._patience_s = 0.0
        self._stop = asyncio.Event()
        self._settled = asyncio.Event()
        self._calls: set[asyncio.Task[Answer]] = set()
        self._failures = 0
        self._failing_since: float | None = None
        self._paused_until_s = clock.monotonic()

    # -- the shard ---------------------------------------------------------------------------------------

    async def judge(self, shard: Sequence[Candidate]) -> list[Verdict]:
        """One verdict for each picture, in order. An obstacle stops the run: see ``stopped``.

        Pictures that were not asked any more come back ``unspent``.
        """
        async with asyncio.TaskGroup() as group:
            judging = [group.create_task(self._judge(candidate)) for candidate in shard]
        standings = await self._ledger.standings(self._lease, [c.image_key for c in shard])
        return [
            self._charged(verdict, standings[verdict.image_key]) for verdict in (j.result() for j in judging)
        ]

    async def known(self, image_keys: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts that need no call, by key; ``unspent`` for what was charged but never answered."""
        standings = await self._ledger.standings(self._lease, image_keys)
        verdicts = {}
        for key, standing in standings.items():
            if standing.verdict is not None or standing.is_exhausted(self._lease.on_unknown):
                self.tally.reused += 1
                verdicts[key] = self._charged(standing.verdict or lost_verdict(key), standing)
            elif standing.charges:
                verdicts[key] = self._charged(unasked(key, RUN_STOPPED), standing)
        return verdicts

    async def until_stopped(self) -> None:
        """Wait until the run asks nothing more."""
        await self._stop.wait()

    def _charged(self, verdict: Verdict, standing: Standing) -> Verdict:
        return charged(verdict, standing, self._lease.run_id, self._clock.utcnow())

    # -- one picture ---------------------------------------------------------------------------------------

    async def _judge(self, candidate: Candidate) -> Verdict:
        history = _History()
        answer: Answer | None = None
        while True:
            came = await self._ask(candidate)
            if isinstance(came, Verdict):
                verdict = came if answer is None else best_of(came, answer)
                break
            answer = came
            delay_s = self._retry_in(answer, history)
            if delay_s is None:
                verdict = verdict_of(candidate.image_key, answer)
                break
            await self._wait(delay_s)
        self.tally.judged[verdict.outcome] += 1
        return verdict

    def _retry_in(self, answer: Answer, history: _History) -> float | None:
        """Seconds until the next attempt for this picture, or None: the answer stands."""
        if answer.kind is Kind.THROTTLED:
            return 0.0  # the shared pause holds it back
        if answer.kind is Kind.TRANSIENT:
            history.transient += 1
            allowed = self._retries.budget + self._retries.budget_share * self.tally.calls
            if history.transient >= self._retries.transient or self._repeated >= allowed:
                return None
            self._repeated += 1
            ceiling = self._retries.backoff_s * 2.0 ** (history.transient - 1)
            backoff_s = random.uniform(0.5, 1.0) * min(ceiling, self._retries.max_backoff_s)  # noqa: S311  (jitter)
            return max(backoff_s, answer.retry_after_s or 0.0)
        if answer.late_retry and history.late < self._retries.late:
            history.late += 1
            late_s = random.uniform(*self._retries.late_s)  # noqa: S311  (jitter)
            return max(late_s, answer.retry_after_s or 0.0)
        return None

    async def _ask(self, candidate: Candidate) -> Answer | Verdict:
        """One call for one picture, or the verdict that makes it needless or impossible."""
        while True:
            async with self._turnstile() as rate_per_s:
                come = await self._send(candidate, rate_per_s)
            if isinstance(come, asyncio.Task):
                return await self._answer(come, candidate.image_key)
            if isinstance(come, Verdict):
                return come
            await self._wait(self._retries.busy_s)

    @asynccontextmanager
    async def _turnstile(self) -> AsyncIterator[float]:
        """One's turn to reserve and send, at the rate it gives."""
        async with self._door:
            while self._inside >= max(1, round(AHEAD_S * self._rate_per_s())):
                self._left.clear()
                await self._left.wait()
            await self._hold_back()
            rate_per_s = await self._allowed()
            await self._make_room(rate_per_s)
            if self._patience_s:
                await self._wait(self._patience_s)
            self._inside += 1
        try:
            yield rate_per_s
        finally:
            self._inside -= 1
            self._left.set()

    def _learn(self, lead_s: float, rate_per_s: float) -> None:
        """Next time, reserve not long before the instant comes: who joins many waits for all their leads."""
        surplus_s = lead_s - max(WANTED_LEAD_S, 2 / rate_per_s)
        patience_s = self._patience_s + surplus_s / 2 if lead_s > LATE_S else 0.0
        self._patience_s = min(max(0.0, patience_s), MAX_PATIENCE_S)

    async def _answer(self, call: asyncio.Task[Answer], image_key: str) -> Answer | Verdict:
        """Wait for an answer; once the run is stopping, for a bounded time.

        The call outlives whoever waits for it, so what was paid for is always settled.
        """
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({call, stop}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({call}, timeout=self._retries.settle_s)
        finally:
            stop.cancel()
        if not call.done():
            return lost_verdict(image_key)
        answer = call.result()
        return unasked(image_key, RUN_STOPPED) if answer.kind is Kind.ACCOUNT else answer

    async def _send(self, candidate: Candidate, rate_per_s: float) -> "asyncio.Task[Answer] | Verdict | Busy":
        """Inside the turnstile: reserve, wait for the instant, let the call leave."""
        key, host = candidate.image_key, urlsplit(candidate.url).hostname or ""
        try:
            while not self.stopped and not self.budget_spent:
                come = await self._ledger.reserve(self._lease, key, host, rate_per_s)
                if isinstance(come, Reserved):
                    self._learn(come.at_s - self._clock.monotonic(), rate_per_s)
                    try:
                        return await self._leave(candidate, come) or unasked(key, RUN_STOPPED)
                    except asyncio.CancelledError:
                        await self._ledger.release(self._lease, come)
                        raise
                if isinstance(come, NotReserved):
                    return come.standing.verdict or lost_verdict(key)
                if isinstance(come, Busy):
                    return come
                await self._await_money(come)
        except RunStopped as error:
            self.stop(error)
        return unasked(key, RUN_STOPPED if self.stopped else BUDGET_SPENT)

    async def _leave(self, candidate: Candidate, reserved: Reserved) -> "asyncio.Task[Answer] | None":
        """Wait for the reserved instant and send; None if the run stopped first (the money is given back)."""
        lead_s = LATE_S
        while True:
            await self._wait(reserved.at_s - self._clock.monotonic())
            if self.stopped:
                await self._ledger.release(self._lease, reserved)
                return None
            now_s = self._clock.monotonic()
            if self._rate_per_s() > 0 and now_s - reserved.at_s <= LATE_S and now_s >= self._paused_until_s:
                break
            lead_s = min(2 * lead_s, MAX_LEAD_S)
            reserved = await self._ledger.postpone(self._lease, reserved, await self._allowed(), lead_s)
        # Nothing is awaited between the instant and the send.
        call = asyncio.create_task(self._call(candidate, reserved))
        self.tally.note_sent(self._clock.monotonic())
        self._calls.add(call)
        call.add_done_callback(self._called)
        return call

    async def _call(self, candidate: Candidate, reserved: Reserved) -> Answer:
        answer = await self._client.send(build_request(self._lease.scope.profile, candidate.url))
        if answer.kind is Kind.THROTTLED:  # at once, while the shared row is being written
            self._paused_until_s = self._clock.monotonic() + FIRST_PAUSE_S
        try:
            await self._settle(candidate.image_key, reserved, answer)
            if answer.kind is Kind.THROTTLED:
                self._paused_until_s = await self._ledger.slow_down(self._lease, reserved.instant_us, answer)
        except RunStopped as error:  # the ledger is out of reach: an answer not kept is an answer lost
            self.stop(error)
            answer = no_answer("the answer could not be written to the ledger", sent=True)
        self._note(answer)
        return answer

    async def _settle(self, image_key: str, reserved: Reserved, answer: Answer) -> None:
        """Keep an answer, with patience for a ledger that is busy or away: it was paid for."""
        until_s = self._clock.monotonic() + self._retries.settle_s
        while True:
            try:
                return await self._ledger.settle(self._lease, image_key, reserved.attempt_id, answer)
            except LedgerUnavailable as error:
                self.stop(error)
                if self._clock.monotonic() > until_s:
                    raise
                await self._clock.sleep(1.0)

    def _called(self, call: asyncio.Task[Answer]) -> None:
        self._calls.discard(call)
        self._settled.set()

    # -- the run -----------------------------------------------------------------------------------------

    def stop(self, error: RunStopped) -> None:
        """Ask nothing more. Calls under way finish and settle; the first reason stays."""
        self.stopped = self.stopped or error
        self._stop.set()

    async def finish(self) -> None:
        """Wait for the calls under way, a bounded time; those still out are given up: unknown."""
        if self._calls:
            _, out = await asyncio.wait(set(self._calls), timeout=self._retries.settle_s)
            for call in out:
                call.cancel()
            await asyncio.gather(*out, return_exceptions=True)

    def _note(self, answer: Answer) -> None:
        """Count an answer, and see whether the service works."""
        price = self._lease.scope.profile.price_micro_usd
        self.tally.calls += 1
        self.tally.charged_micro_usd += price * (answer.billing is not Billing.NOT_BILLED)
        self.tally.throttled += answer.kind is Kind.THROTTLED
        if answer.kind is not Kind.VERDICT:
            self.tally.codes[answer.code or answer.reason or "?"] += 1
        if answer.kind is Kind.UNRECOGNISED:
            self.tally.unrecognised += 1
            self.tally.first_unrecognised = self.tally.first_unrecognised or answer
        if answer.kind is Kind.ACCOUNT:
            self.stop(AccountRefused(refusal(answer), request_id=answer.request_id))
        if is_success(answer):
            self._failures, self._failing_since = 0, None
            return
        self._failures += answer.kind is Kind.TRANSIENT
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
        silent_s = self._clock.monotonic() - self._failing_since
        if silent_s > self._retries.outage_after_s:
            self.stop(
                Outage(
                    f"the service gave no usable answer for {silent_s:.0f} s (last: {answer.words});"
                    " everything received is kept: run the same command again later"
                )
            )

    async def _hold_back(self) -> None:
        """While the service keeps failing, ask more and more rarely."""
        if self._failures > 2:
            await self._wait(min(0.5 * 2.0 ** min(self._failures - 3, 10), self._retries.max_backoff_s))

    async def _make_room(self, rate_per_s: float) -> None:
        """A service that stalls must not pile up calls without bound."""
        larger = max(1.0, rate_per_s / self._lease.scope.profile.rate_per_s)
        while len(self._calls) + self._inside >= self._retries.max_under_way * larger and not self.stopped:
            self._settled.clear()
            await self._wait(self._retries.max_backoff_s, self._settled)

    async def _allowed(self) -> float:
        """The account's rate, waiting while it is 0: the operator's way to pause."""
        while (rate_per_s := self._rate_per_s()) <= 0 and not self.stopped:
            self._failing_since = None
            await self._wait(PAUSED_LOOK_S)
        return rate_per_s or self._lease.scope.profile.rate_per_s

    async def _await_money(self, spent: Spent) -> None:
        """Money is out: for good, or until a call under way turns out to be free."""
        if spent.final:
            self.budget_spent = True
            return
        self._settled.clear()
        await self._wait(self._retries.busy_s, self._settled)

    async def _wait(self, seconds: float, event: asyncio.Event | None = None) -> None:
        """Sleep, but wake when the run stops (or ``event`` is set)."""
        sleeps: list[asyncio.Future[object]] = [asyncio.ensure_future(self._clock.sleep(seconds))]
        sleeps += [asyncio.ensure_future(e.wait()) for e in (self._stop, event) if e is not None]
        try:
            await asyncio.wait(sleeps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sleep in sleeps:
                sleep.cancel()
