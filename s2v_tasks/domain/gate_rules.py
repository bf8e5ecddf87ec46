"""Gate rules: facts of a dataset, parameters of the suites, and the gate's report. Fails closed.

The suites in ``expectations/`` state what must hold, and Great Expectations checks them (``adapters/gx.py``).
This module computes the facts that they check, and turns their results into a report. It also checks
uniqueness, which inside Great Expectations costs more than everything else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import polars as pl

from s2v_tasks.domain import missed_share, pass_rate
from s2v_tasks.domain.dead_links import UNREACHABLE
from s2v_tasks.domain.funnel import step
from s2v_tasks.domain.ledger import MICRO_USD, usd
from s2v_tasks.domain.retry_policy import MAX_LOST_RESPONSES
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.errors import DataIntegrityError
from s2v_tasks.models import ATTEMPTED, WAN22_S2V_DETECT, Expectation, Facts, GateReport, LeftOut, Outcome

SUITES = ("verdicts", "gate")
"""The gate's suites, by name: the first checks the verdict table, the second the facts."""

NO_SEGMENT = "(null)"
"""The segment of rows whose segment column is null."""

FACTS_SCHEMA: dict[str, pl.DataType] = {
    "scope": pl.String(),
    "segment": pl.String(),
    "rows": pl.Int64(),
    "unique": pl.Int64(),
    "passed": pl.Int64(),
    "failed": pl.Int64(),
    "error": pl.Int64(),
    "unknown": pl.Int64(),
    "skipped": pl.Int64(),
    "screened_out": pl.Int64(),
    "unreachable": pl.Int64(),
    "attempted": pl.Int64(),
    "pass_rate": pl.Float64(),
    "error_share": pl.Float64(),
    "unknown_share": pl.Float64(),
    "skipped_share": pl.Float64(),
    "unreachable_share": pl.Float64(),
    "run_cost_usd": pl.Float64(),
    "dataset_cost_usd": pl.Float64(),
    "cost_per_approved_usd": pl.Float64(),
    "median_pass_rate": pl.Float64(),
    "pass_rate_drop": pl.Float64(),
    "sampled": pl.Int64(),
    "dropped": pl.Int64(),
    "missed_share_upper": pl.Float64(),
    "no_face_missed_upper": pl.Float64(),
    "several_faces_missed_upper": pl.Float64(),
}
"""The columns of the facts frame: the fields of ``Facts``, in order."""

_COUNTED = tuple(o for o in Outcome if o is not Outcome.DUPLICATE)
_MAX_CHARGES = 1 + max(MAX_LOST_RESPONSES.values())  # one settled charge and the lost ones, over all runs
MIN_COMPARED = 100
"""With fewer attempted images a drop of the pass rate is not evaluated."""
_NAMED = 3  # failed expectations and broken rows named in a message


def facts_of(
    verdicts: pl.LazyFrame, segment_column: str | None = None, median_pass_rate: float | None = None
) -> pl.LazyFrame:
    """Count a verdict frame: one row ``overall``, then one per value of the segment column, in its order.

    ``median_pass_rate``: above 0, of `s2v_tasks.domain.drift.Baseline`; None: no drop is evaluated.
    The pass rate is that of the sample, if the run has one: see `s2v_tasks.domain.pass_rate`.
    """
    if segment_column is None:
        groups = verdicts.select(pl.lit(None, pl.String).alias("segment"), *_tallies())
    else:  # under a separate name: the segment column may be one of the counted columns
        groups = verdicts.group_by(segment_of(segment_column).alias("segment")).agg(_tallies())
    # As one small frame: a lazy plan that uses it twice would read the rows twice.
    is_segment = segment_column is not None
    return groups.map_batches(
        lambda frame: _facts_of(frame, median_pass_rate, is_segment=is_segment), schema=FACTS_SCHEMA
    )


def _facts_of(groups: pl.DataFrame, median_pass_rate: float | None, *, is_segment: bool) -> pl.DataFrame:
    """The facts of all groups together, and of each if they are segments."""
    overall = groups.select(
        pl.lit("overall").alias("scope"),
        pl.lit(None, pl.String).alias("segment"),
        pass_rate.of_all().alias("pass_rate"),
        pl.exclude("segment").sum(),
    )
    scopes = [overall]
    if is_segment:
        rate = pass_rate.of_each().alias("pass_rate")
        each = groups.sort("segment").with_columns(pl.lit("segment").alias("scope"), rate)
        scopes.append(each.select(overall.columns))
    sampled = pl.when(pl.col("of_sample") > 0).then("sampled").alias("sampled")
    facts = _with_shares(missed_share.with_bounds(pl.concat(scopes)))
    facts = facts.with_columns(sampled, *_drop(median_pass_rate))
    return facts.select(pl.col(name).cast(dtype) for name, dtype in FACTS_SCHEMA.items())


def read_facts(frame: pl.DataFrame) -> tuple[Facts, ...]:
    """The rows of a facts frame as records."""
    return tuple(Facts(**row) for row in frame.iter_rows(named=True))


def parameters(
    limits: Mapping[str, float | None], *, rows: int, segments: int = 0, left_out: Sequence[LeftOut] = ()
) -> dict[str, float | int | None]:
    """What the suites' ``$PARAMETER``s are given; None switches a limit off.

    ``limits``: what `s2v_tasks.settings.fields.limits` reads from the groups that declare thresholds.
    ``rows``: input rows, counted where they were read; of these ``rows_here`` are in the frame that is
    validated. ``segments``: values of the segment column; ``left_out``: those of which the facts say nothing.
    """
    detector = WAN22_S2V_DETECT
    return {
        "rows": rows,
        "rows_here": rows,
        "scopes": 1 + segments - len(left_out),
        "rows_in_scopes": rows - sum(one.facts.rows for one in left_out),
        "max_row_usd": usd(_MAX_CHARGES * detector.price_micro_usd),
        "min_side_px": detector.min_side_px,
        "max_side_px": detector.max_side_px,
        **limits,
    }


def segment_of(segment_column: str) -> pl.Expr:
    """The segment of each row, as text."""
    return pl.col(segment_column).cast(pl.String).fill_null(NO_SEGMENT)


def micro_sum(amounts: pl.Expr) -> pl.Expr:
    """Add as whole micro-USD: a sum of floats drifts."""
    return (amounts * MICRO_USD).round().cast(pl.Int64).sum()


def check_rows(verdicts: pl.DataFrame) -> None:
    """Check that every row number occurs once.

    Raises:
        DataIntegrityError: A row number is repeated; names the first ones.
    """
    twice = verdicts.filter(pl.col("row").is_duplicated())["row"].unique().sort()
    if len(twice):
        raise DataIntegrityError(
            f"{len(twice)} row numbers occur more than once: {_first(twice)}. {DataIntegrityError.ADVICE}"
        )


def check_images(verdicts: pl.DataFrame) -> None:
    """Check that every image has one row that is no duplicate.

    Raises:
        DataIntegrityError: An image has more; names the first rows.
    """
    again = verdicts.filter(pl.col("image_key").is_duplicated())["row"].sort()
    if len(again):
        raise DataIntegrityError(
            f"{len(again)} rows share an image and none is marked as a duplicate: rows {_first(again)}."
            f" {DataIntegrityError.ADVICE}"
        )


def own_images(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that are no duplicates: columns ``row`` and ``image_key``."""
    return verdicts.filter(is_own_image()).select("row", "image_key")


def is_own_image() -> pl.Expr:
    """Whether a row is the one that represents its image; no row of a rejected URL does."""
    return pl.col("outcome").ne_missing(Outcome.DUPLICATE.value) & pl.col("image_key").is_not_null()


def report(
    expectations: Sequence[Expectation],
    facts: Sequence[Facts],
    checked_at: datetime,
    segment_column: str | None = None,
    left_out: Sequence[LeftOut] = (),
) -> GateReport:
    """The gate's report: open only if each suite was checked and every expectation held."""
    checked = {e.suite for e in expectations}
    held = checked.issuperset(SUITES) and all(e.success for e in expectations)
    return GateReport(held, tuple(expectations), tuple(facts), checked_at, segment_column, tuple(left_out))


def document(report: GateReport, limits: Mapping[str, float | None]) -> dict[str, object]:
    """A report as JSON: an infinite number (a cost per approved image without any) is null."""

    def plain(fact: Facts) -> dict[str, object]:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(fact).items()
        }

    return {
        "open": report.open,
        "checked_at": report.checked_at.isoformat(),
        "thresholds": dict(limits),
        "expectations": [asdict(expectation) for expectation in report.expectations],
        "segment_column": report.segment_column,
        "facts": [plain(fact) for fact in report.facts],
        "left_out": [{"why": one.why, "facts": plain(one.facts)} for one in report.left_out],
    }


def message(report: GateReport) -> str:
    """The report as one sentence, for a state's message."""
    left_out = left_out_message(report)
    if report.open:
        return f"Gate open: all {len(report.expectations)} expectations held.{left_out and f' {left_out}.'}"
    if left_out and not report.facts[0].rows:
        return f"Gate closed: no segment passed. {left_out}."
    missing = [name for name in SUITES if name not in {e.suite for e in report.expectations}]
    reasons = [f"the suite {name} was not checked" for name in missing] + [str(e) for e in report.failed]
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return f"Gate closed: {'; '.join(reasons[:_NAMED])}{more}.{left_out and f' {left_out}.'}"


def left_out_message(report: GateReport) -> str:
    """The segments that are left out, with why, in a sentence; empty if none is."""
    if not (segments := report.left_out):
        return ""
    named = "; ".join(f"{shown(one.segment)} ({one.why})" for one in segments[:_NAMED])
    more = f"; and {len(segments) - _NAMED} more" if len(segments) > _NAMED else ""
    return f"{len(segments)} segment{'s are' if len(segments) > 1 else ' is'} left out: {named}{more}"


def _tallies() -> list[pl.Expr]:
    """Counts of unique images and sums of micro-USD, as aggregates."""
    outcome, paid = pl.col("outcome"), pl.col("lifetime_cost_usd")
    is_own = outcome.ne_missing(Outcome.DUPLICATE.value)
    counted = {
        "unique": is_own,
        **{one.value: outcome == one.value for one in _COUNTED},
        "unreachable": (outcome == Outcome.SCREENED_OUT.value) & pl.col("reason").is_in(sorted(UNREACHABLE)),
        "left_over": step() == Outcome.SKIPPED.value,
    }
    return [
        pl.len().cast(pl.Int64).alias("rows"),
        *(one.cast(pl.Int64).sum().alias(name) for name, one in counted.items()),
        *pass_rate.tallies(),
        *missed_share.tallies(),
        micro_sum(pl.col("run_cost_usd")).alias("cost_micro"),
        # A duplicate repeats what its first was charged.
        micro_sum(pl.when(is_own).then(paid).otherwise(0.0)).alias("paid_micro"),
    ]


def _with_shares(tallies: pl.DataFrame) -> pl.DataFrame:
    """Add shares, and amounts in USD; each by one division, so that it equals its decimal notation."""
    attempted, unique, passed, paid = (pl.col(c) for c in ("attempted", "unique", "passed", "paid_micro"))
    per_approved = (
        pl.when(passed > 0)
        .then(paid / (passed * MICRO_USD))
        .when(paid > 0)
        .then(pl.lit(float("inf")))
        .alias("cost_per_approved_usd")
    )
    return tallies.with_columns(
        pl.sum_horizontal(o.value for o in ATTEMPTED).alias("attempted")
    ).with_columns(
        _share(pl.col("error"), attempted).alias("error_share"),
        _share(pl.col("unknown"), attempted).alias("unknown_share"),
        _share(pl.col("left_over"), unique).alias("skipped_share"),
        _share(pl.col("unreachable"), unique).alias("unreachable_share"),
        (pl.col("cost_micro") / MICRO_USD).alias("run_cost_usd"),
        (paid / MICRO_USD).alias("dataset_cost_usd"),
        per_approved,
    )


def _drop(median: float | None) -> tuple[pl.Expr, pl.Expr]:
    """The median where it is compared with, and how much lower the pass rate is, as a share of it."""
    is_compared = (pl.col("scope") == "overall") & (pl.col("attempted") >= MIN_COMPARED)
    compared = pl.when(is_compared).then(pl.lit(median, pl.Float64))
    lower = ((compared - pl.col("pass_rate")) / compared).clip(lower_bound=0)
    return compared.alias("median_pass_rate"), lower.alias("pass_rate_drop")


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)


def _first(rows: pl.Series) -> str:
    named = ", ".join(str(row) for row in rows.head(_NAMED))
    return named + (", ..." if len(rows) > _NAMED else "")
