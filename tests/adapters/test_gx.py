"""The suites, seen to fail: each expectation of each suite on what it is there for, and on nothing else.

A validation takes a second: one frame has a broken row for every expectation, and each must name its own.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from s2v_tasks.adapters import gx, suite_file
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import SuiteError
from s2v_tasks.models import Expectation
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.settings.fields import limits

PRICE_USD = 0.000574
SECRET_URL = "https://images.example/a.jpg?signature=secret"  # noqa: S105
LIMITS = limits(
    Thresholds(max_cost_usd=1, max_cost_per_approved_usd=0.01, max_pass_rate_drop=0.3), Advanced()
)

FREE: dict[str, Any] = {
    "attempts": 0,
    "billing": "none",
    "run_cost_usd": 0.0,
    "lifetime_cost_usd": 0.0,
    "from_ledger": False,
    "message": SECRET_URL,
}
PAID: dict[str, Any] = {
    "attempts": 1,
    "billing": "billed",
    "run_cost_usd": PRICE_USD,
    "lifetime_cost_usd": PRICE_USD,
    "http_status": 200,
    "checked_at": datetime(2026, 11, 1, tzinfo=UTC),
}
SIZE: dict[str, Any] = {"width_px": 400, "height_px": 7000, "image_format": "jpeg"}
GOOD: dict[str, dict[str, Any]] = {
    "passed": FREE | PAID | SIZE | {"check_pass": True, "humanoid": True},
    "failed": FREE | PAID | SIZE | {"check_pass": False, "reason": "no_face", "code": "", "request_id": "r"},
    "screened_out": FREE | {"image_key": None, "reason": "empty_url"},
    "error": FREE | {"attempts": 3, "billing": "not_billed", "reason": "service_error", "http_status": 500},
    "unknown": FREE
    | {"attempts": 1, "billing": "unknown", "run_cost_usd": PRICE_USD, "lifetime_cost_usd": PRICE_USD},
    "skipped": FREE | {"reason": "budget_exhausted"},
    "duplicate": FREE | {"duplicate_of": 0, "check_pass": True, "humanoid": True},
}

# Expectation: the outcome of a good row, and what breaks it.
BROKEN_VERDICTS: dict[str, tuple[str, dict[str, Any]]] = {
    "row_present": ("passed", {"row": None}),
    "row_range": ("passed", {"row": 1_000_000}),
    "outcome_present": ("error", {"outcome": None}),
    "outcome_known": ("error", {"outcome": "lost"}),
    "image_key_present": ("skipped", {"image_key": None}),
    "image_key_form": ("failed", {"image_key": SECRET_URL}),
    "reason_present": ("screened_out", {"reason": None}),
    "reason_form": ("failed", {"reason": f"could not fetch {SECRET_URL}"}),
    "skipped_reason": ("skipped", {"reason": "tired"}),
    "duplicate_named": ("duplicate", {"duplicate_of": None}),
    "only_duplicates_name": ("passed", {"duplicate_of": 0}),
    "original_range": ("duplicate", {"duplicate_of": 1_000_000}),
    "original_is_another_row": ("duplicate", {"row": 7, "duplicate_of": 7}),
    "passed_was_checked": ("passed", {"check_pass": None}),
    "passed_check_is_true": ("passed", {"check_pass": False}),
    "failed_check_is_false": ("failed", {"check_pass": True}),
    "unchecked_without_verdict": ("unknown", {"check_pass": False}),
    "checked_at_present": ("failed", {"checked_at": None}),
    "attempts_present": ("failed", {"attempts": None}),
    "attempts_range": ("skipped", {"attempts": -1}),
    "billing_present": ("failed", {"billing": None}),
    "billing_known": ("failed", {"billing": "free"}),
    "passed_is_billed": ("passed", {"billing": "unknown"}),
    "screened_out_not_called": ("screened_out", {"billing": "billed"}),
    "duplicate_not_called": ("duplicate", {"billing": "billed"}),
    "run_cost_present": ("failed", {"run_cost_usd": None}),
    "run_cost_range": ("failed", {"run_cost_usd": -PRICE_USD}),
    "lifetime_cost_present": ("failed", {"lifetime_cost_usd": None}),
    "lifetime_cost_range": ("failed", {"lifetime_cost_usd": 574.0}),
    "lifetime_covers_run_cost": ("failed", {"lifetime_cost_usd": 0.0}),
    "passed_was_paid": ("passed", {"run_cost_usd": 0.0, "lifetime_cost_usd": 0.0}),
    "duplicate_costs_nothing": ("duplicate", {"run_cost_usd": PRICE_USD, "attempts": 1}),
    "charged_was_sent": ("failed", {"attempts": 0}),
    "from_ledger_present": ("failed", {"from_ledger": None}),
    "http_status_range": ("failed", {"http_status": 0}),
    "passed_width": ("passed", {"width_px": 399}),
    "passed_height": ("passed", {"height_px": 7001}),
}
BROKEN_TABLE = {"row_count", "columns"}

# Expectation: what breaks the facts of one segment.
BROKEN_FACTS: dict[str, dict[str, float | None]] = {
    "attempted": {"attempted": 0},
    "pass_rate_known": {"pass_rate": None},
    "pass_rate": {"pass_rate": 0.49},
    "pass_rate_drop_known": {"pass_rate_drop": None},
    "pass_rate_drop": {"pass_rate_drop": 0.31},
    "error_share_known": {"error_share": None},
    "error_share": {"error_share": 0.11},
    "missed_share_upper_known": {"missed_share_upper": None},
    "missed_share_upper": {"missed_share_upper": 0.06},
    "unknown_share_known": {"unknown_share": None},
    "unknown_share": {"unknown_share": 0.06},
    "unreachable_share_known": {"unreachable_share": None},
    "unreachable_share": {"unreachable_share": 0.21},
    "skipped_share_known": {"skipped_share": None},
    "skipped_share": {"skipped_share": 0.001},
    "dataset_cost_known": {"dataset_cost_usd": None},
    "dataset_cost": {"dataset_cost_usd": 1.01},
    "cost_per_approved_known": {"cost_per_approved_usd": None},
    "cost_per_approved": {"cost_per_approved_usd": float("inf")},
}
BROKEN_SCOPES = {"scopes", "rows_counted"}

Results = dict[str, Expectation]


def frame_of(rows: list[tuple[str, dict[str, Any]]]) -> pl.DataFrame:
    """A verdict frame of good rows with changes, each its own image, behind a column of the input's own."""
    base = dict.fromkeys(SCHEMA)
    full = [
        {"image_url": SECRET_URL, **base, "row": i, "image_key": f"{i:032x}", "outcome": outcome}
        | GOOD[outcome]
        | changes
        for i, (outcome, changes) in enumerate(rows)
    ]
    return pl.DataFrame(full, schema={"image_url": pl.String(), **SCHEMA})


def good_verdicts() -> pl.DataFrame:
    return frame_of([("passed", {})] * 6 + [("failed", {}), ("duplicate", {}), ("screened_out", {})])


def every_outcome() -> pl.DataFrame:
    return frame_of([(outcome, {}) for outcome in GOOD])


def facts_frame(verdicts: pl.DataFrame, segment_column: str | None = None) -> pl.DataFrame:
    return gate_rules.facts_of(verdicts.lazy(), segment_column).collect()


def broken_facts() -> pl.DataFrame:
    """Good facts overall, and a segment for each expectation, named after it and broken for it."""
    (good,) = facts_frame(good_verdicts()).to_dicts()
    good |= {"median_pass_rate": 0.9, "pass_rate_drop": 0.3, "dropped": 1, "missed_share_upper": 0.05}
    segments = [
        {**good, "scope": "segment", "segment": name, **changes} for name, changes in BROKEN_FACTS.items()
    ]
    return pl.DataFrame([good, *segments], schema=gate_rules.FACTS_SCHEMA)


def by_name(expectations: tuple[Expectation, ...]) -> Results:
    return {expectation.name: expectation for expectation in expectations}


def failed(expectations: tuple[Expectation, ...]) -> set[str]:
    return {expectation.name for expectation in expectations if not expectation.success}


def names_in(suite: str) -> set[str]:
    text = resources.files("s2v_tasks.expectations").joinpath(f"{suite}.json").read_text(encoding="utf-8")
    return {item["meta"]["name"] for item in json.loads(text)["expectations"]}


def page_texts(docs: Path) -> str:
    return "".join(page.read_text(encoding="utf-8") for page in docs.rglob("*.html"))


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data_docs")


@pytest.fixture(scope="module")
def seen(docs: Path) -> Results:
    """The results for the two broken frames."""
    verdicts = frame_of([("passed", {}), *BROKEN_VERDICTS.values()])
    given = gate_rules.parameters(LIMITS, rows=len(verdicts), segments=len(BROKEN_FACTS))
    facts = broken_facts().with_columns(rows=pl.lit(len(verdicts), pl.Int64))
    return by_name(gx.run_suites(verdicts, facts, given, docs))


def test_every_expectation_has_a_frame_that_breaks_it() -> None:
    """Who adds an expectation shows what it is there for."""
    assert names_in("verdicts") == BROKEN_VERDICTS.keys() | BROKEN_TABLE
    assert names_in("gate") == BROKEN_FACTS.keys() | BROKEN_SCOPES


@pytest.mark.parametrize("name", BROKEN_VERDICTS)
def test_a_broken_verdict_fails_its_own_expectation(name: str, seen: Results) -> None:
    """Each expectation refuses the one row that was broken for it, and none of the others."""
    row = BROKEN_VERDICTS[name][1].get("row", 1 + list(BROKEN_VERDICTS).index(name))
    assert not seen[name].success
    assert seen[name].observed.startswith("not so in 1 of ")
    assert seen[name].observed.endswith(f"first in row {row}")


@pytest.mark.parametrize("name", BROKEN_FACTS)
def test_a_broken_segment_fails_its_own_expectation(name: str, seen: Results) -> None:
    """Each expectation names the one segment that was broken for it, and what was seen there."""
    (value,) = BROKEN_FACTS[name].values()
    assert not seen[name].success
    assert seen[name].segment == name
    assert seen[name].observed == (
        f"{value:g}" if value is not None else f"not so in 1 of {_applies(name)} rows"
    )


def _applies(name: str) -> int:
    """Rows of the facts that an expectation of presence covers: shares of attempted need an attempt."""
    of_attempted = name in {"pass_rate_known", "error_share_known", "unknown_share_known"}
    return 1 + len(BROKEN_FACTS) - of_attempted


def test_what_holds_for_the_whole_is_not_failed_by_a_part(seen: Results) -> None:
    """Broken rows and segments leave the expectations about the tables as such alone."""
    assert {name for name, expectation in seen.items() if expectation.success} == BROKEN_TABLE | BROKEN_SCOPES


def test_a_frame_in_parts_is_validated_as_the_whole_is(seen: Results, tmp_path: Path) -> None:
    """More rows than are handed over at once: the same observed values, counts and rows; a page for each."""
    verdicts = frame_of([("passed", {}), *BROKEN_VERDICTS.values()])
    given = gate_rules.parameters(LIMITS, rows=len(verdicts), segments=len(BROKEN_FACTS))
    facts = broken_facts().with_columns(rows=pl.lit(len(verdicts), pl.Int64))
    checked = gx.run_suites(verdicts.lazy(), facts, given, tmp_path, batch_rows=20)
    assert len(verdicts) == 38
    assert by_name(checked) == seen
    assert len(list((tmp_path / "validations").rglob("*.html"))) == 3


def test_lost_rows_are_seen_in_parts_too(tmp_path: Path) -> None:
    """Each part must hold its share of the input's rows, and so must the last one."""
    verdicts = good_verdicts()
    facts = facts_frame(verdicts)
    for rows, wanted in ((8, 9), (9, 8)):
        given = gate_rules.parameters(LIMITS, rows=wanted)
        checked = by_name(
            gx.run_suites(verdicts.head(rows), facts, given, tmp_path / f"{rows}", batch_rows=5)
        )
        assert not checked["row_count"].success
        assert checked["row_count"].observed == str(rows)


def test_data_docs_show_what_failed_and_no_url(seen: Results, docs: Path) -> None:
    """The pages hold the columns, limits and observed values, and not a URL of the input, key or message."""
    assert (docs / "index.html").is_file()
    pages = page_texts(docs)
    for shown in ("pass_rate", "greater than or equal to", "0.49", "image_key", "unexpected"):
        assert shown in pages
    assert SECRET_URL not in pages
    assert "images.example" not in pages


def test_without_a_folder_the_same_is_validated_and_nothing_is_written(
    seen: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data Docs are written on request; what was observed does not depend on them."""
    monkeypatch.chdir(tmp_path)
    verdicts = frame_of([("passed", {}), *BROKEN_VERDICTS.values()])
    given = gate_rules.parameters(LIMITS, rows=len(verdicts), segments=len(BROKEN_FACTS))
    facts = broken_facts().with_columns(rows=pl.lit(len(verdicts), pl.Int64))
    assert by_name(gx.run_suites(verdicts, facts, given)) == seen
    assert not list(tmp_path.iterdir())


def test_good_frames_pass_every_expectation(tmp_path: Path) -> None:
    """Nothing fails on good data, segments and limits included; the worst value is reported."""
    verdicts = good_verdicts().with_columns(image_format=pl.lit("jpeg"))
    facts = facts_frame(verdicts, "image_format")
    given = gate_rules.parameters(LIMITS, rows=9, segments=1)
    checked = gx.run_suites(verdicts, facts, given, tmp_path / "docs")
    assert failed(checked) == set()
    assert [e.suite for e in checked] == ["verdicts"] * len(names_in("verdicts")) + ["gate"] * len(
        names_in("gate")
    )
    assert str(by_name(checked)["pass_rate"]) == "pass_rate: observed 0.857143, wanted at least 0.5"
    assert str(by_name(checked)["row_count"]) == "row_count: observed 9, wanted exactly 9 rows"
    assert (tmp_path / "docs" / "index.html").is_file()


def test_every_outcome_is_fit_and_a_closed_gate_is_about_the_facts(tmp_path: Path) -> None:
    """A row of each outcome passes the first suite; its shares and its price are what the second refuses."""
    verdicts = every_outcome()
    checked = gx.run_suites(verdicts, facts_frame(verdicts), gate_rules.parameters(LIMITS, rows=7), tmp_path)
    assert failed(checked) == {"pass_rate", "error_share", "unknown_share", "skipped_share"}


def test_a_limit_that_is_off_says_so_and_holds(tmp_path: Path) -> None:
    """Without cost limits and with a partial dataset allowed, no price and no skipped row closes."""
    verdicts = frame_of([("passed", {}), ("skipped", {})])
    facts = facts_frame(verdicts).with_columns(
        cost_per_approved_usd=float("inf"), dataset_cost_usd=1e9, pass_rate_drop=0.9
    )
    given = gate_rules.parameters(limits(Thresholds(publish="within_budget"), Advanced()), rows=2)
    results = gx.run_suites(verdicts, facts, given, tmp_path)
    assert failed(results) == set()
    off = {e.name: e.observed for e in results if e.threshold == "no limit"}
    assert off == {
        "skipped_share": "0.5", "dataset_cost": "1000000000", "cost_per_approved": "inf",
        "pass_rate_drop": "0.9",
    }  # fmt: skip


def test_lost_rows_and_columns_close_the_gate(tmp_path: Path) -> None:
    """Verdicts that are fewer than the input's rows, or lack a column, fail just there and say what lacks."""
    verdicts = good_verdicts()
    facts = facts_frame(verdicts)
    checked = gx.run_suites(
        verdicts.head(8).drop("request_id"), facts, gate_rules.parameters(LIMITS, rows=9), tmp_path
    )
    assert failed(checked) == BROKEN_TABLE
    assert str(by_name(checked)["columns"]).startswith("columns: observed missing request_id, wanted ")


def test_lost_segments_and_facts_of_a_part_close_the_gate(tmp_path: Path) -> None:
    """Facts with fewer scopes than there are segments, or counted on fewer rows, fail just there."""
    verdicts = good_verdicts()
    given = gate_rules.parameters(LIMITS, rows=9, segments=2)
    checked = gx.run_suites(verdicts, facts_frame(verdicts.head(7)), given, tmp_path)
    assert failed(checked) == BROKEN_SCOPES


def test_empty_frames_close_the_gate(tmp_path: Path) -> None:
    """No verdicts for nine rows and no facts at all: the counts notice, where all else holds on nothing."""
    verdicts, given = good_verdicts(), gate_rules.parameters(LIMITS, rows=9)
    checked = gx.run_suites(verdicts.clear(), facts_frame(verdicts).clear(), given, tmp_path)
    assert {"row_count", "scopes"} <= failed(checked)


def test_no_candidates_at_all_close_the_gate(tmp_path: Path) -> None:
    """A dataset without an attempt is not approved, even if no threshold is set."""
    verdicts = good_verdicts().clear()
    checked = gx.run_suites(verdicts, facts_frame(verdicts), gate_rules.parameters(LIMITS, rows=0), tmp_path)
    assert failed(checked) == {"attempted"}


def test_nothing_attempted_in_one_segment_closes_the_gate(tmp_path: Path) -> None:
    """A segment that was only screened is not covered by the good rest; it is named."""
    verdicts = frame_of([("passed", {"image_format": "png"}), ("screened_out", {"image_format": "gif"})])
    given = gate_rules.parameters(LIMITS, rows=2, segments=2)
    checked = gx.run_suites(verdicts, facts_frame(verdicts, "image_format"), given, tmp_path)
    assert failed(checked) == {"attempted"}
    assert str(by_name(checked)["attempted"]) == "attempted (segment gif): observed 0, wanted at least 1"


def test_validation_works_in_a_worker_thread(tmp_path: Path) -> None:
    """Flows run suites in a thread; two at a time get their own results."""
    verdicts = good_verdicts()
    failures: dict[int, set[str]] = {}

    def run(rows: int) -> None:
        given = gate_rules.parameters(LIMITS, rows=rows)
        failures[rows] = failed(gx.run_suites(verdicts, facts_frame(verdicts), given, tmp_path / str(rows)))

    threads = [threading.Thread(target=run, args=(rows,)) for rows in (9, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == {9: set(), 10: {"row_count", "rows_counted"}}


Change = Callable[[dict[str, Any]], object]


def suites_with(folder: Path, change: Change | None) -> Path:
    """A copy of the package's suites, the second one changed; None takes it away."""
    for name in gate_rules.SUITES:
        text = resources.files("s2v_tasks.expectations").joinpath(f"{name}.json").read_text(encoding="utf-8")
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    changed = folder / "gate.json"
    if change is None:
        changed.unlink()
    else:
        content = json.loads(changed.read_text(encoding="utf-8"))
        change(content)
        changed.write_text(json.dumps(content), encoding="utf-8")
    return folder


def edit(content: dict[str, Any], **changes: Any) -> None:
    """Change the suite's pass rate expectation."""
    (rule,) = (item for item in content["expectations"] if item["meta"]["name"] == "pass_rate")
    rule.update(changes)


UNTYPED: dict[str, Any] = {"type": "expect_column_values_to_be_betwen"}
BROKEN_SUITES: dict[str, tuple[Change | None, str]] = {
    "missing": (None, r"the file can't be read \(FileNotFoundError\)"),
    "empty": (lambda content: content["expectations"].clear(), "it has no expectations"),
    "no expectations key": (lambda content: content.pop("expectations"), "it must hold expectations"),
    "no words": (partial(edit, meta={"name": "pass_rate"}), "it must hold expectations, each with .*'wants'"),
    "words with half a brace": (
        partial(edit, meta={"name": "pass_rate", "wants": "at least {"}),
        "it must hold expectations",
    ),
    "a name twice": (
        lambda content: content["expectations"].append(content["expectations"][0]),
        "two of its expectations have the same name",
    ),
    "unknown type": (partial(edit, **UNTYPED), "type or severity is unknown of: pass_rate"),
    "unknown severity": (partial(edit, severity="grave"), "type or severity is unknown of: pass_rate"),
    "unknown argument": (
        partial(edit, kwargs={"column": "pass_rate", "min_valeu": 0.5}),
        "(refuses it|unknown of: pass_rate)",
    ),
    "nothing to hold against": (
        partial(edit, kwargs={"column": "pass_rate"}),
        "(refuses it|unknown of: pass_rate|could not be checked)",
    ),
    "unknown parameter": (
        partial(edit, kwargs={"column": "pass_rate", "min_value": {"$PARAMETER": "lowest"}}),
        "it uses unknown parameters: lowest;",
    ),
    "unknown column": (
        partial(edit, kwargs={"column": "passrate", "min_value": 0.5}),
        'pass_rate could not be checked .*"passrate"',
    ),
}


@pytest.mark.parametrize("case", BROKEN_SUITES)
def test_a_broken_suite_passes_nothing(case: str, tmp_path: Path) -> None:
    """What Great Expectations would drop, skip or trip over is an error of one line that names the suite."""
    change, message = BROKEN_SUITES[case]
    folder = suites_with(tmp_path, change)
    verdicts = good_verdicts()
    with pytest.raises(SuiteError, match=message) as caught:
        gx.run_suites(
            verdicts,
            facts_frame(verdicts),
            gate_rules.parameters(LIMITS, rows=9),
            tmp_path / "docs",
            suites=folder,
        )
    assert str(caught.value).startswith("suite gate: ")
    assert "\n" not in str(caught.value)


def test_a_suite_that_is_not_json_passes_nothing(tmp_path: Path) -> None:
    """A file cut short while it was edited is refused before anything is checked."""
    folder = suites_with(tmp_path, dict)
    (folder / "verdicts.json").write_text('{"name": "verdicts", "expectations": [', encoding="utf-8")
    with pytest.raises(SuiteError, match="suite verdicts: it is not JSON"):
        suite_file.read_suite(folder, "verdicts", gate_rules.parameters(LIMITS, rows=9))


def test_a_missing_parameter_is_noticed_before_any_validation() -> None:
    """Every parameter that the package's suites use is given by the stage, and none may be left out."""
    folder = resources.files("s2v_tasks.expectations")
    given = gate_rules.parameters(LIMITS, rows=9)
    for name in gate_rules.SUITES:
        assert len(suite_file.read_suite(folder, name, given).rules) == len(names_in(name))
    del given["max_error_share"]
    with pytest.raises(SuiteError, match="suite gate: it uses unknown parameters: max_error_share;"):
        suite_file.read_suite(folder, "gate", given)


def test_the_words_of_a_threshold_name_the_parameters_it_depends_on() -> None:
    """The reported threshold is the checked one: the same parameters in description and arguments."""
    given = gate_rules.parameters(LIMITS, rows=9)
    for name in gate_rules.SUITES:
        for item in suite_file.read_suite(resources.files("s2v_tasks.expectations"), name, given).content[
            "expectations"
        ]:
            used = {value["$PARAMETER"] for value in item["kwargs"].values() if "$PARAMETER" in str(value)}
            assert used == {parameter for parameter in given if f"{{{parameter}}}" in item["meta"]["wants"]}
            assert item["meta"]["why"].endswith(".")
            assert item["severity"] == "critical"


def test_great_expectations_is_imported_only_to_validate() -> None:
    """Importing the adapter costs neither its seconds nor its memory."""
    code = "import sys, s2v_tasks.adapters.gx; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.ci
def test_what_the_suites_do_not_use_is_loaded_when_it_is_used() -> None:
    """The import and the suites run no statistics and no charts; their users get the real modules."""
    code = """
import sys
import polars as pl
from s2v_tasks.domain import gate_rules
from s2v_tasks.adapters import gx
from s2v_tasks.settings.fields import limits
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.domain.verdict_table import SCHEMA
verdicts = pl.DataFrame(schema=SCHEMA)
gx.preload()
given = gate_rules.parameters(limits(Thresholds(), Advanced()), rows=0)
gx.run_suites(verdicts, gate_rules.facts_of(verdicts.lazy(), None).collect(), given)
print("scipy.stats._stats_py" in sys.modules, "altair.vegalite" in sys.modules)
import altair, scipy.stats
print(scipy.stats.norm.cdf(0.0), altair.Chart.__name__)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "False", "0.5", "Chart"]


UNUSABLE = """
from s2v_tasks.adapters import gx
from s2v_tasks.domain import gate_rules
from s2v_tasks.errors import UsageError
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.settings.fields import limits
gx.preload()
try:
    gx.check_usable(gate_rules.parameters(limits(Thresholds(), Advanced()), rows=0))
except UsageError as error:
    print(error)
"""


def test_a_great_expectations_that_can_not_be_imported_is_found_before_anything_is_paid() -> None:
    """Under ``PYTHONOPTIMIZE=2`` its import fails: one line says so; the thread that imports it is quiet."""
    env = {**os.environ, "PYTHONOPTIMIZE": "2"}
    ran = subprocess.run([sys.executable, "-c", UNUSABLE], env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    message = "Great Expectations can't be used, so the gate could not be evaluated (ValueError:"
    assert ran.stdout.startswith(message)
