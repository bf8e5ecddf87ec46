"""Drift: this run beside the last publications of its output."""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from s2v_tasks.domain import drift, gate_rules
from s2v_tasks.domain.drift import Baseline, Median, baseline, cells, compare, markdown
from s2v_tasks.domain.publish_rules import GateSummary, PastPublication, ScopeFacts
from s2v_tasks.models import Facts

COUNTS = dict.fromkeys(
    ("rows", "unique", "passed", "failed", "error", "unknown", "skipped", "screened_out", "unreachable"), 0
)
SHARES = dict.fromkeys(
    ("error_share", "unknown_share", "skipped_share", "run_cost_usd", "dataset_cost_usd"), 0.0
)
Rates = Mapping[str | None, float | None]


def past(number: int, rates: Rates, **more: Any) -> PastPublication:
    """A publication with these pass rates; the key None is overall."""
    facts = [
        ScopeFacts(
            scope="overall" if segment is None else "segment", segment=segment, attempted=100, pass_rate=rate,
            **more,
        )
        for segment, rate in rates.items()
    ]  # fmt: skip
    return PastPublication(
        run_id=f"r{number}", number=number, started_at="2026-05-01T12:00:00+00:00", path="p", rows=1,
        sha256="0", run_cost_usd=0.0, dataset_cost_usd=0.0, facts=tuple(facts),
        gate=GateSummary(checked_at="2026-05-01T12:00:00+00:00", expectations=1, pass_rate=1.0),
    )  # fmt: skip


def now(rates: Rates, **more: Any) -> list[Facts]:
    """This run's facts."""
    given = {"attempted": 100, "unreachable_share": 0.0, "cost_per_approved_usd": None} | more
    return [
        Facts(
            scope="overall" if segment is None else "segment", segment=segment, pass_rate=rate,
            **COUNTS | SHARES | {"passed": round(100 * (rate or 0))} | given,
        )
        for segment, rate in rates.items()
    ]  # fmt: skip


def test_each_metric_is_beside_its_median() -> None:
    """Of an even number the mean of the middle two; what a publication does not know does not count."""
    found = baseline(
        [
            past(1, {None: 0.5}, unreachable_share=0.1, cost_per_approved_usd=0.001),
            past(2, {None: 0.7}, unreachable_share=0.2),
            past(3, {None: None}, unreachable_share=0.6),
        ]
    )
    (overall,) = compare(found, now({None: 0.3}, unreachable_share=0.4, cost_per_approved_usd=float("inf")))
    assert [(row.metric, row.segment, row.now, row.median, row.publications) for row in overall.rows] == [
        ("pass_rate", None, 0.3, pytest.approx(0.6), 2),
        ("unreachable_share", None, 0.4, 0.2, 3),
        ("cost_per_approved_usd", None, float("inf"), 0.001, 1),
    ]
    assert overall.drop == pytest.approx(0.5)
    assert overall.note == ""


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (0.6, 0.5, ""),
        (0.6, 0.0, "none passed"),
        (0.6, None, "none passed"),  # in the run, and none of it was attempted
        (0.6, "absent", "not in this run"),
        (0.0, 0.0, ""),
        ("absent", 0.5, "new"),
    ],
)
def test_a_source_that_brings_nothing_any_more_is_named(before: Any, after: Any, note: str) -> None:
    """It was in a publication before, and is absent now or has no passed image; one only here is new."""
    was = {None: 0.5, "other": 0.5} | ({} if before == "absent" else {"archive": before})
    is_now = {None: 0.5, "other": 0.5} | ({} if after == "absent" else {"archive": after})
    scopes = compare(baseline([past(1, was)]), now(is_now))
    assert {scope.segment: scope.note for scope in scopes} == {None: "", "other": "", "archive": note}
    assert ("archive" in drift.gone(scopes)) is (note in ("none passed", "not in this run"))
    assert ("| `archive` |" in markdown(scopes), note in markdown(scopes)) == (True, True)


def test_overall_is_first_and_then_what_lost_most() -> None:
    """A segment that is gone lost all; a new one has nothing to lose."""
    was: Rates = {None: 0.5, "a": 0.5, "b": 0.5, "gone": 0.4, "up": 0.5}
    scopes = compare(baseline([past(1, was)]), now({None: 0.4, "a": 0.4, "b": 0.1, "new": 0.9, "up": 0.6}))
    assert [scope.segment for scope in scopes] == [None, "gone", "b", "a", "up", "new"]


def test_the_pass_rate_of_a_few_sampled_images_is_not_compared() -> None:
    """Nor is it part of a median; the segment passed, so it is not gone. With 10 it is, with their number."""
    was = [past(1, {None: 0.5, "web": 0.5}), past(2, {None: 0.9, "web": 0.9}, sampled=9)]
    few, enough = (
        compare(baseline(was), now({None: 0.5, "web": 0.0}, sampled=sampled, passed=30))[1]
        for sampled in (9, 10)
    )
    assert (few.rows[0].now, few.rows[0].median, few.drop, few.note) == (None, 0.5, -math.inf, "")
    assert (enough.rows[0].now, enough.drop, enough.note) == (0.0, 1.0, "")
    assert [drift.cells([one])[0][1:3] for one in (few, enough)] == [["-", "50.0%"], ["0.0% of 10", "50.0%"]]


def test_a_run_without_segments_is_compared_overall_only() -> None:
    """Its segment column was left out: the sources are not gone. Without a publication there is no table."""
    found = baseline([past(1, {None: 0.5, "web": 0.5})])
    assert [scope.segment for scope in compare(found, now({None: 0.5}))] == [None]
    for empty in (baseline([]), baseline([past(1, {})])):
        assert compare(empty, now({None: 0.5, "web": 0.5})) == ()
        assert markdown(()) == ""


@pytest.mark.parametrize(
    ("rates", "attempted", "pass_rate", "drop"),
    [
        ([0.6, 0.5, 0.7], 100, 0.3, 0.5),
        ([0.6, 0.5, 0.7], 100, 0.6, 0.0),
        ([0.6, 0.5, 0.7], 100, 0.9, 0.0),
        ([0.6, 0.5, 0.7], 100, 0.0, 1.0),
        ([0.6, 0.5, 0.7], 99, 0.3, None),
        ([0.6, 0.5], 100, 0.3, None),
        ([0.6, 0.5, None], 100, 0.3, None),
        ([0.0, 0.0, 0.5], 100, 0.3, None),  # a median of 0 can't be fallen below
        ([], 100, 0.3, None),
    ],
)
def test_the_drop_is_a_share_of_the_median(
    rates: list[float | None], attempted: int, pass_rate: float, drop: float | None
) -> None:
    """Overall only, and null with fewer than 3 publications that have a pass rate, or 100 images."""
    median = baseline([past(n, {None: rate, "web": rate}) for n, rate in enumerate(rates)]).pass_rate
    passed = round(attempted * pass_rate)
    frame = pl.DataFrame(
        {
            "outcome": ["passed"] * passed + ["failed"] * (attempted - passed) + ["skipped"],
            "image_key": [str(n) for n in range(attempted + 1)],
            "reason": None, "audited": None, "audited_in_run": None, "faces_seen": None,
            "run_cost_usd": 0.0, "lifetime_cost_usd": 0.0, "source": "web",
        },
        schema_overrides={"reason": pl.String},
    )  # fmt: skip
    overall, web = gate_rules.facts_of(frame.lazy(), "source", median).collect().to_dicts()
    assert overall["pass_rate_drop"] == (None if drop is None else pytest.approx(drop, abs=1e-12))
    assert overall["median_pass_rate"] == (None if drop is None else 0.6)
    assert (web["pass_rate_drop"], web["median_pass_rate"]) == (None, None)


def test_a_baseline_is_read_as_it_was_written() -> None:
    """In the report of the gate, so that a later evaluation compares with the same."""
    found = baseline([past(n, {None: 0.5, "web": None}) for n in range(3)])
    assert Baseline.model_validate_json(found.model_dump_json()) == found
    assert found.runs == ("r0", "r1", "r2")
    assert found.medians == (Median(metric="pass_rate", segment=None, median=0.5, publications=3),)


def test_the_sentence_names_three_segments_and_counts_the_rest() -> None:
    """Those that lost most; without a query string."""
    rates: Rates = {None: 0.5} | {f"https://s{n}.example/?sig=sesame": 0.5 for n in range(5)}
    sentence = drift.gone(compare(baseline([past(1, rates)]), now({None: 0.5, "web": 0.5})))
    assert sentence.endswith("s0.example/?..., https://s1.example/?..., https://s2.example/?... and 2 more.")
    assert drift.gone(compare(baseline([past(1, rates)]), now(rates))) == ""


def test_a_long_table_says_how_many_it_left_out() -> None:
    """Others' text is code; a query string is not shown."""
    rates: Rates = {None: 0.5} | {f"s{n:02}": 0.5 for n in range(20)} | {"https://a|b?sig=sesame": 0.1}
    scopes = compare(baseline([past(1, rates)]), now(rates))
    text = markdown(scopes)
    assert text.count("\n| `") == drift.MAX_SHOWN
    assert "and 10 more segments" in text
    assert "sesame" not in text + "".join(map("".join, cells(scopes)))
