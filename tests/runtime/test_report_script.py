"""The page's script and the gate's suite agree, whatever the thresholds.

A validation takes a second or two, so the suite is validated once for each of a few values of the thresholds,
on the facts of all datasets at once: an expectation of columns holds for each row by itself. A random set
takes each threshold from one of these; a few sets are also validated alone.
"""

import json
import math
import random
import subprocess
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import polars as pl
import pytest
from made_run import row, verdicts

from s2v_tasks.adapters import gx
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.report_gate import gate_view
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.settings.fields import limits

pytestmark = [pytest.mark.ci, pytest.mark.needs("node")]

SETS: Final = 200
DATASETS: Final = 60
LEVELS: Final = 6
ALONE: Final = 2
DECLARED: Final = limits(Thresholds(), Advanced())
KINDS: Final = ("passed", "failed", "error", "unknown", "skipped", "screened_out", "free error")
WHOLE_TABLE: Final = {"scopes", "rows_counted"}
"""Expectations of the whole table of facts, which no threshold and no script concerns."""
RUN: Final = """
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map((one) => evaluate(one.facts, one.limits))));
"""

Level = dict[str, float | None]
Failed = dict[str, set[int]]


@dataclass(frozen=True)
class Datasets:
    """Random datasets: verdicts and facts of each, and where its facts begin in those of all."""

    verdicts: list[pl.DataFrame]
    facts: list[pl.DataFrame]

    @property
    def all_facts(self) -> pl.DataFrame:
        return pl.concat(self.facts)

    def rows(self, number: int) -> range:
        """The rows of its facts in ``all_facts``: overall, then its segments."""
        first = sum(frame.height for frame in self.facts[:number])
        return range(first, first + self.facts[number].height)


def random_verdicts(chance: random.Random) -> pl.DataFrame:
    """Up to three segments; shares are null where nothing was attempted, costs infinite or null too."""
    rows = []
    for name in ("web", "lab", "old")[: chance.randint(1, 3)]:
        for kind in chance.choices(KINDS, [chance.random() ** 3 for _ in KINDS], k=chance.randint(1, 6)):
            outcome = kind.removeprefix("free ")
            reason = "dead" if outcome == "screened_out" else None
            rows.append(row("a.example", name, outcome, int(kind in KINDS[:4]), reason=reason))
    return verdicts(*(one | {"image_key": str(n)} for n, one in enumerate(rows)))


@pytest.fixture(scope="module")
def datasets() -> Datasets:
    chance = random.Random(7)  # noqa: S311  (no secret)
    frames = [random_verdicts(chance) for _ in range(DATASETS)]
    return Datasets(
        frames,
        [with_random_facts(chance, gate_rules.facts_of(one.lazy(), "source").collect()) for one in frames],
    )


def with_random_facts(chance: random.Random, facts: pl.DataFrame) -> pl.DataFrame:
    """Overall also a drop, as of a dataset with publications before it, and a bound of dropped images."""
    drop, missed = (chance.choice([None, 0.0, chance.random()]) for _ in range(2))
    median, dropped = None if drop is None else 0.5, None if missed is None else 1
    given = {
        "median_pass_rate": median, "pass_rate_drop": drop, "dropped": dropped, "missed_share_upper": missed
    }  # fmt: skip
    return facts.with_columns(
        pl.when(scope="overall").then(pl.lit(value, facts.schema[name])).alias(name)
        for name, value in given.items()
    )


@pytest.fixture(scope="module")
def levels(datasets: Datasets) -> list[Level]:
    """Values of each threshold: many that occur, so that the limit itself is tried, some without a limit."""
    chance = random.Random(8)  # noqa: S311  (no secret)
    by_parameter = {"max_cost_usd": "dataset_cost_usd", "max_missed_share": "missed_share_upper"}

    def value(name: str) -> float | None:
        if chance.random() < 0.3 and any(part in name for part in ("usd", "skipped", "drop")):
            return None
        fact = by_parameter.get(name, name.removeprefix("min_").removeprefix("max_"))
        seen = sorted(one for one in datasets.all_facts[fact].drop_nulls() if math.isfinite(one))
        lenient = seen[: len(seen) // 3] if name.startswith("min_") else seen[len(seen) * 2 // 3 :]
        return chance.choice(lenient) if chance.random() < 0.8 else chance.random()

    return [{name: value(name) for name in DECLARED} for _ in range(LEVELS)]


@pytest.fixture(scope="module")
def failed_rows(datasets: Datasets, levels: list[Level]) -> list[Failed]:
    """For each level, the rows of ``all_facts`` in which each expectation of the gate's suite fails."""
    import great_expectations as ge  # seconds: not while tests are collected

    facts = datasets.all_facts
    content = json.loads((resources.files("s2v_tasks.expectations") / "gate.json").read_text("utf-8"))
    asset = ge.get_context(mode="ephemeral").data_sources.add_pandas("facts").add_dataframe_asset("facts")
    batch = asset.add_batch_definition_whole_dataframe("facts").get_batch({"dataframe": facts.to_pandas()})
    found: list[Failed] = []
    for level in levels:
        given = gate_rules.parameters(level, rows=0, segments=facts.height - 1)
        validated = batch.validate(
            ge.ExpectationSuite(**content), expectation_parameters=given, result_format="COMPLETE"
        )
        assert len(validated.results) == len(content["expectations"])
        assert not any(one.exception_info.get("raised_exception") for one in validated.results)
        found.append({
            name: set(one.result.get("unexpected_index_list") or ())
            for one in validated.results
            if (name := one.expectation_config.meta["name"]) not in WHOLE_TABLE
        })  # fmt: skip
    return found


@dataclass(frozen=True)
class Case:
    """A dataset, the level that its run took each threshold from, and the level that each slider is at."""

    dataset: int
    before: dict[str, int]
    now: dict[str, int]


def parameter_of(expectation: str) -> str | None:
    """The threshold that an expectation checks."""
    names = {name[4:].removesuffix("_usd"): name for name in DECLARED}
    fact = expectation.removesuffix("_usd").removesuffix("_upper")
    return names.get(fact) or names.get(fact.removeprefix("dataset_"))


def failing(chosen: dict[str, int], found: list[Failed]) -> Failed:
    """The rows in which each expectation fails with thresholds of several levels."""
    return {name: found[chosen.get(parameter_of(name) or "", 0)][name] for name in found[0]}


def limits_of(chosen: dict[str, int], levels: list[Level]) -> Level:
    return {name: levels[level][name] for name, level in chosen.items()}


def page_input(case: Case, datasets: Datasets, levels: list[Level], found: list[Failed]) -> dict[str, Any]:
    """What the page holds after the run's own gate, and where its sliders are."""
    rows = set(datasets.rows(case.dataset))
    report = {"open": False, "expectations": [
        {"suite": "gate", "name": name, "success": not rows & failed}
        for name, failed in failing(case.before, found).items()
    ]}  # fmt: skip
    facts = gate_rules.read_facts(datasets.facts[case.dataset])
    view = gate_view(facts, limits_of(case.before, levels), report)
    now = limits_of(case.now, levels)
    assert {one.parameter for one in view.sliders} == DECLARED.keys()
    return {"facts": view.script_facts(), "limits": [now[one.parameter] for one in view.sliders]}


def test_the_script_and_the_suite_agree_on_random_thresholds(
    datasets: Datasets, levels: list[Level], failed_rows: list[Failed]
) -> None:
    """Whether the gate would be open and which segments would pass, whatever the run's own thresholds were.

    On 200 sets; facts that are null or infinite occur, and both results.
    """
    chance = random.Random(9)  # noqa: S311  (no secret)

    def chosen() -> dict[str, int]:
        return {name: chance.randrange(LEVELS) for name in DECLARED}

    cases = [Case(n % DATASETS, chosen(), chosen()) for n in range(SETS)]
    given = [page_input(one, datasets, levels, failed_rows) for one in cases]
    script = (resources.files("s2v_tasks.adapters") / "report" / "report.js").read_text("utf-8")
    ran = subprocess.run(
        ["node", "-e", script + RUN], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    wanted = []
    for case in cases:
        bad = set().union(*failing(case.now, failed_rows).values())
        overall, *segments = (row not in bad for row in datasets.rows(case.dataset))
        wanted.append({"open": overall and all(segments), "segments": segments})
    assert json.loads(ran.stdout) == wanted
    assert {one["open"] for one in wanted} == {True, False}
    values = [value for one in given for scope in one["facts"]["segments"] for value in scope["values"]]
    assert None in values
    assert "Infinity" in values


@pytest.mark.parametrize("number", range(ALONE))
def test_a_dataset_alone_has_the_result_that_it_has_among_all(
    number: int, datasets: Datasets, levels: list[Level], failed_rows: list[Failed]
) -> None:
    """The premise of the other test, by the gate's own way: one with infinite and null facts, one without."""
    costs = [frame["cost_per_approved_usd"] for frame in datasets.facts]
    odd = [bool(one.is_null().any() and one.is_infinite().any()) for one in costs]
    dataset = odd.index(number == 0)
    facts = datasets.facts[dataset]
    given = gate_rules.parameters(levels[number], rows=facts["rows"][0], segments=facts.height - 1)
    alone = gx.run_suites(datasets.verdicts[dataset], facts, given)
    rows = set(datasets.rows(dataset))
    found = {one.name: one.success for one in alone if one.suite == "gate" and one.name not in WHOLE_TABLE}
    assert found == {name: not rows & failed for name, failed in failed_rows[number].items()}
