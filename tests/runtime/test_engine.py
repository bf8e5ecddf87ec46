"""The engine on a real ledger file, against the emulator or a scripted service, on a clock that jumps."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from support import DOWN, PASSED, PRICE, THROTTLED, EngineHarness, JumpingClock, make_images, outcomes, until

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.http.detect_client import DetectClient, service_of
from s2v_tasks.domain.detect import DetectResponse, Kind, Request, lost_response, parse_response
from s2v_tasks.domain.ledger import State
from s2v_tasks.domain.retry_policy import RetryPolicy
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.errors import AccountRefused, Interrupted, LeaseLost, Outage
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, Outcome
from s2v_tasks.settings import Credentials, OnLostResponse


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[EngineHarness]:
    harness = EngineHarness(tmp_path, JumpingClock())
    async with harness.ledger:
        yield harness


@asynccontextmanager
async def client_of(emulator: Emulator) -> AsyncIterator[DetectClient]:
    access = Credentials(emulator.base_url, SecretStr("key"))
    async with DetectClient(access, WAN22_S2V_DETECT) as client:
        yield client


@pytest.fixture(scope="module")
def emulator() -> AsyncIterator[Emulator]:
    with Emulator(EmulatorOptions(limit=None, fetch_images=False)) as running:
        yield running


@pytest.fixture
def service(emulator: Emulator) -> Emulator:
    emulator.reset()
    emulator.set_faults([])
    return emulator


async def test_every_image_gets_one_verdict_and_the_invoice_is_the_ledger(
    harness: EngineHarness, service: Emulator
) -> None:
    """Twenty images: twenty billed calls, each in the ledger with the vendor's request id."""
    lease = await harness.lease("a", service=service_of(service.base_url))
    shard = make_images(15, service.origin) + make_images(5, service.origin, "scenery")
    async with client_of(service) as client:
        verdicts = await harness.engine(lease, client).check_images(shard)
    assert outcomes(verdicts) == {Outcome.PASSED: 15, Outcome.FAILED: 5}
    assert [v.image_key for v in verdicts] == [c.image_key for c in shard]
    assert {v.request_id for v in verdicts} == {line["request_id"] for line in service.invoice()}
    assert all(
        v.run_cost_micro_usd == v.lifetime_cost_micro_usd == PRICE and v.attempts == 1 for v in verdicts
    )


async def test_an_image_that_is_known_is_not_sent_again(harness: EngineHarness) -> None:
    """A second run on the same ledger takes the first one's verdicts, free of charge."""
    service = harness.scripted(lambda n, url: PASSED)
    shard = make_images(3)
    await harness.engine(await harness.lease("a"), service).check_images(shard)
    engine = harness.engine(await harness.lease("b"), service)
    known = await engine.known([c.image_key for c in shard])
    again = await engine.check_images(shard)
    assert len(service.sent_s) == 3
    for verdict in [*known.values(), *again]:
        assert (verdict.outcome, verdict.from_ledger, verdict.run_cost_micro_usd) == (Outcome.PASSED, True, 0)
        assert verdict.lifetime_cost_micro_usd == PRICE


async def test_calls_are_sent_evenly_and_never_six_in_a_second(harness: EngineHarness) -> None:
    """Sixty calls at 5 a second with 1 % margin: 202 ms apart, whatever the number of shards under way."""
    service = harness.scripted(lambda n, url: PASSED)
    engine = harness.engine(await harness.lease("a"), service)
    await asyncio.gather(engine.check_images(make_images(60)[:30]), engine.check_images(make_images(60)[30:]))
    gaps = [b - a for a, b in zip(service.sent_s, service.sent_s[1:], strict=False)]
    assert min(gaps[1:]) >= 0.2
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.202, abs=0.001)


@pytest.mark.parametrize(("late_s", "longest_gap_s"), [(0.004, 0.21), (0.012, 0.22), (0.3, 0.72)])
async def test_what_follows_a_call_that_was_written_late_keeps_its_distance(
    harness: EngineHarness, late_s: float, longest_gap_s: float
) -> None:
    """A busy loop or a new connection: as written, too, five calls a second, and no more time is lost."""
    written_s: list[float] = []

    class Late:
        sent = 0

        async def send(self, request: Request, on_written: Callable[[], None]) -> DetectResponse:
            self.sent += 1
            if self.sent % 7 == 0:
                await harness.clock.sleep(late_s)
            written_s.append(harness.clock.monotonic())
            on_written()
            return PASSED

    await harness.engine(await harness.lease("a"), Late()).check_images(make_images(60))
    written_s.sort()
    assert min(b - a for a, b in zip(written_s, written_s[5:], strict=False)) >= 1.0
    assert max(b - a for a, b in itertools.pairwise(written_s)) < longest_gap_s


@pytest.mark.parametrize("late_s", [0.15, 3600.0])
async def test_a_send_time_that_was_missed_is_not_used(harness: EngineHarness, late_s: float) -> None:
    """A process that wakes late, or was suspended for an hour, takes a new one: no second is overfull."""
    service = harness.scripted(lambda n, url: PASSED)
    engine = harness.engine(await harness.lease("a"), service)
    slow = harness.clock.sleep

    async def oversleep(seconds: float) -> None:
        await slow(seconds + (late_s if 0.1 < seconds < 0.3 and len(service.sent_s) % 3 == 0 else 0.0))

    harness.clock.sleep = oversleep  # type: ignore[method-assign]
    await engine.check_images(make_images(20))
    gaps = [b - a for a, b in zip(service.sent_s, service.sent_s[1:], strict=False)]
    assert min(gaps[1:]) >= 0.2
    assert max(gaps) < late_s + 1.0


@pytest.mark.parametrize("commit_s", [0.1, 0.3, 1.0, 2.5])
async def test_a_slow_disk_slows_calls_down_as_little_as_it_must(
    harness: EngineHarness, commit_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """As fast as one commit to reserve and one to settle allow, at least; a warning names the cause."""
    harness.ledger.database.commit_s = commit_s  # type: ignore[attr-defined]
    service = harness.scripted(lambda n, url: PASSED)
    verdicts = await harness.engine(await harness.lease("a"), service).check_images(make_images(60))
    assert outcomes(verdicts) == {Outcome.PASSED: 60}
    gaps = [b - a for a, b in itertools.pairwise(service.sent_s)]
    assert min(gaps) >= 0.2
    assert 59 / sum(gaps) >= 0.8 * min(harness.rate_per_s, 1 / (2 * commit_s))
    assert ("the ledger is slow" in caplog.text) == (commit_s >= 0.3)


async def test_a_larger_allowance_is_used_evenly_by_calls_reserved_together(harness: EngineHarness) -> None:
    """At 30 a second three calls wait for their send times at once; they are sent apart all the same."""
    harness.rate_per_s = 30.0
    service = harness.scripted(lambda n, url: PASSED)
    verdicts = await harness.engine(await harness.lease("a"), service).check_images(make_images(90))
    assert outcomes(verdicts) == {Outcome.PASSED: 90}
    seconds = [b - a for a, b in zip(service.sent_s, service.sent_s[31:], strict=False)]
    assert min(seconds) >= 1.0
    assert service.sent_s[-1] - service.sent_s[0] >= 89 / 30


async def test_a_burst_that_was_refused_is_followed_by_a_slow_start(harness: EngineHarness) -> None:
    """A second of pause, then a quarter of the rate, ever faster, and all of it again after a minute."""
    burst = parse_response(WAN22_S2V_DETECT, 429, {}, b'{"code":"Throttling.BurstRate","message":"slow"}')
    service = harness.scripted(lambda n, url: burst if n == 3 else PASSED)
    await harness.engine(await harness.lease("a"), service).check_images(make_images(200))
    gaps = [b - a for a, b in zip(service.sent_s[4:], service.sent_s[5:], strict=False)]
    assert 0.75 < gaps[0] < 0.85
    assert gaps[10] < gaps[0]
    assert gaps[-1] == pytest.approx(0.203, abs=0.002)


async def test_a_run_repeats_only_so_many_calls_for_a_failing_service(harness: EngineHarness) -> None:
    """Every second response fails: 10 calls and a fifth of all are repeated, the rest are errors."""
    service = harness.scripted(lambda n, url: DOWN if n % 2 else PASSED)
    engine = harness.engine(await harness.lease("a"), service, RetryPolicy(budget=10))
    verdicts = await engine.check_images(make_images(150))
    counts = outcomes(verdicts)
    assert counts[Outcome.PASSED] + counts[Outcome.ERROR] == 150
    assert 150 + 30 <= len(service.sent_s) <= 150 + 10 + len(service.sent_s) // 5


async def test_a_throttled_call_pauses_everyone_and_is_sent_again(harness: EngineHarness) -> None:
    """A 429 is free; the next call is sent at least a second later, and the image still gets its verdict."""
    service = harness.scripted(lambda n, url: THROTTLED if n == 3 else PASSED)
    engine = harness.engine(await harness.lease("a"), service)
    verdicts = await engine.check_images(make_images(8))
    assert outcomes(verdicts) == {Outcome.PASSED: 8}
    assert service.sent_s[4] - service.sent_s[3] >= 1.0
    assert sum(v.run_cost_micro_usd for v in verdicts) == 8 * PRICE


async def test_a_failing_service_is_retried_and_then_given_up(harness: EngineHarness) -> None:
    """Four tries with growing pauses, then the outcome is an error that cost nothing."""
    service = harness.scripted(lambda n, url: DOWN)
    verdicts = await harness.engine(await harness.lease("a"), service).check_images(make_images(1))
    assert len(service.sent_s) == 4
    assert (verdicts[0].outcome, verdicts[0].reason) == (Outcome.ERROR, "service_error")
    assert verdicts[0].run_cost_micro_usd == 0


@pytest.mark.parametrize(("policy", "calls"), [("retry", 2), ("assume-paid", 1)])
async def test_lost_responses_count_at_full_price_and_are_bounded(
    harness: EngineHarness, policy: OnLostResponse, calls: int
) -> None:
    """An image whose responses are lost is sent at most so often, over all runs, then it is unknown."""
    service = harness.scripted(lambda n, url: lost_response("reset", sent=True))
    for run in ("a", "b"):
        verdict = (
            await harness.engine(await harness.lease(run, on_lost_response=policy), service).check_images(
                make_images(1)
            )
        )[0]
        assert (verdict.outcome, verdict.reason, verdict.billing) == (
            Outcome.UNKNOWN, "response_lost", Billing.UNKNOWN,
        )  # fmt: skip
        assert verdict.lifetime_cost_micro_usd == calls * PRICE
    assert verdict.run_cost_micro_usd == 0
    assert verdict.from_ledger
    assert len(service.sent_s) == calls


async def test_an_image_whose_response_was_dropped_is_sent_once_more(
    harness: EngineHarness, service: Emulator
) -> None:
    """The service bills and drops the response: the second one counts, one charge is unconfirmed."""
    service.set_faults(["drop:times=1"])
    lease = await harness.lease("a")
    async with client_of(service) as client:
        verdict = (await harness.engine(lease, client).check_images(make_images(1, service.origin)))[0]
    assert (verdict.outcome, verdict.attempts, verdict.run_cost_micro_usd) == (Outcome.PASSED, 2, 2 * PRICE)
    assert len(service.invoice()) == 2


async def test_a_verdict_is_known_before_those_that_wait_for_a_late_retry(harness: EngineHarness) -> None:
    """One image's service is down at first; the others' verdicts are not held back by it."""
    service = harness.scripted(lambda n, url: DOWN if n == 0 else PASSED)
    engine, noted = harness.engine(await harness.lease("a"), service), list[str]()
    engine.on_verdict = lambda verdict: noted.append(verdict.image_key)
    keys = [verdict.image_key for verdict in await engine.check_images(make_images(3))]
    assert len(service.sent_s) == 4
    assert noted == [*keys[1:], keys[0]]


async def test_an_image_that_could_not_be_fetched_is_sent_once_more_much_later(
    harness: EngineHarness,
) -> None:
    """The vendor can't reach the image's host: one late retry, then an error that is not remembered."""
    body = b'{"code":"InvalidURL.Timeout","message":"timed out"}'
    origin = parse_response(WAN22_S2V_DETECT, 400, {}, body)
    service = harness.scripted(lambda n, url: origin)
    lease = await harness.lease("a")
    verdict = (await harness.engine(lease, service).check_images(make_images(1)))[0]
    assert (verdict.outcome, verdict.reason, verdict.code) == (
        Outcome.ERROR, "origin_failed", "InvalidURL.Timeout",
    )  # fmt: skip
    assert 20 <= service.sent_s[1] - service.sent_s[0] <= 61
    image_status = await lease.image_statuses([verdict.image_key])
    assert image_status[verdict.image_key].verdict is None


async def test_a_refused_account_stops_the_run_at_once(harness: EngineHarness, service: Emulator) -> None:
    """What was received stays, the rest is skipped, and the message says what to fix."""
    service.set_faults(["Arrearage:first=3"])
    engine = harness.engine(await harness.lease("a"), client := DetectClient(
        Credentials(service.base_url, SecretStr("key")), WAN22_S2V_DETECT
    ))  # fmt: skip
    async with client:
        verdicts = await engine.check_images(make_images(20, service.origin))
    assert outcomes(verdicts) == {Outcome.PASSED: 3, Outcome.SKIPPED: 17}
    assert {v.reason for v in verdicts if v.outcome is Outcome.SKIPPED} == {"run_stopped"}
    assert isinstance(engine.stopped, AccountRefused)
    assert "Arrearage" in str(engine.stopped)
    assert "pay" in str(engine.stopped)


@pytest.mark.parametrize("free", [0, 7])
async def test_a_budget_is_spent_to_the_last_image_and_never_passed(
    harness: EngineHarness, free: int
) -> None:
    """Responses that are free give their money back, so the invoice is the budget exactly."""
    refused = parse_response(WAN22_S2V_DETECT, 400, {}, b'{"code":"InvalidFile.NoHuman","message":"nobody"}')
    service = harness.scripted(lambda n, url: refused if n < free else PASSED)
    engine = harness.engine(await harness.lease("a", budget=10), service)
    verdicts = await engine.check_images(make_images(30))
    assert sum(v.billing is Billing.BILLED for v in verdicts) == 10
    assert outcomes(verdicts).get(Outcome.FAILED, 0) == free
    assert {v.reason for v in verdicts if v.outcome is Outcome.SKIPPED} == {"budget_exhausted"}
    assert engine.budget_exhausted


async def test_an_outage_ends_the_run_in_a_state_that_continues(harness: EngineHarness) -> None:
    """Nothing but gateway errors for five minutes: few calls, no cost, the rest skipped."""
    service = harness.scripted(lambda n, url: DOWN)
    engine = harness.engine(await harness.lease("a"), service)
    verdicts = await engine.check_images(make_images(200))
    assert isinstance(engine.stopped, Outage)
    assert len(service.sent_s) < 60
    assert sum(v.run_cost_micro_usd for v in verdicts) == 0
    assert {v.reason for v in verdicts if v.outcome is Outcome.SKIPPED} == {"run_stopped"}


async def test_a_rate_of_zero_pauses_until_it_is_raised(harness: EngineHarness) -> None:
    """An operator's 0 lets nothing leave; a later 5 lets everything go on."""
    service = harness.scripted(lambda n, url: PASSED)
    engine = harness.engine(await harness.lease("a"), service)
    harness.rate_per_s = 0.0
    checking = asyncio.create_task(engine.check_images(make_images(3)))
    await until(harness.clock, 1100)
    assert service.sent_s == []
    harness.rate_per_s = 5.0
    assert outcomes(await checking) == {Outcome.PASSED: 3}


async def test_a_stop_gives_the_waiting_reservation_back(harness: EngineHarness) -> None:
    """Calls under way settle; the one that was waiting for its send time leaves no charge."""
    lease = await harness.lease("a")

    def script(n: int, url: str) -> DetectResponse:
        if n == 2:
            engine.stop(Interrupted("stopped by SIGINT"))
        return PASSED

    engine = harness.engine(lease, harness.scripted(script))
    verdicts = await engine.check_images(make_images(10))
    await engine.finish()
    assert outcomes(verdicts) == {Outcome.PASSED: 3, Outcome.SKIPPED: 7}
    charges = await lease.charges()
    assert charges[State.BILLED] == 3 * PRICE
    assert charges[State.RESERVED] == charges[State.UNKNOWN] == 0


async def test_a_stalled_service_does_not_pile_up_calls(harness: EngineHarness) -> None:
    """With the bound of calls under way reached, nothing more is sent until one returns."""
    come_back = asyncio.Event()

    class Stalled:
        sent = 0

        async def send(self, request: Request, on_written: object) -> DetectResponse:
            self.sent += 1
            await come_back.wait()
            return PASSED

    service = Stalled()
    engine = harness.engine(await harness.lease("a"), service, RetryPolicy(max_in_flight=4))
    checking = asyncio.create_task(engine.check_images(make_images(12)))
    await until(harness.clock, 1100)
    assert service.sent == 4
    come_back.set()
    assert outcomes(await checking) == {Outcome.PASSED: 12}


async def test_two_runs_on_the_same_images_pay_once(tmp_path: Path) -> None:
    """The second run waits for, or reuses, the first one's response (on the system clock, for leases)."""
    harness = EngineHarness(tmp_path, SystemClock())
    harness.rate_per_s = 50.0
    async with harness.ledger:
        service = harness.scripted(lambda n, url: PASSED)
        engines = [harness.engine(await harness.lease(run), service) for run in ("a", "b")]
        first, second = await asyncio.gather(*(engine.check_images(make_images(20)) for engine in engines))
    assert len(service.sent_s) == len(set(service.urls)) == 20
    assert outcomes(first) == outcomes(second) == {Outcome.PASSED: 20}
    assert sum(v.run_cost_micro_usd for v in [*first, *second]) == 20 * PRICE


async def test_a_run_that_was_taken_over_sends_nothing_more(harness: EngineHarness) -> None:
    """The lease is gone: the next reservation is refused and the run stops with a clear error."""
    service = harness.scripted(lambda n, url: PASSED)
    engine = harness.engine(await harness.lease("a"), service)
    await engine.check_images(make_images(2))
    await harness.clock.sleep(16)
    await harness.lease("a")
    verdicts = await engine.check_images(make_images(5)[2:])
    assert isinstance(engine.stopped, LeaseLost)
    assert outcomes(verdicts) == {Outcome.SKIPPED: 3}
    assert len(service.sent_s) == 2


async def test_an_unlisted_error_is_counted_and_shown(harness: EngineHarness) -> None:
    """A code that the table does not know is tried once more, much later, and kept with its code."""
    strange = parse_response(WAN22_S2V_DETECT, 418, {}, b'{"code":"Teapot","message":"short and stout"}')
    assert strange.kind is Kind.UNRECOGNISED
    engine = harness.engine(await harness.lease("a"), harness.scripted(lambda n, url: strange))
    verdict = (await engine.check_images(make_images(1)))[0]
    assert (verdict.outcome, verdict.reason, verdict.code) == (Outcome.ERROR, "unrecognised", "Teapot")
    assert engine.stats.codes["Teapot"] == 2
    assert (engine.stats.unrecognised, engine.stats.first_unrecognised) == (2, strange)
