"""Every response of the vendor's table, and every way a connection breaks, at each place in a small job.

The real engine and ledger against the emulator, over HTTP. Time stands still while a call or a transaction is
under way and jumps otherwise, so a case is the same each time, and minutes of waiting cost none. One ledger
serves all: each case has images, a budget and an account (so a rate limit) of its own.
"""

import asyncio
import heapq
import itertools
import json
import socket
import sqlite3
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fault_cases import (
    ACCOUNT,
    ACCOUNTS,
    ADDRESS_REFUSED,
    CHECK_FAILED,
    CHECKED,
    CHECKS,
    EXIT_STATUSES,
    FAILING,
    IMAGE_REFUSED,
    IMAGES,
    LOST,
    LOST_RESPONSES,
    NESTED,
    NOT_FETCHED,
    NOT_FETCHED_NOW,
    POSITIONS,
    PRICE_MICRO_USD,
    RECOVERED_AFTER_BACKOFF,
    RECOVERED_AFTER_LOSS,
    RECOVERED_AFTER_PAUSE,
    RECOVERED_LATE,
    REFUSED_ADDRESSES,
    REFUSED_BY_MESSAGE,
    REFUSED_CONNECTIONS,
    REFUSED_IMAGES,
    RETRY_AFTER,
    RETRY_AFTER_FAILURES,
    SERVICE_ERRORS,
    SLOW_DOWN,
    THROTTLED,
    Consequence,
    Fault,
)
from pydantic import SecretStr

from s2v_tasks import errors
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.adapters.http.detect_client import DetectClient, service_of
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.emulator import Emulator, EmulatorOptions, InvoiceLine
from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.emulator.faults import TRANSPORT_FAULTS
from s2v_tasks.models import WAN22_S2V_DETECT, UniqueImage, Verdict
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.settings import Credentials, OnLostResponse

PATIENCE_S = 0.2
"""How long the client waits for a response that stalls: the only real waiting here."""
TLS = ssl.create_default_context()  # made once: it is expensive, and not used on loopback


class StillClock:
    """Time stands still while anything is under way; else it jumps to the next sleeper's end."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._mover: asyncio.Task[None] | None = None

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def utcnow(self) -> datetime:
        """The same as a time of day."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for time to come here."""
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + max(0.0, seconds), next(self._number), woken))
        if self._mover is None or self._mover.done():
            self._mover = asyncio.create_task(self._move())
        await woken

    @contextmanager
    def image_status(self) -> Iterator[None]:
        """Hold time for as long as this lasts."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _move(self) -> None:
        while self._sleepers:
            still = 0
            while still < 10:  # turns of the loop: every woken task has reached its next wait by then
                await self._idle.wait()
                await asyncio.sleep(0)
                still = still + 1 if self._idle.is_set() else 0
            end_s, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self.now_s = max(self.now_s, end_s)
                woken.set_result(None)


class Held:
    """What calls or writes, with time held while it does."""

    def __init__(self, inner: object, clock: StillClock) -> None:
        self._inner = inner
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        async def held(*args: object, **options: object) -> object:
            with self._clock.image_status():
                return await method(*args, **options)

        return held


class Wire(httpx.AsyncHTTPTransport):
    """The real transport, noting each call; ``failure`` names what happens to the n-th call for an image.

    ``refused``: it goes to ``closed_port``, where no server listens. ``impatient``: its response is awaited
    a short time only.
    """

    def __init__(
        self, clock: StillClock, failure: Callable[[str, int], str | None], closed_port: int
    ) -> None:
        super().__init__(verify=TLS)
        self.sent: list[tuple[str, float]] = []
        self._clock = clock
        self._failure = failure
        self._closed_port = closed_port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one call."""
        url = json.loads(request.content)["input"]["image_url"]
        failure = self._failure(url, sum(u == url for u, _ in self.sent))
        self.sent.append((url, self._clock.monotonic()))
        if failure == "refused":
            request.url = request.url.copy_with(port=self._closed_port)
        if failure == "impatient":
            request.extensions = {**request.extensions, "timeout": {"read": PATIENCE_S}}
        return await super().handle_async_request(request)


@dataclass(frozen=True, slots=True)
class Played:
    """What was seen after a job, on all sides: the engine's, the wire's, the ledger's and the vendor's."""

    shard: list[UniqueImage]
    hit: int
    verdicts: list[Verdict]
    later: dict[str, Verdict]
    engine: Engine
    sent: list[tuple[str, float]]
    attempts: list[tuple[str, str, str | None]]
    used: int
    invoice: list[InvoiceLine]
    received: int

    def times_s(self, index: int) -> list[float]:
        """When the calls for one image were sent, in seconds since the job's first call."""
        return [at_s for url, at_s in self.since_first_s() if url == self.shard[index].url]

    def since_first_s(self) -> list[tuple[str, float]]:
        """Every call's URL and time, to the millisecond: the ledger's send times are whole microseconds."""
        return [(url, round(at_s - self.sent[0][1], 3)) for url, at_s in self.sent]


class Stage:
    """Plays small jobs with a fault at one of them."""

    def __init__(
        self, file: Path, clock: StillClock, ledger: Ledger, emulator: Emulator, closed_port: int
    ) -> None:
        self._file = file
        self._clock = clock
        self._ledger = ledger
        self._emulator = emulator
        self._closed_port = closed_port
        self._number = itertools.count()

    async def play(
        self,
        position: str,
        fault: str | None = None,
        *,
        times: int | None = None,
        word: str = "portrait",
        wire: str | None = None,
        on_lost_response: OnLostResponse = "retry",
    ) -> Played:
        """Check the images; ``fault`` hits the one at ``position`` (``times``: at most so often).

        ``word`` goes into that image's name; ``wire`` is what happens to its calls on the way, as often.
        """
        case, hit = f"case-{next(self._number)}", POSITIONS[position]
        names = [f"{word if n == hit else 'portrait'}-{n}.jpg" for n in range(IMAGES)]
        urls = [f"http://images.example/{case}/{name}" for name in names]
        shard = [UniqueImage(image_key(url), url) for url in urls]
        self._emulator.reset()
        self._emulator.set_faults([] if fault is None else [_spec(fault, f"-{hit}.jpg", times)])

        def failure(url: str, calls: int) -> str | None:
            return wire if url == urls[hit] and (times is None or calls < times) else None

        transport = Wire(self._clock, failure, self._closed_port)
        access = Credentials(self._emulator.base_url, SecretStr("key"))
        scope = Scope(service_of(access.base_url), case, WAN22_S2V_DETECT)
        async with DetectClient(access, WAN22_S2V_DETECT, transport) as client:
            lease = await self._ledger.open_run(case, scope, case, 1000, on_lost_response)
            engine = self._engine(client, lease)
            verdicts = await engine.check_images(shard)
            await engine.finish()
            following = await self._ledger.open_run(f"{case}-next", scope, case, 1000, on_lost_response)
            next_engine = self._engine(client, following)
            later = await next_engine.known([c.image_key for c in shard])
        attempts, used = self._ledger_rows(case)
        received = self._emulator.calls()["received"]
        return Played(
            shard,
            hit,
            verdicts,
            later,
            engine,
            transport.sent,
            attempts,
            used,
            self._emulator.invoice(),
            received,
        )

    def _engine(self, client: DetectClient, lease: RunLedger) -> Engine:
        ledger: Any = Held(lease, self._clock)
        caller: Any = Held(client, self._clock)
        return Engine(ledger, caller, self._clock, lambda: 5.0)

    def _ledger_rows(self, run_id: str) -> tuple[list[tuple[str, str, str | None]], int]:
        """A run's attempts (key, state, request id) and what its budget holds as used, read from the file."""
        with closing(sqlite3.connect(self._file)) as db:
            sql = "SELECT image_key, state, request_id FROM attempts WHERE run_id = ?"
            attempts = db.execute(sql, [run_id]).fetchall()
            [(used,)] = db.execute("SELECT used FROM budgets WHERE name = ?", [run_id])
        return attempts, used


def _patience(fault: Fault) -> str | None:
    return "impatient" if fault.name.startswith("stall") else None


def _spec(fault: str, match: str, times: int | None) -> str:
    name, _, options = fault.partition(":")
    limit = "" if times is None else f"times={times}"
    return f"{name}:" + ",".join(filter(None, [f"match={match}", limit, options]))


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorOptions(limit=None, fetch_images=False)) as running:
        yield running


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that is taken and not listened at, so connections to it are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, closed_port: int
) -> AsyncIterator[Stage]:
    file, clock = tmp_path_factory.mktemp("matrix") / "ledger.sqlite3", StillClock()
    async with Ledger(f"sqlite:///{file}", clock) as ledger:
        yield Stage(file, clock, ledger, emulator, closed_port)


def each(
    faults: Iterable[Any], names: str = "fault", positions: Iterable[str] = POSITIONS
) -> Callable[[Any], Any]:
    """A case for each fault at each position, with an id that reads like ``drop-middle``; all in one loop.

    The default run takes the positions in turn, one for each fault.
    """
    rows = [fault if isinstance(fault, tuple) else (fault,) for fault in faults]
    places = list(positions)
    cases = [
        pytest.param(position, *row, id=f"{row[0].name}-{position}",
                     marks=() if position == places[number % len(places)] else pytest.mark.ci)
        for number, row in enumerate(rows)
        for position in places
    ]  # fmt: skip
    in_one_loop = pytest.mark.asyncio(loop_scope="module")
    return lambda test: in_one_loop(pytest.mark.parametrize(f"position, {names}", cases)(test))


def assert_played(played: Played, expected: Consequence, reason: str | None, undelivered: int = 0) -> None:
    """Compare what was observed with what the documents promise; ``undelivered`` calls never arrived."""
    hit = played.verdicts[played.hit]
    billed_here = expected.billing == "billed"
    assert (hit.outcome, hit.reason, hit.billing) == (expected.outcome, reason, expected.billing)
    assert len(played.times_s(played.hit)) == hit.attempts == expected.calls
    assert (
        hit.run_cost_micro_usd
        == hit.lifetime_cost_micro_usd
        == PRICE_MICRO_USD * (expected.lost + billed_here)
    )
    assert not hit.from_ledger
    assert_times(played, expected)
    assert_run(played, expected)
    passed = assert_others(played, expected)
    assert_ledger_rows(played, expected, billed=passed + billed_here, undelivered=undelivered)


def assert_times(played: Played, expected: Consequence) -> None:
    """RetryPolicy of the image are as late as they should be, and a pause holds for everyone."""
    calls_s = played.times_s(played.hit)
    if expected.wait_s:
        low_s, high_s = expected.wait_s
        assert all(low_s <= round(b - a, 3) <= high_s for a, b in itertools.pairwise(calls_s))
    if expected.pause_s:
        low_s, high_s = expected.pause_s
        after_s = [round(at_s - calls_s[0], 3) for _, at_s in played.since_first_s() if at_s > calls_s[0]]
        reserved_before = [s for s in after_s if s < low_s]
        assert len(reserved_before) <= 1
        assert low_s <= after_s[len(reserved_before)] <= high_s
    firsts_s = [played.times_s(n)[0] for n in range(IMAGES) if played.times_s(n)]
    assert firsts_s == sorted(firsts_s)


def assert_run(played: Played, expected: Consequence) -> None:
    """The run stopped for the reason given, or not at all; the next one finds what is to be remembered."""
    stopped = played.engine.stopped
    assert (type(stopped).__name__ if stopped else None) == expected.stopped
    assert not played.engine.budget_exhausted
    key = played.shard[played.hit].image_key
    later = played.later.get(key)
    if expected.later == "nothing":
        assert later is None
    else:
        hit = played.verdicts[played.hit]
        assert later is not None
        assert (later.outcome, later.reason, later.code) == (hit.outcome, hit.reason, hit.code)
        assert (later.from_ledger, later.run_cost_micro_usd) == (True, 0)
        assert later.lifetime_cost_micro_usd == hit.lifetime_cost_micro_usd


def assert_others(played: Played, expected: Consequence) -> int:
    """The other images passed, or were left skipped_verdict once the account was refused; how many passed."""
    sent = played.hit if expected.stopped == "AccountRefused" else IMAGES
    for n, verdict in enumerate(played.verdicts):
        if n == played.hit:
            continue
        seen = (verdict.outcome, verdict.reason, verdict.run_cost_micro_usd, len(played.times_s(n)))
        if n < sent:
            assert (*seen, verdict.billing) == ("passed", None, PRICE_MICRO_USD, 1, "billed")
        else:
            assert (*seen, verdict.billing) == ("skipped", "run_stopped", 0, 0, "none")
        assert (verdict.image_key in played.later) == (n < sent)
    return min(sent, IMAGES - 1)


def assert_ledger_rows(played: Played, expected: Consequence, *, billed: int, undelivered: int) -> None:
    """The ledger's billed requests are the vendor's invoice, less those whose responses were lost."""
    invoiced = {line["request_id"]: line["image_url"] for line in played.invoice}
    by_state: dict[str, list[tuple[str, str | None]]] = {}
    for key, state, request_id in played.attempts:
        by_state.setdefault(state, []).append((key, request_id))
    known = {request_id for _, request_id in by_state.get("billed", [])}
    assert len(known) == len(by_state.get("billed", [])) == billed
    assert known <= invoiced.keys()
    missing = [url for request_id, url in invoiced.items() if request_id not in known]
    assert missing == [played.shard[played.hit].url] * expected.lost_invoiced
    assert [key for key, _ in by_state.get("unknown", [])] == [
        played.shard[played.hit].image_key
    ] * expected.lost
    assert "reserved" not in by_state
    assert played.used == billed + expected.lost
    cost = PRICE_MICRO_USD * (billed + expected.lost)
    assert played.engine.stats.charged_micro_usd == sum(v.run_cost_micro_usd for v in played.verdicts) == cost
    assert played.engine.stats.calls == len(played.sent) == played.received + undelivered


# -- verdicts and images -----------------------------------------------------------------------------------


@each(CHECKS)
async def test_a_failed_check_that_comes_as_an_error_is_a_free_verdict(
    stage: Stage, position: str, fault: Fault
) -> None:
    """It is sent once, costs nothing and is never sent again."""
    played = await stage.play(position, fault.name)
    assert_played(played, CHECK_FAILED, fault.reason)
    hit = played.verdicts[played.hit]
    assert (hit.code, hit.http_status, hit.check_pass) == (fault.name, fault.status, False)


@each(CHECKED, "fault, expected, humanoid")
async def test_a_failed_check_is_a_verdict_in_each_shape_it_may_have(
    stage: Stage, position: str, fault: Fault, expected: Consequence, humanoid: bool | None
) -> None:
    """With or without code and humanoid, as a billed 200 or as a free 400."""
    played = await stage.play(position, word=fault.name)
    assert_played(played, expected, fault.reason)
    hit = played.verdicts[played.hit]
    assert (hit.http_status, hit.check_pass, hit.humanoid) == (fault.status, False, humanoid)


@each(REFUSED_IMAGES)
async def test_an_image_that_can_never_be_checked_is_sent_once(
    stage: Stage, position: str, fault: Fault
) -> None:
    """It is free, and remembered, so that no later run sends it either."""
    played = await stage.play(position, fault.name)
    assert_played(played, IMAGE_REFUSED, fault.reason)
    hit = played.verdicts[played.hit]
    assert (hit.code, hit.http_status, hit.check_pass) == (fault.kept_code, fault.status, None)


@each(REFUSED_BY_MESSAGE)
async def test_an_image_refused_by_a_message_is_sent_once_and_not_remembered(
    stage: Stage, position: str, fault: Fault
) -> None:
    """Its code says nothing, and a pattern that matched once may have been wrong."""
    played = await stage.play(position, fault.name)
    assert_played(played, ADDRESS_REFUSED, fault.reason)
    hit = played.verdicts[played.hit]
    assert (hit.code, hit.http_status, hit.check_pass) == (fault.kept_code, fault.status, None)


@each(NESTED, "fault, expected", positions=("middle",))
async def test_an_error_in_the_gateways_other_shape_means_the_same(
    stage: Stage, position: str, fault: Fault, expected: Consequence
) -> None:
    """Below ``error``, with a ``type`` beside the code: one of each class."""
    played = await stage.play(position, fault.name)
    assert_played(played, expected, fault.reason)
    if expected.stopped:
        assert expected is THROTTLED or f"HTTP {fault.status} {fault.kept_code}" in str(played.engine.stopped)
    else:
        hit = played.verdicts[played.hit]
        assert (hit.code, hit.http_status) == (fault.kept_code, fault.status)
        assert hit.message
        assert hit.request_id


@each(REFUSED_ADDRESSES)
async def test_a_url_that_refuses_access_is_sent_once_and_not_remembered(
    stage: Stage, position: str, fault: Fault
) -> None:
    """A signature that expired says nothing about the image behind it."""
    played = await stage.play(position, fault.name)
    assert_played(played, ADDRESS_REFUSED, fault.reason)


# -- images that could not be fetched ----------------------------------------------------------------------


@each(NOT_FETCHED_NOW)
async def test_an_image_that_is_never_fetched_is_sent_twice_and_not_remembered(
    stage: Stage, position: str, fault: Fault
) -> None:
    """The second time comes much later; then it is an error, free, and the next run checks it again."""
    played = await stage.play(position, fault.name)
    assert_played(played, NOT_FETCHED, fault.reason)
    hit = played.verdicts[played.hit]
    assert (hit.code, hit.http_status) == (fault.name.partition("/")[0], fault.status)
    assert played.engine.stats.codes[fault.name.partition("/")[0]] == 2


@each(NOT_FETCHED_NOW)
async def test_an_image_that_is_fetched_the_second_time_passes(
    stage: Stage, position: str, fault: Fault
) -> None:
    """One late retry, one charge."""
    played = await stage.play(position, fault.name, times=1)
    assert_played(played, RECOVERED_LATE, None)


# -- throttles -----------------------------------------------------------------------------------------------


@each(SLOW_DOWN)
async def test_after_a_throttle_everyone_pauses_and_every_image_passes(
    stage: Stage, position: str, fault: Fault
) -> None:
    """For a second no call is reserved; then the image is sent again, and all are charged once."""
    played = await stage.play(position, fault.name, times=1)
    assert_played(played, RECOVERED_AFTER_PAUSE, None)
    assert played.engine.stats.throttled == 1


@each(SLOW_DOWN)
async def test_throttles_without_end_leave_the_image_skipped(
    stage: Stage, position: str, fault: Fault
) -> None:
    """The others pass, the pauses double, and the run ends as an outage that the same command continues."""
    played = await stage.play(position, fault.name)
    assert_played(played, THROTTLED, fault.reason)
    gaps_s = [b - a for a, b in itertools.pairwise(played.times_s(played.hit))]
    assert gaps_s[1:] == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60, 60], abs=0.01)


@each(RETRY_AFTER, "fault, pause_s")
async def test_a_throttle_that_says_for_how_long_is_obeyed_up_to_a_minute(
    stage: Stage, position: str, fault: Fault, pause_s: tuple[float, float]
) -> None:
    """No call is reserved for that long, at least a second; afterwards every image passes."""
    played = await stage.play(position, fault.name, times=1)
    assert_played(played, replace(RECOVERED_AFTER_PAUSE, pause_s=pause_s), None)


# -- the service's failure -----------------------------------------------------------------------------------


@each(SERVICE_ERRORS)
async def test_a_service_that_fails_once_is_retried(stage: Stage, position: str, fault: Fault) -> None:
    """A short pause, a second call, one charge."""
    played = await stage.play(position, fault.name, times=1)
    assert_played(played, RECOVERED_AFTER_BACKOFF, None)


@each(SERVICE_ERRORS)
async def test_a_service_that_keeps_failing_for_an_image_is_given_up(
    stage: Stage, position: str, fault: Fault
) -> None:
    """Four calls with growing pauses, all free; the image is an error that no later run inherits."""
    played = await stage.play(position, fault.name)
    assert_played(played, FAILING, fault.reason)
    assert played.verdicts[played.hit].http_status == fault.status
    gaps_s = [b - a for a, b in itertools.pairwise(played.times_s(played.hit))]
    assert all(gap_s > low_s - 0.002 for gap_s, low_s in zip(gaps_s, (0.5, 1.0, 2.0), strict=True))


@each(REFUSED_CONNECTIONS)
async def test_a_connection_that_is_refused_once_costs_nothing(
    stage: Stage, position: str, fault: Fault
) -> None:
    """The call was never sent, so it is free, and the next one gets a response."""
    played = await stage.play(position, wire="refused", times=1)
    assert_played(played, RECOVERED_AFTER_BACKOFF, None, undelivered=1)


@each(REFUSED_CONNECTIONS)
async def test_a_connection_that_is_always_refused_is_a_free_error(
    stage: Stage, position: str, fault: Fault
) -> None:
    """Four tries, no charge, nothing remembered."""
    played = await stage.play(position, wire="refused")
    assert_played(played, FAILING, fault.reason, undelivered=4)


# -- lost responses ------------------------------------------------------------------------------------------


@each(LOST_RESPONSES, "fault, is_billed")
async def test_an_image_whose_response_is_lost_is_sent_once_more_and_counts_at_full_price(
    stage: Stage, position: str, fault: Fault, is_billed: bool
) -> None:
    """The image passes at the second call; one charge is confirmed, the other is not."""
    played = await stage.play(position, fault.name, wire=_patience(fault), times=1)
    assert_played(played, replace(RECOVERED_AFTER_LOSS, lost_invoiced=int(is_billed)), None)


@each(LOST_RESPONSES, "fault, is_billed")
async def test_an_image_whose_responses_are_all_lost_is_sent_twice_over_all_runs(
    stage: Stage, position: str, fault: Fault, is_billed: bool
) -> None:
    """Both calls count at full price, the outcome is unknown, and the next run does not send it."""
    played = await stage.play(position, fault.name, wire=_patience(fault))
    assert_played(played, replace(LOST, lost_invoiced=2 * is_billed), fault.reason)


@each(LOST_RESPONSES, "fault, is_billed")
async def test_an_image_with_a_lost_response_assumed_paid_is_never_sent_again(
    stage: Stage, position: str, fault: Fault, is_billed: bool
) -> None:
    """One call, counted at full price, and an unknown outcome."""
    played = await stage.play(
        position, fault.name, wire=_patience(fault), times=1, on_lost_response="assume-paid"
    )
    assert_played(played, replace(LOST, calls=1, lost=1, lost_invoiced=int(is_billed)), fault.reason)


# -- the account ---------------------------------------------------------------------------------------------


@each(ACCOUNTS, "fault, advice")
async def test_a_refused_account_stops_the_run_at_that_call(
    stage: Stage, position: str, fault: Fault, advice: str
) -> None:
    """What was received stays, nothing more is sent, and the error says what to fix."""
    played = await stage.play(position, fault.name)
    assert_played(played, ACCOUNT, fault.reason)
    stopped = played.engine.stopped
    assert isinstance(stopped, errors.AccountRefused)
    assert (stopped.exit_status, stopped.retryable) == (1, True)
    assert f"HTTP {fault.status} {fault.kept_code}".strip() in str(stopped)
    assert advice in str(stopped)
    assert stopped.request_id


# -- what stays of a response, and of a call that was never sent --------------------------------------------


@each([Fault("Arrearage", "run_stopped", 400)], positions=("first", "middle"))
async def test_an_image_that_was_never_sent_has_no_attempts(
    stage: Stage, position: str, fault: Fault
) -> None:
    """The next image's send time was reserved when the run stopped, but no call was sent."""
    played = await stage.play(position, fault.name)
    skipped_verdict = played.verdicts[played.hit + 1]
    assert played.times_s(played.hit + 1) == []
    assert (skipped_verdict.attempts, skipped_verdict.checked_at) == (0, None)


@each(RETRY_AFTER_FAILURES)
async def test_a_failing_service_that_says_for_how_long_is_obeyed(
    stage: Stage, position: str, fault: Fault
) -> None:
    """The image is sent again no sooner than the response allowed."""
    played = await stage.play(position, fault.name, times=1)
    first_s, second_s = played.times_s(played.hit)
    assert round(second_s - first_s, 3) >= 7.0


@each([Fault("truncate", "response_lost")])
async def test_a_truncated_response_keeps_the_request_id_of_its_header(
    stage: Stage, position: str, fault: Fault
) -> None:
    """With it the vendor's invoice explains a charge that would else stay a mystery."""
    played = await stage.play(position, fault.name, times=1)
    [lost] = [request_id for _, state, request_id in played.attempts if state == "unknown"]
    assert lost in {line["request_id"] for line in played.invoice}


@each([Fault("nojson", "response_lost"), Fault("no_check_pass", "response_lost")])
async def test_an_unknown_outcome_keeps_what_came_with_the_last_response(
    stage: Stage, position: str, fault: Fault
) -> None:
    """A 200 without a verdict was probably charged: its request id is what the vendor needs for a query."""
    played = await stage.play(position, fault.name)
    hit = played.verdicts[played.hit]
    assert hit.http_status == 200
    assert hit.request_id in {line["request_id"] for line in played.invoice}


# -- the matrix itself ---------------------------------------------------------------------------------------


def test_every_fault_of_the_emulator_has_its_row() -> None:
    """No documented response and no broken connection is left out, and none is in two rows."""
    rows = [
        *CHECKS, *REFUSED_IMAGES, *REFUSED_BY_MESSAGE, *REFUSED_ADDRESSES, *NOT_FETCHED_NOW,
        *SLOW_DOWN, *SERVICE_ERRORS,
        *(fault for fault, _ in LOST_RESPONSES), *(fault for fault, _ in ACCOUNTS),
    ]  # fmt: skip
    names = [row.name.partition(":")[0] for row in rows]
    assert sorted(names) == sorted([*CATALOGUE, *TRANSPORT_FAULTS])


@pytest.mark.parametrize(("name", "exit_status", "retryable"), EXIT_STATUSES)
def test_every_error_has_its_exit_status(name: str, exit_status: int, retryable: bool) -> None:
    """The status that a scheduler sees, and whether the same command may be run again as it is."""
    error = getattr(errors, name)
    assert (error.exit_status, error.retryable) == (exit_status, retryable)


def test_no_error_is_without_an_exit_status() -> None:
    """A new class of error needs its line in the table of statuses."""
    named = {name for name, value in vars(errors).items() if isinstance(value, type) and name != "ClassVar"}
    assert named - {"S2VError"} == {name for name, _, _ in EXIT_STATUSES}
