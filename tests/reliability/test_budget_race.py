"""Eight processes draw on one budget: the invoice is that budget exactly, whichever of them dies."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import polars as pl
import pytest
from crash_bench import KILLED
from fork_server import ForkServer
from race_child import BUDGET

from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.http.detect_client import service_of
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.models import WAN22_S2V_DETECT

PROCESSES = 8
DEADLY = (
    "call:leaving",
    "call:under_way",
    "call:responded",
    "ledger:reserve:committing",
    "ledger:reserve:committed",
    "ledger:settle:committing",
    "ledger:settle:committed",
)
SEEDS = [
    pytest.param(seed, marks=() if seed in {0, 1, 2, 7} else pytest.mark.ci) for seed in range(10)
]  # by default one, three, seven and none of the eight are killed
POSTGRESQL_SEEDS = [
    pytest.param(seed, marks=() if seed == 100 else pytest.mark.ci) for seed in range(100, 103)
]
_databases = itertools.count()


@dataclass
class Schedule:
    """A race, made from a seed: who has which images, which responses are free, who is killed where."""

    seed: int
    cap: int = field(init=False)
    images: list[list[str]] = field(init=False)
    kills: dict[int, tuple[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)  # noqa: S311  (repeatable, nothing secret)
        self.cap = rng.randint(3, 25)
        free_share = rng.choice((0.0, 0.1, 0.4))
        numbers = list(range(self.cap * PROCESSES))
        names = [f"{'nobody' if rng.random() < free_share else 'portrait'}-{n}" for n in numbers]
        # Each has a budget's worth of paid images, so that there is work left when the others are dead.
        paid = [f"portrait-{len(numbers) + n}" for n in range(self.cap)]
        manner = rng.choice(("the same", "their own", "some shared"))
        self.images = []
        for process in range(PROCESSES):
            theirs = names if manner == "the same" else names[process::PROCESSES]
            if manner == "some shared":
                theirs = [*theirs, *rng.sample(names, self.cap)]
            self.images.append(rng.sample([*dict.fromkeys([*theirs, *paid])], len({*theirs, *paid})))
        dying = rng.sample(range(PROCESSES), rng.choice((0, 0, 1, 3, 7)))
        self.kills = {process: (rng.choice(DEADLY), rng.randint(1, 5)) for process in dying}


class Track:
    """Where races are run."""

    def __init__(self, emulator: Emulator, server: ForkServer) -> None:
        self.emulator = emulator
        self.server = server

    async def race(self, schedule: Schedule, ledger: str, folder: Path) -> list[str]:
        """Run a race; what was wrong with it."""
        self.emulator.reset()
        ends = self.server.run(*(self._job(schedule, n, ledger, folder) for n in range(PROCESSES)))
        wrong = [
            f"process {n} ended with {end}: {self._log(folder, n)}"
            for n, end in enumerate(ends)
            if end != 0 and not (end == KILLED and n in schedule.kills)
        ]
        attempts = await self._attempts(ledger, schedule.cap)
        return wrong + self._money_is_wrong(schedule, attempts, killed=KILLED in ends)

    def _job(self, schedule: Schedule, number: int, ledger: str, folder: Path) -> dict[str, Any]:
        step, occurrence = schedule.kills.get(number, (None, 0))
        return {
            "module": "race_child",
            "log": str(folder / f"log-{number}"),
            "report": str(folder / f"report-{number}"),
            "sends": str(folder / f"sends-{number}"),
            "base_url": self.emulator.base_url,
            "ledger": ledger,
            "run_id": f"run-{number}",
            "cap": schedule.cap,
            "urls": [f"{self.emulator.origin}/samples/gen/{name}.jpg" for name in schedule.images[number]],
            "step": step,
            "occurrence": occurrence,
        }

    def _log(self, folder: Path, number: int) -> str:
        log = folder / f"log-{number}"
        return log.read_text("utf-8")[-300:] if log.exists() else "no log"

    async def _attempts(self, url: str, cap: int) -> pl.DataFrame:
        """The ledger's attempts, once a later run has freed what the dead had reserved."""
        scope = Scope(service_of(self.emulator.base_url), "default", WAN22_S2V_DETECT)
        async with Ledger(url, SystemClock()) as ledger:
            await ledger.open_run("after", scope, BUDGET, cap, "retry")
            return pl.concat([frame async for frame in ledger.attempts()])

    def _money_is_wrong(self, schedule: Schedule, attempts: pl.DataFrame, *, killed: bool) -> list[str]:
        invoice, wrong = self.emulator.invoice(), []
        states = Counter(attempts["state"].to_list())
        if states["reserved"]:
            wrong.append(f"{states['reserved']} calls are reserved for ever")
        if states["billed"] + states["unknown"] != schedule.cap:
            wrong.append(f"{states} of a budget of {schedule.cap}")
        if len(invoice) > schedule.cap or (len(invoice) < schedule.cap and not killed):
            wrong.append(f"an invoice of {len(invoice)} for a budget of {schedule.cap}")
        if states["unknown"] and not killed:
            wrong.append("a response was lost, though no process was killed")
        billed = attempts.filter(state="billed")
        ours = set(billed["request_id"])
        if len(ours) < billed.height or billed["image_key"].is_duplicated().any():
            wrong.append("a call or an image is billed twice")
        if ours - {line["request_id"] for line in invoice}:
            wrong.append("a billed call is not on the invoice")
        lost = Counter(image_key(line["image_url"]) for line in invoice if line["request_id"] not in ours)
        unconfirmed = Counter(attempts.filter(state="unknown")["image_key"].to_list())
        wrong += [
            f"{n} lost charges, {unconfirmed[key]} unconfirmed"
            for key, n in lost.items()
            if n > unconfirmed[key]
        ]
        return wrong


@pytest.fixture(scope="module")
def track() -> Iterator[Track]:
    options = EmulatorOptions(limit=None, fetch_images=False, latency_s=0.002, jitter_s=0.01)
    with Emulator(options) as emulator, ForkServer("race_child") as server:
        yield Track(emulator, server)


@pytest.mark.parametrize("seed", SEEDS)
async def test_eight_processes_spend_one_budget_exactly(track: Track, tmp_path: Path, seed: int) -> None:
    """On one SQLite file: never an image more, and never one less while there is work left."""
    ledger = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    assert await track.race(Schedule(seed), ledger, tmp_path) == []


@pytest.mark.parametrize("seed", POSTGRESQL_SEEDS)
async def test_eight_processes_spend_one_budget_exactly_on_postgresql(
    track: Track, tmp_path: Path, postgresql_server: str, seed: int
) -> None:
    """The same where several machines would share the ledger."""
    name = f"race_{next(_databases)}"
    admin = await asyncpg.connect(postgresql_server.format("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    assert await track.race(Schedule(seed), postgresql_server.format(name), tmp_path) == []


async def test_many_random_races(
    track: Track, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --schedules N: as many races as that, each another."""
    wanted = request.config.getoption("--schedules", 0)
    if not wanted:
        pytest.skip("a long run: --schedules N")
    wrong = []
    for seed in range(1000, 1000 + wanted):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = await track.race(Schedule(seed), f"sqlite:///{folder / 'ledger.sqlite3'}", folder)
        wrong += [f"seed {seed}: {what}" for what in found]
    with capsys.disabled():
        print(f"\n{wanted} races, {len(wrong)} violations")  # noqa: T201  (the point of a long run)
    assert wrong == []
