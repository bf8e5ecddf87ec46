"""Crash at every point: a run is killed by SIGKILL at each writing step, continued, and its ledger checked.

What must hold, at every moment and in the end, is in `crash_bench`: the ledger's billed calls are on the
invoice, and any other line on it is an unknown attempt of that image; no image with a verdict is sent again;
none has two confirmed charges or more than two lost responses; the budget counts what is reserved, billed
and unknown, and the invoice never exceeds it; every row has one outcome; files are whole or absent, the
published one too.
"""

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from crash_bench import Crash, CrashRunner, KilledRun, LedgerDump, files_are_wrong, money_is_wrong
from workbench import Bench, ended, set_rate, wait_until

from s2v_tasks.emulator import Emulator, EmulatorOptions

SEEDS: Final = (0, 1, 2)
"""A roomy budget, one that ends half-way, one that is just enough; other orders and faults."""
COPIES: Final = (3, 7)
"""Jobs in which images have the bytes of others, and are paid for once; the second has half the money."""
OF_COPIES: Final = ("ledger:canonical_images:committing", "ledger:canonical_images:committed")
OFTEN: Final = (
    *(f"call:{phase}" for phase in ("leaving", "under_way", "responded")),
    *(
        f"ledger:{name}:{phase}"
        for name in ("reserve", "settle", "postpone", "beat")
        for phase in ("committing", "committed")
    ),
)
"""Steps of each call; killed at the first, a middle and the last one."""
ONCE: Final = (
    *(
        f"ledger:{name}:{phase}"
        for name in ("create", "open_run", "slow_down", "close_run")
        for phase in ("committing", "committed")
    ),
    *(
        f"file:{name}:{phase}"
        for name in (
            *("rows.parquet", "verdicts.parquet", "approved.parquet"),
            *("manifest.json", "parts.json", "gate.json", "current.json", "history"),
        )
        for phase in ("writing", "syncing", "renaming", "renamed")
    ),
    *(f"scratch:{step}" for step in ("placed:appending", "placed:syncing", "screened:appending")),
    "clean",
)
"""Steps of each run; the manifest's come at its start and at its end."""
WHERE: Final = ("first", "middle", "last")


def _cases(steps: Sequence[str], places: Sequence[str], seeds: Sequence[int]) -> Iterator[Any]:
    """Each step at each place with each seed: the default run takes one case of each step.

    With --ci each step is taken at every place and with every seed, with --runslow in all combinations.
    """
    for number, step in enumerate(steps):
        turns = range(number, number + max(len(places), len(seeds)))
        default, *more = ((places[turn % len(places)], seeds[turn % len(seeds)]) for turn in turns)
        for case in product(places, seeds):
            marks = () if case == default else pytest.mark.ci if case in more else pytest.mark.slow
            yield pytest.param(step, *case, marks=marks)


CASES: Final = (
    *_cases(OFTEN, WHERE, (*SEEDS, *COPIES)),
    *_cases(ONCE, ("first",), SEEDS),
    *_cases([step for step in ONCE if "manifest" in step], ("last",), SEEDS),
    *_cases(OF_COPIES, WHERE, COPIES),
)


class Crashes:
    """Lives that go on in the background while tests wait for theirs."""

    def __init__(self, runner: CrashRunner, cases: list[tuple[str, str, int]]) -> None:
        self.runner = runner
        unharmed = {seed: runner.submit(seed=seed) for seed in (*SEEDS, *COPIES)}
        self.unharmed: dict[int, KilledRun] = {seed: run.result() for seed, run in unharmed.items()}
        self._runs: dict[tuple[str, str, int], Future[KilledRun]] = {
            case: runner.submit(self.crash(*case), seed=case[2]) for case in cases
        }

    def crash(self, step: str, where: str, seed: int) -> Crash:
        """The first, middle or last occurrence of a step, as an unharmed run counted them."""
        count = max(1, self.unharmed[seed].counts[step])
        return Crash(step, {"first": 1, "middle": (count + 1) // 2, "last": count}[where])

    def run(self, step: str, where: str, seed: int) -> KilledRun:
        """What came of a case."""
        return self._runs[step, where, seed].result()


@pytest.fixture(scope="module")
def crashes(request: pytest.FixtureRequest) -> Iterator[Crashes]:
    runner = CrashRunner()
    run = [item for item in request.session.items if not item.get_closest_marker("skip")]
    parameters = [item.callspec.params for item in run if hasattr(item, "callspec")]
    cases = [(p["step"], p["where"], p["seed"]) for p in parameters if "where" in p]
    try:
        yield Crashes(runner, cases)
    finally:
        runner.close()


@pytest.mark.parametrize("seed", [*SEEDS, *COPIES])
def test_an_unharmed_run_comes_to_every_step_that_is_crashed_at(crashes: Crashes, seed: int) -> None:
    """The list of steps is the list of what a run does; one that is added to the product is missed here."""
    run = crashes.unharmed[seed]
    assert run.wrong == []
    assert set(run.counts) == {*OFTEN, *ONCE, *(OF_COPIES if seed in COPIES else ())}


@pytest.mark.parametrize(("step", "where", "seed"), CASES)
def test_a_run_killed_at_any_step_continues_and_its_ledger_agrees(
    crashes: Crashes, step: str, where: str, seed: int
) -> None:
    """Killed before or after each transaction, call and file; the same run id then finishes the job."""
    run = crashes.run(step, where, seed)
    assert run.wrong == []
    assert run.kills or where != "first"


def test_a_run_killed_after_it_published_leaves_what_is_published_as_it_is(crashes: Crashes) -> None:
    """Continued, it sends nothing and writes no data again: the pointer names what its gate evaluated."""
    killed = Crash("file:current.json:renamed", 1), Crash("file:approved.parquet:renamed", 1)
    faults = ("InvalidURL.Timeout:match=portrait-0.,times=2",)  # an error that another call would fix
    run = crashes.runner.submit(*killed, seed=0, faults=faults).result()
    assert run.kills == 1
    assert run.wrong == []


def test_many_random_crashes(
    crashes: Crashes, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --crashes N: any step, any occurrence, any seed; some are killed again as they recover."""
    wanted = request.config.getoption("--crashes", 0)
    if not wanted:
        pytest.skip("a long run: --crashes N")
    rng = random.Random(wanted)  # noqa: S311  (repeatable, nothing secret)
    kills, wrong = 0, []
    while kills < wanted:
        runs = {}
        for _ in range(max(2, min(50, wanted - kills))):
            seed = rng.randrange(1_000_000)
            counts = crashes.unharmed[SEEDS[seed % len(SEEDS)]].counts
            steps = rng.choices((*OFTEN, *ONCE), k=rng.choice((1, 1, 2)))
            points = tuple(Crash(step, rng.randint(1, counts[step])) for step in steps)
            runs[seed, points] = crashes.runner.submit(*points, seed=seed)
        for (seed, points), run in runs.items():
            kills += run.result().kills
            wrong += [f"seed {seed}, {', '.join(map(str, points))}: {w}" for w in run.result().wrong]
    with capsys.disabled():
        print(f"\n{kills} crashes, {len(wrong)} violations")  # noqa: T201  (the point of a long run)
    assert wrong == []


def _kill_and_continue(folder: Path, emulator: Emulator, kills: int, seed: int) -> None:
    """Kill the command ``kills`` times at random moments of its work, then let it finish."""
    rng = random.Random(seed)  # noqa: S311  (repeatable, nothing secret)
    bench = Bench(folder, emulator)
    # A killed process makes at most ten calls and what fits into 0.2 s: none is done before the last kill.
    urls = bench.portraits(13 * kills + 14) + [bench.url(n, "scenery") for n in range(10)]
    candidates = bench.candidates(urls)
    ledger = bench.out / "ledger.sqlite3"
    for _ in range(kills):
        known = LedgerDump.read(ledger).verdicts.keys()
        before = bench.received()
        process = bench.start(*bench.curating(candidates, "--min-pass-rate", 0.1))
        calls = before + rng.randint(0, 9)
        wait_until(lambda p=process, c=calls: p.poll() is not None or bench.received() > c, every_s=0.02)
        time.sleep(rng.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        dump = LedgerDump.read(ledger)
        assert money_is_wrong(dump, emulator.invoice()) + files_are_wrong(bench.out) == []
        assert known <= dump.verdicts.keys()
    ran = ended(bench.start(*bench.curating(candidates, "--min-pass-rate", 0.1)))
    assert ran.status == 0, ran.out + ran.err
    dump = LedgerDump.read(ledger)
    assert money_is_wrong(dump, emulator.invoice()) + files_are_wrong(bench.out) == []
    assert ran.verdicts.height == len(urls)
    assert ran.verdicts["outcome"].null_count() == 0
    assert len(list((bench.out / "runs").iterdir())) == 1
    billed_urls = [line["image_url"] for line in emulator.invoice()]
    assert len(billed_urls) - len(set(billed_urls)) <= sum(dump.count("unknown").values())
    pointer = json.loads((bench.out / "published" / "current.json").read_bytes())
    assert pointer["rows"] == ran.verdicts.filter(outcome="passed").height


@pytest.mark.ci
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_the_command_killed_at_random_moments_continues(tmp_path: Path, prefect_api: str, kills: int) -> None:
    """The whole command with its flow, gate and server: killed while it works, then left alone."""
    set_rate(10)
    with Emulator(EmulatorOptions(limit=None)) as emulator:
        _kill_and_continue(tmp_path, emulator, kills, seed=kills)
