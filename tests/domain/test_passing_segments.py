"""Which segments pass on their own, and what is left of a dataset without the others."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from s2v_tasks.domain import gate_rules, passing_segments
from s2v_tasks.errors import UsageError
from s2v_tasks.models import Expectation, Facts, LeftOut
from s2v_tasks.settings import Advanced, Thresholds
from s2v_tasks.settings.fields import limits

GOOD = Facts(
    scope="segment", segment="a", rows=12, unique=11, passed=8, failed=2, error=0, unknown=0, skipped=1,
    screened_out=0, unreachable=0, attempted=10, pass_rate=0.8, error_share=0.0, unknown_share=0.0,
    skipped_share=1 / 11, unreachable_share=0.0, run_cost_usd=0.01, dataset_cost_usd=0.01,
    cost_per_approved_usd=0.00125,
)  # fmt: skip
ONLY_PASSING = Thresholds(publish="passing_segments")
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def why(fact: Facts, thresholds: Thresholds = ONLY_PASSING) -> list[str]:
    """Why a segment is left out; nothing if it passes."""
    return [one.why for one in passing_segments.left_out([fact], limits(thresholds, Advanced()))]


def test_images_that_the_budget_left_over_leave_no_segment_out() -> None:
    """Passing segments imply within budget."""
    assert why(GOOD) == []
    assert why(GOOD, Thresholds(publish="all")) == ["skipped_share 0.09091, wanted at most 0"]


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"pass_rate": 0.4}, "pass_rate 0.4, wanted at least 0.5"),
        ({"pass_rate": None}, "no image of its sample was checked"),
        ({"attempted": 0, "pass_rate": None}, "no image was checked"),
        ({"error_share": 0.2}, "error_share 0.2, wanted at most 0.1"),
        ({"unreachable_share": 0.5}, "unreachable_share 0.5, wanted at most 0.2"),
        ({"cost_per_approved_usd": float("inf")}, "cost_per_approved_usd inf, wanted at most 0.002"),
    ],
)
def test_a_segment_that_breaks_a_threshold_is_left_out(changed: dict[str, Any], wanted: str) -> None:
    """Each says the first that it breaks; a pass rate that is not known is none."""
    thresholds = Thresholds(publish="passing_segments", max_cost_per_approved_usd=0.002)
    assert why(replace(GOOD, **changed), thresholds) == [wanted]


def test_the_whole_dataset_is_no_segment() -> None:
    """Its facts are evaluated by the gate, of what is left."""
    assert why(replace(GOOD, scope="overall", segment=None, pass_rate=0.1)) == []


def test_rows_of_a_segment_that_is_left_out_are_gone() -> None:
    """Null is a segment too, and so is a number."""
    rows = pl.LazyFrame({"row": [0, 1, 2, 3], "source": [1, 2, None, 2]})

    def kept(*names: str) -> list[int]:
        return passing_segments.published_rows(rows, "source", names).collect()["row"].to_list()

    assert kept() == [0, 1, 2, 3]
    assert kept("2") == [0, 2]
    assert kept("(null)", "1") == [1, 3]


def test_without_a_segment_column_there_are_no_segments_to_publish() -> None:
    """One line names both options."""
    assert passing_segments.is_wanted(ONLY_PASSING, "source")
    assert not passing_segments.is_wanted(Thresholds(publish="within_budget"), None)
    with pytest.raises(UsageError, match=r"--publish-passing-segments needs segments.*--segment-column"):
        passing_segments.is_wanted(ONLY_PASSING, None)


def test_the_facts_must_count_exactly_the_other_rows() -> None:
    """So an overall number is never that of a part of them."""
    given = gate_rules.parameters({}, rows=100, segments=3, left_out=[LeftOut(GOOD, "")])
    assert (given["rows"], given["rows_in_scopes"], given["scopes"]) == (100, 88, 3)


def test_the_message_names_the_segments_that_are_left_out() -> None:
    """Up to three; if none passed, that is why the gate is closed. Nothing of a name can break the line."""
    held = [Expectation(suite, "n", True, "1", "1") for suite in gate_rules.SUITES]
    out = [LeftOut(replace(GOOD, segment=name), "pass_rate 0.4") for name in ("b", "c\n", "d", "e")]
    overall = replace(GOOD, scope="overall", segment=None)
    some = gate_rules.message(gate_rules.report(held, [overall, GOOD], NOW, "source", out[:1]))
    assert some == "Gate open: all 2 expectations held. 1 segment is left out: b (pass_rate 0.4)."
    broken = replace(held[1], success=False)
    none = gate_rules.report([held[0], broken], [replace(overall, rows=0)], NOW, "source", out)
    assert gate_rules.message(none).startswith(
        "Gate closed: no segment passed. 4 segments are left out: b (pass_rate 0.4); c"
    )
    assert gate_rules.message(none).endswith("; and 1 more.")
    assert "\n" not in gate_rules.message(none)
