"""The engine on a real ledger file, against the emulator or a scripted service, on a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from house import DOWN, PASSED, PRICE, THROTTLED, House, JumpingClock, outcomes, pictures, until
from pydantic import SecretStr

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.dashscope import Access, DetectClient, service_of
from s2v_tasks.detect import Answer, Kind, Request, no_answer, read_answer
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.engine import Retries
from s2v_tasks.errors import AccountRefused, Interrupted, LeaseLost, Outage
from s2v_tasks.ledger import State
from s2v_tasks.models import WAN22_S2V_DETECT, Billing, Outcome
from s2v_tasks.settings import OnUnknown


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path, JumpingClock())
    async with house.ledger:
        yield house


@asynccontextmanager
async def client_of(emulator: Emulator) -> AsyncIterator[DetectClient]:
    access = Access(emulator.base_url, SecretStr("key"))
    async with DetectClient(access, WAN22_S2V_DETECT) as client:
        yield client


@pytest.fixture(scope="module")
def emulator() -> AsyncIterator[Emulator]:
    with Emulator(EmulatorOptions(limit=None, judge_pictures=False)) as running:
        yield running


@pytest.fixture
def service(emulator: Emulator) -> Emulator:
    emulator.reset()
    emulator.set_faults([])
    return emulator


async def test_every_picture_gets_one_verdict_and_the_invoice_is_the_ledger(
    house: House, service: Emulator
) -> None:
    """Twenty pictures: twenty billed calls, each in the ledger with the vendor's request id."""
    lease = await house.lease("a", service=service_of(service.base_url))
    shard = pictures(15, service.origin) + pictures(5, service.origin, "scenery")
    async with client_of(service) as client:
        verdicts = await house.engine(lease, client).judge(shard)
    assert outcomes(verdicts) == {Outcome.PASSED: 15, Outcome.FAILED: 5}
    assert [v.image_key for v in verdicts] == [c.image_key for c in shard]
    assert {v.request_id for v in verdicts} == {line["request_id"] for line in service.invoice()}
    assert all(v.cost_micro_usd == v.paid_micro_usd == PRICE and v.attempts == 1 for v in verdicts)


async def test_a_picture_that_is_known_is_not_asked_again(house: House) -> None:
    """A second run on the same ledger takes the first one's verdicts, free of charge."""
    service = house.scripted(lambda n, url: PASSED)
    shard = pictures(3)
    await house.engine(await house.lease("a"), service).judge(shard)
    engine = house.engine(await house.lease("b"), service)
    known = await engine.known([c.image_key for c in shard])
    again = await engine.judge(shard)
    assert len(service.sent_s) == 3
    for verdict in [*known.values(), *again]:
        assert (verdict.outcome, verdict.from_ledger, verdict.cost_micro_usd) == (Outcome.PASSED, True, 0)
        assert verdict.paid_micro_usd == PRICE


async def test_calls_leave_evenly_and_never_six_in_a_second(house: House) -> None:
    """Sixty calls at 5 a second with 1 % margin: 202 ms apart, whatever the number of shards under way."""
    service = house.scripted(lambda n, url: PASSED)
    engine = house.engine(await house.lease("a"), service)
    await asyncio.gather(engine.judge(pictures(60)[:30]), engine.judge(pictures(60)[30:]))
    gaps = [b - a for a, b in zip(service.sent_s, service.sent_s[1:], strict=False)]
    assert min(gaps[1:]) >= 0.2
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.202, abs=0.001)


@pytest.mark.parametrize("late_s", [0.15, 3600.0])
async def test_an_instant_that_was_missed_is_not_sent_blindly(house: House, late_s: float) -> None:
    """A process that wakes late, or was suspended for an hour, takes a new instant: no second is crowded."""
    service = house.scripted(lambda n, url: PASSED)
    engine = house.engine(await house.lease("a"), service)
    slow = house.clock.sleep

    async def oversleep(seconds: float) -> None:
        await slow(seconds + (late_s if 0.1 < seconds < 0.3 and len(service.sent_s) % 3 == 0 else 0.0))

    house.clock.sleep = oversleep  # type: ignore[method-assign]
    await engine.judge(pictures(20))
    gaps = [b - a for a, b in zip(service.sent_s, service.sent_s[1:], strict=False)]
    assert min(gaps[1:]) >= 0.2
    assert max(gaps) < late_s + 1.0


async def test_a_larger_allowance_is_used_evenly_by_calls_reserved_together(house: House) -> None:
    """At 30 a second three calls wait for their instants at once; they leave apart all the same."""
    house.rate_per_s = 30.0
    service = house.scripted(lambda n, url: PASSED)
    verdicts = await house.engine(await house.lease("a"), service).judge(pictures(90))
    assert outcomes(verdicts) == {Outcome.PASSED: 90}
    seconds = [b - a for a, b in zip(service.sent_s, service.sent_s[31:], strict=False)]
    assert min(seconds) >= 1.0
    assert service.sent_s[-1] - service.sent_s[0] >= 89 / 30


async def test_a_burst_that_was_refused_is_followed_by_a_slow_start(house: House) -> None:
    """A second of pause, then a quarter of the rate, ever faster, and all of it again after a minute."""
    burst = read_answer(WAN22_S2V_DETECT, 429, {}, b'{"code":"Throttling.BurstRate","message":"slow"}')
    service = house.scripted(lambda n, url: burst if n == 3 else PASSED)
    await house.engine(await house.lease("a"), service).judge(pictures(200))
    gaps = [b - a for a, b in zip(service.sent_s[4:], service.sent_s[5:], strict=False)]
    assert 0.75 < gaps[0] < 0.85
    assert gaps[10] < gaps[0]
    assert gaps[-1] == pytest.approx(0.203, abs=0.002)


async def test_a_run_repeats_only_so_many_calls_for_a_service_in_trouble(house: House) -> None:
    """Every second answer fails: 10 and a fifth of the answers are asked again, the rest are errors."""
    service = house.scripted(lambda n, url: DOWN if n % 2 else PASSED)
    engine = house.engine(await house.lease("a"), service, Retries(budget=10))
    verdicts = await engine.judge(pictures(150))
    told = outcomes(verdicts)
    assert told[Outcome.PASSED] + told[Outcome.ERROR] == 150
    assert 150 + 30 <= len(service.sent_s) <= 150 + 10 + len(service.sent_s) // 5


async def test_a_throttled_call_pauses_everyone_and_is_asked_again(house: House) -> None:
    """A 429 is free; the next call leaves at least a second later, and the picture still gets its verdict."""
    service = house.scripted(lambda n, url: THROTTLED if n == 3 else PASSED)
    engine = house.engine(await house.lease("a"), service)
    verdicts = await engine.judge(pictures(8))
    assert outcomes(verdicts) == {Outcome.PASSED: 8}
    assert service.sent_s[4] - service.sent_s[3] >= 1.0
    assert sum(v.cost_micro_usd for v in verdicts) == 8 * PRICE


async def test_a_failing_service_is_asked_again_and_then_given_up(house: House) -> None:
    """Four tries with growing pauses, then the outcome is an error that cost nothing."""
    service = house.scripted(lambda n, url: DOWN)
    verdicts = await house.engine(await house.lease("a"), service).judge(pictures(1))
    assert len(service.sent_s) == 4
    assert (verdicts[0].outcome, verdicts[0].reason) == (Outcome.ERROR, "service_error")
    assert verdicts[0].cost_micro_usd == 0


@pytest.mark.parametrize(("policy", "calls"), [("retry", 2), ("assume-paid", 1)])
async def test_lost_answers_count_at_full_price_and_are_bounded(
    house: House, policy: OnUnknown, calls: int
) -> None:
    """A picture whose answers are lost is asked at most so often, over all runs, then it is unknown."""
    service = house.scripted(lambda n, url: no_answer("reset", sent=True))
    for run in ("a", "b"):
        verdict = (await house.engine(await house.lease(run, on_unknown=policy), service).judge(pictures(1)))[
            0
        ]
        assert (verdict.outcome, verdict.reason, verdict.billing) == (
            Outcome.UNKNOWN, "no_answer", Billing.UNKNOWN,
        )  # fmt: skip
        assert verdict.paid_micro_usd == calls * PRICE
    assert verdict.cost_micro_usd == 0
    assert verdict.from_ledger
    assert len(service.sent_s) == calls


async def test_an_answer_that_was_dropped_is_asked_once_more(house: House, service: Emulator) -> None:
    """The service bills and drops the answer: the second answer counts, both charges are known or feared."""
    service.set_faults(["drop:times=1"])
    lease = await house.lease("a")
    async with client_of(service) as client:
        verdict = (await house.engine(lease, client).judge(pictures(1, service.origin)))[0]
    assert (verdict.outcome, verdict.attempts, verdict.cost_micro_usd) == (Outcome.PASSED, 2, 2 * PRICE)
    assert len(service.invoice()) == 2


async def test_a_picture_that_could_not_be_fetched_is_asked_once_more_much_later(house: House) -> None:
    """The vendor's trouble with the picture's host: one late retry, then an error that is not remembered."""
    body = b'{"code":"InvalidURL.Timeout","message":"timed out"}'
    origin = read_answer(WAN22_S2V_DETECT, 400, {}, body)
    service = house.scripted(lambda n, url: origin)
    lease = await house.lease("a")
    verdict = (await house.engine(lease, service).judge(pictures(1)))[0]
    assert (verdict.outcome, verdict.reason, verdict.code) == (
        Outcome.ERROR, "origin_failed", "InvalidURL.Timeout",
    )  # fmt: skip
    assert 20 <= service.sent_s[1] - service.sent_s[0] <= 61
    standing = await house.ledger.standings(lease, [verdict.image_key])
    assert standing[verdict.image_key].verdict is None


async def test_a_refused_account_stops_the_run_at_once(house: House, service: Emulator) -> None:
    """What was received stays, the rest is unspent, and the words say what to mend."""
    service.set_faults(["Arrearage:first=3"])
    engine = house.engine(await house.lease("a"), client := DetectClient(
        Access(service.base_url, SecretStr("key")), WAN22_S2V_DETECT
    ))  # fmt: skip
    async with client:
        verdicts = await engine.judge(pictures(20, service.origin))
    assert outcomes(verdicts) == {Outcome.PASSED: 3, Outcome.UNSPENT: 17}
    assert {v.reason for v in verdicts if v.outcome is Outcome.UNSPENT} == {"run_stopped"}
    assert isinstance(engine.stopped, AccountRefused)
    assert "Arrearage" in str(engine.stopped)
    assert "pay" in str(engine.stopped)


@pytest.mark.parametrize("free", [0, 7])
async def test_a_budget_is_spent_to_the_last_picture_and_never_passed(house: House, free: int) -> None:
    """Answers that are free give their money back, so the invoice is the budget exactly."""
    refused = read_answer(WAN22_S2V_DETECT, 400, {}, b'{"code":"InvalidFile.NoHuman","message":"nobody"}')
    service = house.scripted(lambda n, url: refused if n < free else PASSED)
    engine = house.engine(await house.lease("a", budget=10), service)
    verdicts = await engine.judge(pictures(30))
    assert sum(v.billing is Billing.BILLED for v in verdicts) == 10
    assert outcomes(verdicts).get(Outcome.FAILED, 0) == free
    assert {v.reason for v in verdicts if v.outcome is Outcome.UNSPENT} == {"budget_spent"}
    assert engine.budget_spent


async def test_an_outage_ends_the_run_in_a_state_that_continues(house: House) -> None:
    """Nothing but gateway errors for five minutes: few calls, no cost, the rest unspent."""
    service = house.scripted(lambda n, url: DOWN)
    engine = house.engine(await house.lease("a"), service)
    verdicts = await engine.judge(pictures(200))
    assert isinstance(engine.stopped, Outage)
    assert len(service.sent_s) < 60
    assert sum(v.cost_micro_usd for v in verdicts) == 0
    assert {v.reason for v in verdicts if v.outcome is Outcome.UNSPENT} == {"run_stopped"}


async def test_a_rate_of_zero_pauses_until_it_is_raised(house: House) -> None:
    """An operator's 0 lets nothing leave; a later 5 lets everything go on."""
    service = house.scripted(lambda n, url: PASSED)
    engine = house.engine(await house.lease("a"), service)
    house.rate_per_s = 0.0
    judging = asyncio.create_task(engine.judge(pictures(3)))
    await until(house.clock, 1100)
    assert service.sent_s == []
    house.rate_per_s = 5.0
    assert outcomes(await judging) == {Outcome.PASSED: 3}


async def test_a_stop_gives_the_waiting_reservation_back(house: House) -> None:
    """Calls under way settle; the one that was waiting for its instant leaves no charge."""
    lease = await house.lease("a")

    def script(n: int, url: str) -> Answer:
        if n == 2:
            engine.stop(Interrupted("stopped by SIGINT"))
        return PASSED

    engine = house.engine(lease, house.scripted(script))
    verdicts = await engine.judge(pictures(10))
    await engine.finish()
    assert outcomes(verdicts) == {Outcome.PASSED: 3, Outcome.UNSPENT: 7}
    charges = await house.ledger.charges(lease)
    assert charges[State.BILLED] == 3 * PRICE
    assert charges[State.RESERVED] == charges[State.UNKNOWN] == 0


async def test_a_stalled_service_does_not_pile_up_calls(house: House) -> None:
    """With the bound of calls under way reached, nothing more leaves until one comes back."""
    come_back = asyncio.Event()

    class Stalled:
        sent = 0

        async def send(self, request: Request) -> Answer:
            self.sent += 1
            await come_back.wait()
            return PASSED

    service = Stalled()
    engine = house.engine(await house.lease("a"), service, Retries(max_under_way=4))
    judging = asyncio.create_task(engine.judge(pictures(12)))
    await until(house.clock, 1100)
    assert service.sent == 4
    come_back.set()
    assert outcomes(await judging) == {Outcome.PASSED: 12}


async def test_two_runs_on_the_same_pictures_pay_once(tmp_path: Path) -> None:
    """The second run waits for, or reuses, the answer of the first (on the machine's clock: leases count)."""
    house = House(tmp_path, SystemClock())
    house.rate_per_s = 50.0
    async with house.ledger:
        service = house.scripted(lambda n, url: PASSED)
        engines = [house.engine(await house.lease(run), service) for run in ("a", "b")]
        first, second = await asyncio.gather(*(engine.judge(pictures(20)) for engine in engines))
    assert len(service.sent_s) == len(set(service.urls)) == 20
    assert outcomes(first) == outcomes(second) == {Outcome.PASSED: 20}
    assert sum(v.cost_micro_usd for v in [*first, *second]) == 20 * PRICE


async def test_a_run_that_was_taken_over_asks_nothing_more(house: House) -> None:
    """The lease is gone: the next reservation is refused and the run stops with a clear error."""
    service = house.scripted(lambda n, url: PASSED)
    engine = house.engine(await house.lease("a"), service)
    await engine.judge(pictures(2))
    await house.clock.sleep(16)
    await house.lease("a")
    verdicts = await engine.judge(pictures(5)[2:])
    assert isinstance(engine.stopped, LeaseLost)
    assert outcomes(verdicts) == {Outcome.UNSPENT: 3}
    assert len(service.sent_s) == 2


async def test_an_unlisted_error_is_counted_and_shown(house: House) -> None:
    """A code that the table does not know is tried once more, much later, and kept with its code."""
    strange = read_answer(WAN22_S2V_DETECT, 418, {}, b'{"code":"Teapot","message":"short and stout"}')
    assert strange.kind is Kind.UNRECOGNISED
    engine = house.engine(await house.lease("a"), house.scripted(lambda n, url: strange))
    verdict = (await engine.judge(pictures(1)))[0]
    assert (verdict.outcome, verdict.reason, verdict.code) == (Outcome.ERROR, "unrecognised", "Teapot")
    assert engine.tally.codes["Teapot"] == 2
    assert (engine.tally.unrecognised, engine.tally.first_unrecognised) == (2, strange)
