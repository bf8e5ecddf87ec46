"""The gate's numbers, and what follows from the results."""

from dataclasses import fields
from datetime import UTC, datetime

import polars as pl
import pytest

from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.dead_links import UNREACHABLE
from s2v_tasks.errors import DataIntegrityError
from s2v_tasks.models import WAN22_S2V_DETECT, Expectation, Facts
from s2v_tasks.runtime.verdict_file import check_unique
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.settings.fields import limits

PRICE_USD = 0.000574
NOW = datetime(2026, 11, 1, tzinfo=UTC)
COLUMNS = {
    "row": pl.Int64,
    "image_key": pl.String,
    "outcome": pl.String,
    "reason": pl.String,
    "run_cost_usd": pl.Float64,
    "lifetime_cost_usd": pl.Float64,
    "source": pl.String,
    "audited": pl.Boolean,
    "audited_in_run": pl.Boolean,
    "faces_seen": pl.Int64,
}


def table(*rows: tuple[str, dict[str, object]]) -> pl.DataFrame:
    """A verdict frame with what the facts need; each row its own image, free by default."""
    base = {"reason": None, "run_cost_usd": 0.0, "lifetime_cost_usd": 0.0, "source": "web", "audited": None,
            "audited_in_run": None, "faces_seen": None}  # fmt: skip
    return pl.DataFrame(
        [
            {"row": i, "image_key": f"{i:032x}", "outcome": outcome, **base, **more}
            for i, (outcome, more) in enumerate(rows)
        ],
        schema=COLUMNS,
    )


def facts(frame: pl.DataFrame, segment_column: str | None = None) -> tuple[Facts, ...]:
    return gate_rules.read_facts(gate_rules.facts_of(frame.lazy(), segment_column).collect())


def expectation(suite: str = "gate", name: str = "pass_rate", *, success: bool = True) -> Expectation:
    return Expectation(suite, name, success, "0.41", "at least 0.5")


def test_facts_frame_has_the_fields_of_the_record() -> None:
    """The schema's columns are the record's fields, in order, and the frame is typed as it says."""
    assert list(gate_rules.FACTS_SCHEMA) == [field.name for field in fields(Facts)]
    for segment_column in (None, "source"):
        frame = gate_rules.facts_of(table().lazy(), segment_column).collect()
        assert dict(frame.schema) == gate_rules.FACTS_SCHEMA


def test_counts_and_shares_are_of_unique_images() -> None:
    """Duplicates count as rows and nowhere else; shares divide by attempted or by unique images."""
    outcomes = ["passed"] * 3 + [
        "failed",
        "error",
        "unknown",
        "skipped",
        "screened_out",
        "duplicate",
        "duplicate",
    ]
    (overall,) = facts(table(*((outcome, {}) for outcome in outcomes)))
    assert (overall.rows, overall.unique, overall.attempted, overall.passed) == (10, 8, 6, 3)
    assert (overall.pass_rate, overall.error_share, overall.unknown_share) == (3 / 6, 1 / 6, 1 / 6)
    assert (overall.skipped_share, overall.unreachable_share) == (1 / 8, 0.0)
    assert overall.attempted + overall.skipped + overall.screened_out == overall.unique


def test_only_an_image_that_could_not_be_reached_counts_as_unreachable() -> None:
    """A refused size or URL concerns the image; a dead link concerns the host."""
    reasons = [*sorted(UNREACHABLE), "too_small", "empty_url"]
    (overall,) = facts(
        table(*(("screened_out", {"reason": reason}) for reason in reasons), ("error", {"reason": "timeout"}))
    )
    assert overall.unreachable == len(UNREACHABLE)
    assert overall.unreachable_share == len(UNREACHABLE) / (len(reasons) + 1)


def test_a_wall_of_pages_is_unreachable() -> None:
    """Sixty of a hundred images are pages for robots: the share that closes the gate."""
    (overall,) = facts(
        table(*[("screened_out", {"reason": "web_page"})] * 60, *[("passed", {"check_pass": True})] * 40)
    )
    assert overall.unreachable_share == 0.6 > Thresholds().max_unreachable_share


def test_a_rejected_url_without_a_key_is_a_unique_candidate() -> None:
    """A row whose URL is no URL has no key; it is still one of the candidate images."""
    (overall,) = facts(table(("screened_out", {"image_key": None, "reason": "empty_url"})))
    assert (overall.unique, overall.unreachable_share) == (1, 0.0)


def test_money_adds_up_to_the_micro_usd() -> None:
    """A sum of a hundred thousand prices is exact, where adding floats would drift."""
    n = 100_000
    frame = pl.concat([table(("passed", {"run_cost_usd": PRICE_USD, "lifetime_cost_usd": PRICE_USD}))] * n)
    (overall,) = facts(frame)
    assert (overall.run_cost_usd, overall.dataset_cost_usd) == (57.4, 57.4)
    assert overall.cost_per_approved_usd == PRICE_USD
    (odd,) = facts(table(("passed", {"lifetime_cost_usd": 0.000249})))  # times a million: 248.99999999999997
    assert odd.dataset_cost_usd == 0.000249


def test_the_data_set_costs_what_any_run_ever_paid_and_duplicates_nothing() -> None:
    """Reused verdicts keep the dataset's cost up; a duplicate repeats its first's and is not added."""
    reused = ("passed", {"lifetime_cost_usd": 2 * PRICE_USD})
    (overall,) = facts(table(reused, ("duplicate", {"lifetime_cost_usd": 2 * PRICE_USD})))
    assert (overall.run_cost_usd, overall.dataset_cost_usd) == (0.0, 0.001148)


def test_money_spent_on_nothing_is_an_infinite_price() -> None:
    """With nothing approved the price is infinite if money was spent, and unknown if none was."""
    (expensive,) = facts(table(("failed", {"lifetime_cost_usd": PRICE_USD})))
    (free,) = facts(table(("screened_out", {})))
    assert expensive.cost_per_approved_usd == float("inf")
    assert free.cost_per_approved_usd is None


def test_nothing_to_divide_by_gives_no_share() -> None:
    """No candidates: zero counts and sums, and no shares."""
    (overall,) = facts(table())
    assert (overall.rows, overall.unique, overall.attempted, overall.dataset_cost_usd) == (0, 0, 0, 0.0)
    assert overall.pass_rate is None
    assert overall.skipped_share is None


def test_each_value_of_the_segment_column_is_a_scope() -> None:
    """Overall first, then the segments in order, null among them; their rows add up to all rows."""
    rows = [("passed", {"source": s}) for s in ("web", None, "archive", "web")]
    overall, *segments = facts(table(*rows, ("duplicate", {"source": None})), "source")
    assert (overall.scope, overall.segment, overall.rows) == ("overall", None, 5)
    assert [(s.scope, s.segment, s.rows, s.unique) for s in segments] == [
        ("segment", "(null)", 2, 1),
        ("segment", "archive", 1, 1),
        ("segment", "web", 2, 2),
    ]


def test_a_counted_column_can_be_the_segment_column() -> None:
    """Segments by a column that the facts read themselves, such as the reason or an amount."""
    rows = [("passed", {"run_cost_usd": 1.0}), ("failed", {"run_cost_usd": 0.0})]
    _, *segments = facts(table(*rows), "run_cost_usd")
    assert [(s.segment, s.passed, s.run_cost_usd) for s in segments] == [("0.0", 0, 0.0), ("1.0", 1, 1.0)]


def test_parameters_hold_every_threshold_and_what_was_counted() -> None:
    """Limits that are off stay None; a partial dataset switches the skipped limit off."""
    given = gate_rules.parameters(limits(Thresholds(max_cost_usd=5), Advanced()), rows=7, segments=2)
    assert (given["rows"], given["scopes"], given["max_cost_usd"]) == (7, 3, 5)
    assert given["max_cost_per_approved_usd"] is None
    assert given["max_row_usd"] == 3 * WAN22_S2V_DETECT.price_micro_usd / 1_000_000
    assert given["max_skipped_share"] == 0
    assert limits(Thresholds(publish="within_budget"))["max_skipped_share"] is None


def test_uniqueness_names_the_rows() -> None:
    """A row number or an image that is there twice is a defect; duplicates and lacking keys are none."""
    key = {"image_key": "0" * 32}
    images = [("passed", key), ("duplicate", key), *[("screened_out", {"image_key": None})] * 2]
    check_unique(table(*images).lazy(), 4)
    with pytest.raises(DataIntegrityError, match=r"2 rows share an image .* rows 0, 1\."):
        check_unique(table(("passed", key), ("failed", key), ("duplicate", key)).lazy(), 3)
    with pytest.raises(DataIntegrityError, match=r"4 row numbers occur more than once: 0, 1, 2, \.\.\."):
        check_unique(pl.concat([table(*[("passed", {})] * 4)] * 2).lazy(), 4)


def test_the_gate_opens_only_when_each_suite_held() -> None:
    """One failed expectation closes, and so does a suite that said nothing."""
    both = [expectation("verdicts"), expectation()]
    assert gate_rules.report(both, (), NOW).open
    assert not gate_rules.report([*both, expectation(success=False)], (), NOW).open
    assert not gate_rules.report(both[:1], (), NOW).open
    assert not gate_rules.report([], (), NOW).open


def test_words_name_the_first_failures_and_count_the_rest() -> None:
    """A closed gate is one sentence with observed and wanted; a silent suite is a reason too."""
    both = [expectation("verdicts"), expectation()]
    assert gate_rules.message(gate_rules.report(both, (), NOW)) == "Gate open: all 2 expectations held."
    one = "pass_rate: observed 0.41, wanted at least 0.5"
    failed = [expectation(success=False)] * 5
    assert gate_rules.message(gate_rules.report([*both, failed[0]], (), NOW)) == f"Gate closed: {one}."
    assert (
        gate_rules.message(gate_rules.report([*both, *failed], (), NOW))
        == f"Gate closed: {one}; {one}; {one}; and 2 more."
    )
    assert (
        gate_rules.message(gate_rules.report(both[:1], (), NOW))
        == "Gate closed: the suite gate was not checked."
    )
