"""The engine: checks images. Sends each in its turn, settles its response, and retries it by policy."""

import asyncio
import random
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Protocol

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain import systemic_refusal
from s2v_tasks.domain.detect import (
    DetectResponse,
    Kind,
    Request,
    account_error_message,
    build_request,
    lost_response,
)
from s2v_tasks.domain.ledger import (
    RUN_STOPPED,
    ImageStatus,
    Reserved,
    final_verdict,
    lost_verdict,
    skipped_verdict,
    verdict_of,
    with_ledger_figures,
)
from s2v_tasks.domain.rate_limit import FIRST_PAUSE_US, SECOND_US
from s2v_tasks.domain.retry_policy import AttemptHistory, RetryPolicy
from s2v_tasks.domain.systemic_refusal import Refusals
from s2v_tasks.errors import AccountRefused, Interrupted, LedgerUnavailable, RunStopped
from s2v_tasks.models import UniqueImage, Verdict
from s2v_tasks.runtime.circuit_breaker import CircuitBreaker
from s2v_tasks.runtime.run_stats import RunStats
from s2v_tasks.runtime.send_line import SendLine
from s2v_tasks.runtime.send_scheduler import NotSent, SendScheduler
from s2v_tasks.runtime.stop_signal import StopSignal

FIRST_PAUSE_S: Final = FIRST_PAUSE_US / SECOND_US


class Client(Protocol):
    """What makes the call: `s2v_tasks.adapters.http.detect_client.DetectClient`."""

    async def send(self, request: Request, on_written: Callable[[], None]) -> DetectResponse:
        """Make one call; never raises for a failed one. ``on_written``: called once it is on its way."""
        ...


class Engine:
    """Checks images for one run. ``rate_per_s`` is read before each reservation; 0 pauses.

    ``refusals`` is what an earlier process of the run saw: the images that it suspected are sent last.
    ``on_verdict`` is called with each verdict as it comes: others of its shard may wait for a late retry.
    """

    def __init__(
        self,
        ledger: RunLedger,
        client: Client,
        clock: Clock,
        rate_per_s: Callable[[], float],
        policy: RetryPolicy | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self.stats = RunStats()
        self.refusals = refusals or Refusals()
        self.line = SendLine()
        self.on_verdict: Callable[[Verdict], None] = lambda _: None
        self._ledger = ledger
        self._client = client
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._stop = StopSignal(clock)
        self._breaker = CircuitBreaker(clock, self._policy)
        self._scheduler = SendScheduler(
            ledger, clock, self._stop, self._breaker, self._policy, rate_per_s, self
        )
        self._repeated = 0

    @property
    def stopped(self) -> RunStopped | None:
        """Why the run sends nothing more, if so."""
        return self._stop.error

    @property
    def budget_exhausted(self) -> bool:
        """Whether the budget covers no further call."""
        return self._scheduler.budget_exhausted

    def stop(self, error: RunStopped) -> None:
        """Send nothing more. Calls in flight finish and settle; the first reason stays."""
        self._stop.set(error, self._policy.stop_s if isinstance(error, Interrupted) else inf)

    async def until_stopped(self) -> None:
        """Wait until the run stops."""
        await self._stop.wait()

    async def finish(self) -> None:
        """Wait for the calls in flight, a bounded time; those still out are given up: unknown."""
        await self._scheduler.finish()

    # -- a shard -----------------------------------------------------------------------------------------

    async def check_images(self, shard: Sequence[UniqueImage]) -> list[Verdict]:
        """One verdict for each image, in order. An obstacle stops the run: see ``stopped``.

        Images that were not sent any more come back ``skipped``.
        """
        async with asyncio.TaskGroup() as group:
            checks = [group.create_task(self._check_image(image)) for image in shard]
        statuses = await self._ledger.image_statuses([c.image_key for c in shard])
        return [
            self._with_ledger_figures(check.result(), statuses[check.result().image_key]) for check in checks
        ]

    async def known(self, image_keys: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts that need no call, by key; ``skipped`` for what was charged but got no response."""
        verdicts = {}
        for key, status in (await self._ledger.image_statuses(image_keys)).items():
            if status.verdict is not None or status.is_exhausted(self._ledger.on_lost_response):
                self.stats.reused += 1
                verdicts[key] = self._with_ledger_figures(status.verdict or lost_verdict(key), status)
            elif status.charges:
                verdicts[key] = self._with_ledger_figures(skipped_verdict(key, RUN_STOPPED), status)
        return verdicts

    def _with_ledger_figures(self, verdict: Verdict, status: ImageStatus) -> Verdict:
        return with_ledger_figures(verdict, status, self._ledger.run_id, self._clock.utcnow())

    # -- an image ----------------------------------------------------------------------------------------

    async def _check_image(self, image: UniqueImage) -> Verdict:
        """Send an image until a response is final."""
        history, response = AttemptHistory(), None
        while True:
            result = await self._scheduler.send(image, self._call)
            self.line.leave([image.image_key])
            if isinstance(result, NotSent):
                verdict = result.verdict if response is None else final_verdict(result.verdict, response)
                break
            response = await self._response(result.response)
            if response is None or response.kind is Kind.ACCOUNT:
                lost = response is None
                key = image.image_key
                verdict = lost_verdict(key) if lost else skipped_verdict(key, RUN_STOPPED)
                break
            history = history.after(response)
            delay_s = self._next_delay(response, history)
            if delay_s is None:
                verdict = verdict_of(image.image_key, response)
                break
            await self._stop.sleep(delay_s)
        if self.refusals.is_refused(image.image_key):  # the account was, not the image
            verdict = skipped_verdict(image.image_key, RUN_STOPPED)
        self.stats.checked[verdict.outcome] += 1
        self.on_verdict(verdict)
        return verdict

    def _next_delay(self, response: DetectResponse, history: AttemptHistory) -> float | None:
        jitter = random.random()  # noqa: S311  (no secret)
        delay_s = self._policy.next_delay(response, history, self._repeated, self.stats.calls, jitter)
        self._repeated += response.kind is Kind.TRANSIENT and delay_s is not None
        return delay_s

    async def _response(self, call: asyncio.Task[DetectResponse]) -> DetectResponse | None:
        """Wait for a response; once the run is stopping, for a bounded time: None if it did not come.

        The call outlives the task that waits for it, so what was paid for is always settled.
        """
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({call, stop}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({call}, timeout=self._stop.at_most(self._policy.settle_s))
        finally:
            stop.cancel()
        return call.result() if call.done() else None

    # -- a call ------------------------------------------------------------------------------------------

    async def _call(self, image: UniqueImage, reserved: Reserved) -> DetectResponse:
        """Send, settle the response, and let it act on the run."""
        self.stats.count_sent(self._clock.monotonic())
        request = build_request(self._ledger.scope.detector, image.url)
        response = await self._client.send(request, self._scheduler.written.note)
        if response.kind is Kind.THROTTLED:  # at once, while the shared row is being written
            self._scheduler.paused_until_s = self._clock.monotonic() + FIRST_PAUSE_S
        try:
            await self._settle(image.image_key, reserved, response)
            if response.kind is Kind.THROTTLED:
                until_s = await self._ledger.slow_down(reserved.send_us, response)
                self._scheduler.paused_until_s = until_s
        except RunStopped as error:  # the ledger is out of reach: a response not stored is a response lost
            self.stop(error)
            response = lost_response("the response could not be written to the ledger", sent=True)
        self._act_on(image, response)
        return response

    async def _settle(self, image_key: str, reserved: Reserved, response: DetectResponse) -> None:
        """Store a response, with patience for a ledger that is busy or away: it was paid for."""
        until_s = self._clock.monotonic() + self._policy.settle_s
        while True:
            try:
                return await self._ledger.settle(image_key, reserved.attempt_id, response)
            except LedgerUnavailable as error:
                self.stop(error)
                if self._clock.monotonic() > until_s or not self._stop.at_most(1.0):
                    raise
                await self._clock.sleep(1.0)

    def _act_on(self, image: UniqueImage, response: DetectResponse) -> None:
        """Count a response; stop the run if it shows that every further call would fail too."""
        self.stats.count_response(response, self._ledger.scope.detector.price_micro_usd)
        if response.kind is Kind.ACCOUNT:
            self.stop(AccountRefused(account_error_message(response), request_id=response.request_id))
        if outage := self._breaker.record(response):
            self.stop(outage)
        self.refusals = self.refusals.after(image.image_key, image.host, response)
        if self.refusals.stopped and not self.stopped:
            message = systemic_refusal.message(response)
            self.stop(AccountRefused(message, image.image_key, response.request_id))

    # -- the send order: suspected images last, and not always the same host ------------------------------

    @property
    def is_neutral(self) -> bool:
        """Whether all images are of equal rank."""
        return self.refusals.avoided_host is None and not self.refusals.stop_counts

    def rank(self, image: UniqueImage) -> tuple[bool, ...]:
        """Images that an earlier process of the run suspected go last, then those of the host to avoid."""
        return image.image_key in self.refusals.stop_counts, image.host == self.refusals.avoided_host
