"""The pass rate of a run with a random sample: by segments, each as large as it is."""

import random
from collections import Counter

import polars as pl
import pytest

from s2v_tasks.domain import pass_rate
from s2v_tasks.domain.by_source import by_source, cells
from s2v_tasks.domain.gate_rules import facts_of, read_facts
from s2v_tasks.domain.summary import summarize, tallies_of

Rows = list[tuple[str, str, bool | None]]


def table(rows: Rows) -> pl.LazyFrame:
    """Verdicts, of (segment, outcome, audited)."""
    schema = {"source": pl.String, "outcome": pl.String, "audited": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row")
    return frame.with_columns(
        pl.col("row").cast(pl.String).alias("image_key"),
        pl.format("https://a.example/{}.jpg", "row").alias("image_url"),
        pl.lit(None, pl.String).alias("reason"),
        pl.lit(None, pl.Int64).alias("faces_seen"),
        pl.lit(None, pl.Boolean).alias("audited_in_run"),
        pl.lit(value=False).alias("from_ledger"),
        pl.lit(1).alias("attempts"),
        *(pl.lit(0.0).alias(name) for name in ("run_cost_usd", "lifetime_cost_usd")),
    ).lazy()


def rates(rows: Rows) -> list[float | None]:
    """Overall and of each segment; the summary says the same of the run."""
    facts = read_facts(facts_of(table(rows), "source").collect())
    summary = summarize(tallies_of(table(rows), "source").collect())
    assert (summary.pass_rate, summary.sampled) == (facts[0].pass_rate, facts[0].sampled)
    return [fact.pass_rate for fact in facts]


def segment(name: str, passed: int, failed: int, others: int, screened_out: int = 0) -> Rows:
    """A segment with a sample, and images that were not in it: of these each that was checked passed."""
    sample = [(name, "passed", True)] * passed + [(name, "failed", True)] * failed
    sample += [(name, "screened_out", True)] * screened_out
    return [
        *sample,
        *[(name, "passed", False)] * (others // 2),
        *[(name, "skipped", False)] * (others - others // 2),
    ]


def test_each_segments_sample_counts_by_the_segments_size() -> None:
    """A small segment of which a larger part is in the sample does not count for more than its images."""
    assert rates(segment("a", 10, 10, 380) + segment("b", 20, 0, 80)) == [0.6, 0.5, 1.0]
    assert rates(segment("a", 10, 10, 380) + segment("b", 0, 0, 80)) == [0.5, 0.5, None]
    assert rates(segment("b", 0, 0, 80)) == [None, None]
    # Of the first segment every second image is screened out, so half as many are attempted.
    assert rates(segment("a", 10, 0, 80, 10) + segment("b", 0, 10, 40)) == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("audited", [None, True])
def test_where_all_images_count_it_is_passed_of_attempted(audited: bool | None) -> None:
    """To the last digit, also with a segment column: without a sample, and where the sample is everything."""
    rows = [("abc"[n % 3], "passed" if n % 7 < 3 else "failed", audited) for n in range(100)]
    rows += [("a", outcome, None if audited is None else False) for outcome in ("duplicate", "duplicate")]
    passed = Counter(outcome for _, outcome, _ in rows)["passed"]
    assert rates(rows)[0] == passed / 100


def test_segments_of_equal_rates_have_that_rate_together() -> None:
    """Whatever their sizes: a run in which each segment just holds the threshold holds it too."""
    rng = random.Random(1)  # noqa: S311
    for _ in range(20):
        rows = [row for name in "abcde" for row in segment(name, 3, 2, rng.randrange(1, 500))]
        assert set(rates(rows)) == {0.6}


def test_a_rate_of_few_sampled_images_is_not_shown() -> None:
    """Fewer than 10 say nothing; with more their number stands beside it. Without a sample all count."""
    shown = [pass_rate.shown(0.5, sampled) for sampled in (None, 9, 10, 1234)]
    assert shown == ["50.0%", "-", "50.0% of 10", "50.0% of 1,234"]
    assert pass_rate.shown(None, None) == "-"
    sources = by_source(
        table(segment("a", 4, 5, 10) + segment("b", 5, 5, 20)), "image_url", "source"
    ).collect()
    assert {name: (rate, span) for name, _, _, _, _, rate, span, *_ in cells(sources.head(2))} == {
        "a": ("-", "-"), "b": ("50.0% of 10", "24% to 76%"),
    }  # fmt: skip
