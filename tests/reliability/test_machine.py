"""Anything that can happen to a ledger, in any order, against a plain model of what must hold.

Runs are led to their end, killed, refused, starved and continued; candidates and money are added. The engine
and the ledger are the real ones, the clock jumps, and the service keeps its own invoice.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from crash_bench import LedgerDump, calls_are_wrong
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import DOWN, JumpingClock

from s2v_tasks.adapters.database.lease import DEAD_AFTER_S
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.domain.detect import DetectResponse, Request, lost_response, parse_response
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.errors import AccountRefused, Outage, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT, Outcome, UniqueImage, Verdict
from s2v_tasks.runtime.engine import Engine

SCOPE: Final = Scope("test", "default", WAN22_S2V_DETECT)
MOST_IMAGES: Final = 14
REFUSED: Final = parse_response(
    WAN22_S2V_DETECT, 401, {}, b'{"code":"InvalidApiKey","message":"Invalid API-key provided."}'
)
RIGHT: Final = {"portrait": Outcome.PASSED, "scenery": Outcome.FAILED, "nobody": Outcome.FAILED}
BODIES: Final = {
    "portrait": (200, {"output": {"check_pass": True, "humanoid": True}}),
    "scenery": (200, {"output": {"check_pass": False, "code": "InvalidFile.NoHuman"}}),
    "nobody": (400, {"code": "InvalidFile.NoHuman", "message": "nobody"}),
}


def kind_of(url: str) -> str:
    """What is on an image, by its name."""
    return url.rsplit("/", 1)[1].partition("-")[0]


class Service:
    """The vendor, as a model: bills what it responds to; its faults last for a number of calls."""

    def __init__(self) -> None:
        self.invoice: list[dict[str, str]] = []
        self.sent = 0
        self.sent_urls: Counter[str] = Counter()
        self._held: list[asyncio.Future[None]] = []
        self.behave()

    def behave(
        self,
        *,
        lose: int = 0,
        hold_after: int | None = None,
        refuse_after: int | None = None,
        down: bool = False,
    ) -> None:
        """Lose so many responses; hold those after the n-th back; refuse the account after so many."""
        self.sent = 0
        self._is_alone = False
        self.sent_urls.clear()
        self._lose, self._hold_after, self._refuse_after, self._down = lose, hold_after, refuse_after, down

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        url = json.loads(request.body)["input"]["image_url"]
        self.sent += 1
        self.sent_urls[url] += 1
        if self._down:
            return DOWN
        if self._refuse_after is not None and self.sent > self._refuse_after:
            return REFUSED
        request_id = f"call-{len(self.invoice)}-{url}"
        status, body = BODIES[kind_of(url)]
        if status == 200:
            self.invoice.append({"request_id": request_id, "image_url": url})
        if self._hold_after is not None and self.sent > self._hold_after:
            await self._wait_for_ever()
        if self._lose:
            self._lose -= 1
            return lost_response("reset", sent=True)
        response = json.dumps({**body, "request_id": request_id}).encode()
        return parse_response(WAN22_S2V_DETECT, status, {}, response)

    async def _wait_for_ever(self) -> None:
        if self._is_alone:
            raise asyncio.CancelledError
        self._held.append(asyncio.get_running_loop().create_future())
        await self._held[-1]

    def vanish(self) -> None:
        """The process that waited for the held responses is dead."""
        self._is_alone = True
        for held in self._held:
            held.cancel()
        self._held.clear()


class Machine(RuleBasedStateMachine):
    """One ledger and everything that happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="s2v-machine-")
        self.path = Path(self.folder.name) / "ledger.sqlite3"
        self.clock = JumpingClock()
        self.service = Service()
        self.images: list[UniqueImage] = []
        self.known: dict[str, str] = {}
        self.run_number = 0
        self.killed = False

    def teardown(self) -> None:
        self.runner.close()
        self.folder.cleanup()

    # -- what a run is -------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return f"run-{self.run_number}"

    @property
    def dump(self) -> LedgerDump:
        return LedgerDump.read(self.path)

    def used(self, dump: LedgerDump) -> int:
        """What counts against the budget of the run that is next."""
        return next((b["used"] for b in dump.budgets if b["name"] == self.budget), 0)

    @property
    def budget(self) -> str:
        return "name:shared" if self.is_shared else f"run:{self.run_id}"

    @asynccontextmanager
    async def _ledger(self) -> AsyncIterator[Ledger]:
        async with Ledger(f"sqlite:///{self.path}", self.clock) as ledger:
            yield ledger

    async def _open(self, ledger: Ledger) -> RunLedger:
        if self.killed:  # this process is alive, so only time shows that the run is dead
            self.clock.now_s += DEAD_AFTER_S + 1
        return await ledger.open_run(self.run_id, SCOPE, self.budget, self.cap, "retry")

    async def _run(self) -> tuple[Engine, list[Verdict]]:
        async with self._ledger() as ledger:
            lease = await self._open(ledger)
            engine = Engine(lease, self.service, self.clock, lambda: 5.0)
            verdicts = await engine.check_images(self.images)
            await engine.finish()
            await lease.close("stopped" if engine.stopped else "published")
        self.killed = False
        return engine, verdicts

    async def _run_until_killed(self, calls: int) -> None:
        async with self._ledger() as ledger:
            lease = await self._open(ledger)
            self.killed = True
            engine = Engine(lease, self.service, self.clock, lambda: 5.0)
            checking = asyncio.ensure_future(engine.check_images(self.images))
            sent, patience = 0, 40
            while sent < calls and patience and not checking.done():
                await asyncio.sleep(0.001)
                patience = patience - 1 if sent == self.service.sent else 40
                sent = self.service.sent
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
            self.service.vanish()
            # What is being written is written, or the thread that does it would hold the file for ever.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

    def led(self) -> tuple[Engine, list[Verdict]]:
        """Lead the next run to its end, and check its outcomes and its money against the model."""
        before = self.dump
        engine, verdicts = self.runner.run(self._run())
        after = self.dump
        self.nothing_needless_was_sent(before)
        lost, left = after.count("unknown"), self.cap - self.used(before)
        spent = self.used(after) - self.used(before)
        assert spent <= max(0, left)
        assert not after.count("reserved")
        assert [v.image_key for v in verdicts] == [c.image_key for c in self.images]
        for candidate, verdict in zip(self.images, verdicts, strict=True):
            key = candidate.image_key
            if key in after.verdicts:
                assert verdict.outcome is RIGHT[kind_of(candidate.url)]
                assert verdict.from_ledger == (key in before.verdicts and not self._by_this_run(after, key))
            elif verdict.outcome is Outcome.UNKNOWN:
                assert lost[key]
            elif verdict.reason == "budget_exhausted":
                assert spent == max(0, left), "money was left"
            else:
                assert verdict.outcome is Outcome.ERROR or verdict.reason == "run_stopped"
        if engine.stopped is None:
            self.run_number += 1
        return engine, verdicts

    def _by_this_run(self, dump: LedgerDump, key: str) -> bool:
        return dump.verdicts[key]["run_id"] == self.run_id

    def nothing_needless_was_sent(self, before: LedgerDump) -> None:
        """No known image was sent, and none whose responses were lost twice."""
        lost = before.count("reserved", "unknown")
        for url in self.service.sent_urls:
            key = image_key(url)
            assert key not in before.verdicts
            assert lost[key] < 2

    # -- what can happen -----------------------------------------------------------------------------------

    @initialize(shared=st.booleans(), cap=st.integers(1, 10))
    def begin(self, shared: bool, cap: int) -> None:
        self.is_shared = shared
        self.cap = cap

    @precondition(lambda self: len(self.images) < MOST_IMAGES)
    @rule(kinds=st.lists(st.sampled_from(sorted(RIGHT)), min_size=1, max_size=6))
    def add_candidates(self, kinds: list[str]) -> None:
        for kind in kinds:
            url = f"http://images.example/{kind}-{len(self.images)}.jpg"
            self.images.append(UniqueImage(image_key(url), url))

    @rule(cap=st.integers(1, 20))
    def change_the_budget(self, cap: int) -> None:
        self.cap = cap

    @precondition(lambda self: self.images)
    @rule(lose=st.sampled_from([0, 0, 1, 2, 5]))
    def run_to_the_end(self, lose: int) -> None:
        self.service.behave(lose=lose)
        engine, verdicts = self.led()
        assert engine.stopped is None
        assert not any(v.outcome is Outcome.ERROR for v in verdicts)
        lost = self.dump.count("unknown")
        for verdict in verdicts:
            assert (
                verdict.outcome is not Outcome.UNKNOWN
                or lost[verdict.image_key] == 2
                or engine.budget_exhausted
            )

    @precondition(lambda self: self.images)
    @rule(calls=st.integers(1, 6), responses=st.integers(0, 6))
    def run_and_kill(self, calls: int, responses: int) -> None:
        before = self.dump
        self.service.behave(hold_after=responses)
        self.runner.run(self._run_until_killed(calls))
        self.nothing_needless_was_sent(before)

    @precondition(lambda self: self.images)
    @rule(calls=st.integers(0, 4))
    def run_with_a_key_that_is_rejected(self, calls: int) -> None:
        self.service.behave(refuse_after=calls)
        engine, _ = self.led()
        if self.service.sent > calls:
            assert isinstance(engine.stopped, AccountRefused)

    @precondition(lambda self: self.images)
    @rule()
    def run_in_an_outage(self) -> None:
        before = self.dump
        self.service.behave(down=True)
        engine, _ = self.led()
        assert engine.stopped is None or isinstance(engine.stopped, Outage)
        assert self.dump.count("billed") == before.count("billed")

    @rule()
    def start_twice(self) -> None:
        async def twice() -> None:
            async with self._ledger() as ledger:
                lease = await self._open(ledger)
                with pytest.raises(UsageError, match="is being worked on"):
                    await ledger.open_run(self.run_id, SCOPE, self.budget, self.cap, "retry")
                await lease.close("stopped")

        self.runner.run(twice())
        self.killed = False

    # -- what always holds ---------------------------------------------------------------------------------

    @invariant()
    def the_ledger_agrees_with_the_invoice(self) -> None:
        assert calls_are_wrong(self.dump, self.service.invoice) == []

    @invariant()
    def what_was_known_stays_known(self) -> None:
        now = {key: row["outcome"] for key, row in self.dump.verdicts.items()}
        assert self.known.items() <= now.items()
        self.known = now


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=12,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
