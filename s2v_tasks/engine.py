"""The only loop that pays: reserve -> wait -> send -> read -> settle, and the one retry layer.

All pictures of a process go through one turnstile, first come first served: whoever is in it reserves an
instant in the ledger, waits for it and sends. Answers are waited for outside, so a slow answer holds up
nobody. Every call, the first or a retry, goes through a reservation of its own.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol
from urllib.parse import urlsplit

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database import Busy, Lease, LedgerDatabase, NotReserved, Reserved, Spent
from s2v_tasks.detect import Answer, Kind, Request, build_request
from s2v_tasks.errors import AccountRefused, Outage, RunStopped
from s2v_tasks.ledger import Standing, is_success, lost_verdict, unasked, verdict_of
from s2v_tasks.models import Billing, Candidate, Outcome, Verdict

LATE_S: Final = 0.008
"""An instant missed by more is not sent blindly: it would crowd the next one."""
PAUSED_LOOK_S: Final = 1.0


class Client(Protocol):
    """What makes the call: `s2v_tasks.adapters.dashscope.DetectClient`."""

    async def send(self, request: Request) -> Answer:
        """Make one call; never raises for a failed one."""
        ...


@dataclass(frozen=True, slots=True)
class Retries:
    """The one retry policy. Times in seconds; a late retry waits a random time between its two bounds."""

    transient: int = 4
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
        self._turnstile = asyncio.Lock()
        self._room = asyncio.Semaphore(self._retries.max_under_way)
        self._stop = asyncio.Event()
        self._settled = asyncio.Event()
        self._calls: set[asyncio.Task[Answer]] = set()
        self._failures = 0
        self._working_at = clock.monotonic()

    # -- the shard ---------------------------------------------------------------------------------------

    async def judge(self, shard: Sequence[Candidate]) -> list[Verdict]:
        """One verdict for each picture, in order. An obstacle stops the run: see ``stopped``.

        Pictures that were not asked any more come back ``unspent``.
        """
        decided = await asyncio.gather(*(self._judge(candidate) for candidate in shard))
        standings = await self._ledger.standings(self._lease, [c.image_key for c in shard])
        return [self._charged(verdict, standings[verdict.image_key]) for verdict in decided]

    async def known(self, image_keys: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts that need no call, by key."""
        standings = await self._ledger.standings(self._lease, image_keys)
        verdicts = {}
        for key, standing in standings.items():
            if standing.verdict is not None or standing.is_exhausted(self._lease.on_unknown):
                self.tally.reused += 1
                verdicts[key] = self._charged(standing.verdict or lost_verdict(key), standing)
        return verdicts

    def _charged(self, verdict: Verdict, standing: Standing) -> Verdict:
        remembered = standing.verdict
        if remembered is not None and verdict.outcome is remembered.outcome:
            verdict = remembered  # the ledger's word, with the time it was given
        return replace(
            verdict,
            attempts=standing.calls_run,
            cost_micro_usd=standing.charges_run,
            paid_micro_usd=standing.charges,
            from_ledger=remembered is not None and standing.verdict_run != self._lease.run_id,
            judged_at=verdict.judged_at or (self._clock.utcnow() if standing.calls_run else None),
        )

    # -- one picture ---------------------------------------------------------------------------------------

    async def _judge(self, candidate: Candidate) -> Verdict:
        history = _History()
        answer: Answer | None = None
        while True:
            came = await self._ask(candidate)
            if isinstance(came, Verdict):
                # Stopped or out of money while retrying: the answer that was received still stands.
                unasked_now = came.outcome is Outcome.UNSPENT
                verdict = verdict_of(candidate.image_key, answer) if answer and unasked_now else came
                break
            answer = came
            delay_s = self._retry_in(answer, history)
            if delay_s is None or self.stopped:
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
            if history.transient >= self._retries.transient:
                return None
            ceiling = self._retries.backoff_s * 2 ** (history.transient - 1)
            return random.uniform(0.5, 1.0) * min(ceiling, self._retries.max_backoff_s)  # noqa: S311  (jitter)
        if answer.late_retry and history.late < self._retries.late:
            history.late += 1
            return random.uniform(*self._retries.late_s)  # noqa: S311  (jitter)
        return None

    async def _ask(self, candidate: Candidate) -> Answer | Verdict:
        """One call for one picture, or the verdict that makes it needless or impossible."""
        while True:
            async with self._turnstile:
                come = await self._send(candidate)
            if isinstance(come, asyncio.Task):
                # The call outlives whoever waits for it: what was paid for is always settled.
                return await asyncio.shield(come)
            if isinstance(come, Verdict):
                return come
            await self._wait(self._retries.busy_s)

    async def _send(self, candidate: Candidate) -> "asyncio.Task[Answer] | Verdict | Busy":
        """Inside the turnstile: reserve, wait for the instant, let the call leave."""
        key, host = candidate.image_key, urlsplit(candidate.url).hostname or ""
        try:
            while not self.stopped and not self.budget_spent:
                await self._hold_back()
                rate_per_s = await self._allowed()
                if self.stopped:
                    break
                come = await self._ledger.reserve(self._lease, key, host, rate_per_s)
                if isinstance(come, Reserved):
                    return await self._leave(candidate, come) or unasked(key, "run_stopped")
                if isinstance(come, NotReserved):
                    return come.standing.verdict or lost_verdict(key)
                if isinstance(come, Busy):
                    return come
                await self._await_money(come)
        except RunStopped as error:
            self.stop(error)
        return unasked(key, "run_stopped" if self.stopped else "budget_spent")

    async def _leave(self, candidate: Candidate, reserved: Reserved) -> "asyncio.Task[Answer] | None":
        """Wait for the reserved instant and send; None if the run stopped first (the money is given back)."""
        await self._room.acquire()
        while True:
            await self._wait(reserved.at_s - self._clock.monotonic())
            if self.stopped:
                self._room.release()
                unsent = Answer(Kind.TRANSIENT, Billing.NOT_BILLED, message="not sent: the run stopped")
                await self._ledger.settle(self._lease, candidate.image_key, reserved.attempt_id, unsent)
                return None
            rate_per_s = self._rate_per_s()
            if rate_per_s > 0 and self._clock.monotonic() - reserved.at_s <= LATE_S:
                break
            reserved = await self._ledger.postpone(self._lease, reserved, await self._allowed())
        # Nothing is awaited between the instant and the send.
        call = asyncio.create_task(self._call(candidate, reserved))
        self._calls.add(call)
        call.add_done_callback(self._called)
        return call

    async def _call(self, candidate: Candidate, reserved: Reserved) -> Answer:
        answer = await self._client.send(build_request(self._lease.scope.profile, candidate.url))
        await self._ledger.settle(self._lease, candidate.image_key, reserved.attempt_id, answer)
        if answer.kind is Kind.THROTTLED:
            await self._ledger.slow_down(self._lease, reserved.instant_us, answer.retry_after_s or 0.0)
        self._note(answer)
        return answer

    def _called(self, call: asyncio.Task[Answer]) -> None:
        self._calls.discard(call)
        self._room.release()
        self._settled.set()

    # -- the run -----------------------------------------------------------------------------------------

    def stop(self, error: RunStopped) -> None:
        """Ask nothing more. Calls under way finish and settle; the first reason stays."""
        self.stopped = self.stopped or error
        self._stop.set()

    async def finish(self) -> None:
        """Wait for the calls under way, a bounded time; those still out are counted as unknown."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=self._retries.settle_s)

    def _note(self, answer: Answer) -> None:
        """Count an answer, and see whether the service works."""
        price = self._lease.scope.profile.price_micro_usd
        self.tally.calls += 1
        self.tally.charged_micro_usd += price * (answer.billing is not Billing.NOT_BILLED)
        self.tally.throttled += answer.kind is Kind.THROTTLED
        if answer.kind is not Kind.VERDICT:
            self.tally.codes[answer.code or answer.reason or "?"] += 1
        if answer.kind is Kind.ACCOUNT:
            self.stop(_account_refused(answer))
        if is_success(answer):
            self._failures = 0
            self._working_at = self._clock.monotonic()
        elif answer.kind is Kind.TRANSIENT:
            self._failures += 1
        silent_s = self._clock.monotonic() - self._working_at
        if silent_s > self._retries.outage_after_s:
            self.stop(
                Outage(
                    f"the service gave no usable answer for {silent_s:.0f} s (last: {_words(answer)});"
                    " everything received is kept: run the same command again later"
                )
            )

    async def _hold_back(self) -> None:
        """While the service keeps failing, ask more and more rarely."""
        if self._failures > 2:
            await self._wait(min(0.5 * 2 ** (self._failures - 3), self._retries.max_backoff_s))

    async def _allowed(self) -> float:
        """The account's rate, waiting while it is 0: the operator's way to pause."""
        while (rate_per_s := self._rate_per_s()) <= 0 and not self.stopped:
            self._working_at = self._clock.monotonic()
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
        sleeps = [asyncio.ensure_future(self._clock.sleep(seconds))]
        sleeps += [asyncio.ensure_future(e.wait()) for e in (self._stop, event) if e is not None]
        try:
            await asyncio.wait(sleeps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sleep in sleeps:
                sleep.cancel()


def _words(answer: Answer) -> str:
    status = f"HTTP {answer.http_status}" if answer.http_status else "no HTTP answer"
    return " ".join(part for part in (status, answer.code, answer.message) if part)


_ADVICE: Final[Mapping[str, str]] = {
    "401": "check DASHSCOPE_API_KEY: it must be a key of the China (Beijing) region and of this workspace",
    "403": "grant the account access to the model (and the workspace) in the vendor's console",
    "Arrearage": "pay the account's balance in the vendor's console",
    "overdue": "pay the account's bill in the vendor's console",
    "quota": "the free quota is used up: switch off 'free tier only' in the vendor's console",
    "404": "check the model's and the workspace's name, and the region of the base URL",
}


def _account_refused(answer: Answer) -> AccountRefused:
    text = f"{answer.http_status} {answer.code} {answer.message}".casefold()
    order = ("Arrearage", "overdue", "quota", "401", "403", "404")
    advice = next((_ADVICE[k] for k in order if k.casefold() in text), "see the vendor's error-code page")
    return AccountRefused(
        f"the vendor refuses the account ({_words(answer)}); {advice}."
        " Everything received is kept: run the same command again afterwards",
        request_id=answer.request_id,
    )
