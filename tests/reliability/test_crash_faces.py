"""A run that checks faces, killed at its writing steps and continued: no file is decoded twice.

With rules that drop images and a stop, what it has decided stays decided, and it comes to the same end.
"""

import random
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from crash_bench import HOPELESS, PLAIN, Crash, CrashRunner, Images, KilledRun
from many_images import ImageServer

from s2v_tasks.domain.gate_rules import facts_of, read_facts

PHASES = ("writing", "syncing", "renaming", "renamed")
STEPS = (
    *(f"ledger:{name}:{phase}" for name in ("headers", "faces") for phase in ("committing", "committed")),
    "scratch:faces:appending",
)
"""What the face check adds to those of every run."""
DECIDED = tuple(f"file:{name}.json:{phase}" for name in ("hopeless", "rules_off") for phase in PHASES)
"""What a stop and a rule that is switched off add to them."""
OTHERS = (
    "ledger:reserve:committed",
    "ledger:settle:committed",
    "call:responded",
    "scratch:screened:appending",
)
AT_THE_END = ("file:verdicts.parquet:writing", "file:approved.parquet:renamed", "file:manifest.json:writing")

DROP = Images(
    {"portrait-face": 30, "scenery": 70, "gone": 5},
    {"faces": "drop", "rate_per_s": 5.0, "thresholds": {"min_pass_rate": 0.0, "max_missed_share": 0.5}},
    tries=False,
)
"""The first 60 of the sample prove the rule. It takes 13 of them while portraits are left, and about 42 show
none: where the sample ends does not depend on the order of responses."""
WRONG = Images(
    {"portrait-face": 20, "portrait-hidden": 70, HOPELESS: 70},
    {
        "faces": "drop",
        "segment_column": "kind",
        "thresholds": {"min_pass_rate": 0.5, "max_missed_share": 0.2},
    },
    tries=False,
)
"""The rule drops portraits, and a segment has none."""


@pytest.fixture(scope="module", params=[PLAIN], ids=["order"])
def runner(request: pytest.FixtureRequest) -> Iterator[CrashRunner]:
    workers = 2 if request.param is PLAIN else 1  # runs of one host have one order of the sample
    runner = CrashRunner(workers, images=ImageServer, listed=request.param)
    try:
        yield runner
    finally:
        runner.close()


def end_of(run: KilledRun) -> dict[str, Any]:
    """What a run came to: how each image ended, which are the sample's, and the facts that follow."""
    (facts,) = read_facts(facts_of(run.rows.lazy()).collect())
    rows = run.rows.select("outcome", "reason", "faces_seen", "audited", "audited_in_run").rows()
    counts = {"passed": facts.passed, "failed": facts.failed, "sampled": facts.sampled}
    bounds = {
        "dropped": facts.dropped,
        "missed": facts.missed_share_upper,
        "of rule": facts.no_face_missed_upper,
    }
    return {"rows": rows, "pass rate": facts.pass_rate} | counts | bounds


def differences(run: KilledRun, unharmed: KilledRun) -> list[str]:
    """What a killed run came to that it would not have if it had been left alone."""
    if run.listed is DROP:
        if "unknown" in run.rows["outcome"]:  # after two lost responses: that is another end
            return []
        ended, right = end_of(run), end_of(unharmed)
        return [f"{name}: {ended[name]}, not {right[name]}" for name in right if ended[name] != right[name]]
    if run.listed is WRONG:
        hopeless = set(run.rows.filter(kind=HOPELESS)["outcome"])
        others = set(run.rows.filter(pl.col("kind") != HOPELESS)["outcome"])
        is_right = "skipped" in hopeless <= {"skipped", "failed", "unknown", "duplicate"}
        is_right &= others <= {"passed", "unknown", "duplicate"}
        return [] if is_right else [f"the hopeless segment ended as {hopeless}, others as {others}"]
    return []


@pytest.mark.ci
def test_a_killed_run_decodes_no_file_again_whose_faces_it_has_stored(runner: CrashRunner) -> None:
    """Killed before the ledger holds a shard, and before the run's folder does; the money is right too."""
    cases = (("ledger:faces:committing", 2), ("scratch:faces:appending", 1))
    runs = {case: runner.submit(Crash(*case), seed=seed) for seed, case in enumerate(cases)}
    for case, run in runs.items():
        assert run.result().wrong == [], case
        assert run.result().kills == 1, case


@pytest.mark.ci
@pytest.mark.parametrize("runner", [DROP], indirect=True, ids=["drop"])
def test_a_killed_run_that_drops_images_ends_as_if_it_had_not_been_killed(runner: CrashRunner) -> None:
    """The same images are dropped, by the proof of the same sample; killed in mid-run and at its end."""
    unharmed = runner.submit(seed=1).result()
    assert unharmed.wrong == []
    ended = end_of(unharmed)
    assert ended["dropped"] >= 15
    assert ended["missed"] < 0.5
    crashes = Crash("ledger:settle:committed", 40), Crash("file:verdicts.parquet:renaming", 1)
    run = runner.submit(*crashes, seed=1).result()
    assert run.kills == 2
    assert run.wrong + differences(run, unharmed) == []


@pytest.mark.ci
@pytest.mark.parametrize("runner", [WRONG], indirect=True, ids=["wrong"])
def test_a_rule_that_is_off_and_a_stop_hold_for_a_killed_run(runner: CrashRunner) -> None:
    """Killed just after one decision is stored, or just before the other: kept, or found again.

    A run each: which of the two comes first depends on the order of responses.
    """
    for step in ("file:hopeless.json:renamed", "file:rules_off.json:renaming"):
        run = runner.submit(Crash(step, 1), seed=1).result()
        assert run.wrong + differences(run, run) == [], step
        assert run.kills == 1, step


@pytest.mark.parametrize("runner", [PLAIN, DROP, WRONG], indirect=True, ids=["order", "drop", "wrong"])
def test_many_crashes_of_the_face_check(
    runner: CrashRunner, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --face-crashes N: a third of them each, but each step once; some are killed again."""
    wanted = request.config.getoption("--face-crashes", 0)
    if not wanted:
        pytest.skip("a long run: --face-crashes N")
    rng = random.Random(wanted)  # noqa: S311  (repeatable, nothing secret)
    if runner.listed is PLAIN:
        steps, seeds = (*STEPS, *OTHERS), tuple(seed for seed in range(12) if seed % 4 != 3)
    else:
        steps, seeds = (*STEPS, *OTHERS, *(AT_THE_END if runner.listed is DROP else DECIDED)), (1,)
    runs = {(): runner.submit(seed=1)}
    for number in range(max(wanted // 3, len(steps))):
        step = steps[number % len(steps)]
        most = 1 if step.startswith("file:") else 90 if step in OTHERS and runner.listed is not PLAIN else 4
        crashes = tuple(Crash(step, rng.randint(1, most)) for _ in range(rng.choice((1, 1, 2))))
        runs[crashes] = runner.submit(*crashes, seed=rng.choice(seeds))
    kills, wrong = 0, []
    for crashes, future in runs.items():
        run: KilledRun = future.result()
        kills += run.kills
        found = run.wrong or differences(run, runs[()].result())
        wrong += [f"{', '.join(map(str, crashes))}: {one}" for one in found]
    with capsys.disabled():
        print(f"\n{kills} crashes of the face check, {len(wrong)} violations")  # noqa: T201
    assert wrong == []
