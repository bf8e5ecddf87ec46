"""Stage 6: is this data set good enough, and cheap enough? Facts and limits in, a report out; fails closed.

The suites in ``expectations/`` say what must hold, Great Expectations judges them (``adapters/gx.py``). Here
are the numbers they judge and what follows from the judgement. Uniqueness is checked here as well: inside
Great Expectations it costs more than all the rest.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from s2v_tasks.errors import ConservationError
from s2v_tasks.ledger import LOST_ANSWERS_ALLOWED, MICRO_USD, usd
from s2v_tasks.models import ATTEMPTED, WAN22_S2V_DETECT, Expectation, Facts, GateReport, Outcome
from s2v_tasks.screen import UNREACHABLE
from s2v_tasks.settings import Thresholds

SUITES = ("verdicts", "gate")
"""The suites behind the gate, by name: the first judges the table of verdicts, the second the facts."""

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
    "unspent": pl.Int64(),
    "screened_out": pl.Int64(),
    "unreachable": pl.Int64(),
    "attempted": pl.Int64(),
    "pass_rate": pl.Float64(),
    "error_share": pl.Float64(),
    "unknown_share": pl.Float64(),
    "unspent_share": pl.Float64(),
    "unreachable_share": pl.Float64(),
    "cost_usd": pl.Float64(),
    "data_set_cost_usd": pl.Float64(),
    "cost_per_approved_usd": pl.Float64(),
}
"""The columns of the facts frame: the fields of ``Facts``, in order."""

_COUNTED = tuple(o for o in Outcome if o is not Outcome.DUPLICATE)
_MAX_CHARGES = 1 + max(LOST_ANSWERS_ALLOWED.values())  # one known, and the lost, over all runs
_NAMED = 3  # failed expectations and broken rows spelt out in a sentence


def facts_of(verdicts: pl.LazyFrame, segment_column: str | None = None) -> pl.LazyFrame:
    """Count a verdict frame: one row ``overall``, then one per value of the segment column, in its order."""
    overall = verdicts.select(_tallies()).with_columns(
        pl.lit("overall").alias("scope"), pl.lit(None, pl.String).alias("segment")
    )
    scopes = [overall]
    if segment_column is not None:
        # Under a name of its own: the segment column may be one of those that are counted.
        segment = pl.col(segment_column).cast(pl.String).fill_null(NO_SEGMENT).alias("segment")
        by_segment = verdicts.group_by(segment).agg(_tallies()).sort("segment")
        scopes.append(by_segment.with_columns(pl.lit("segment").alias("scope")))
    typed = [pl.col(name).cast(dtype) for name, dtype in FACTS_SCHEMA.items()]
    return pl.concat([_with_shares(scope).select(typed) for scope in scopes])


def read_facts(frame: pl.DataFrame) -> tuple[Facts, ...]:
    """The rows of a facts frame as records."""
    return tuple(Facts(**row) for row in frame.iter_rows(named=True))


def parameters(thresholds: Thresholds, *, rows: int, segments: int = 0) -> dict[str, float | int | None]:
    """What the suites' ``$PARAMETER``s are given; None switches a limit off.

    ``rows``: input rows, counted where they were read; of these ``rows_here`` are in what is judged at once.
    ``segments``: values of the segment column.
    """
    profile = WAN22_S2V_DETECT
    return {
        "rows": rows,
        "rows_here": rows,
        "scopes": 1 + segments,
        "max_row_usd": usd(_MAX_CHARGES * profile.price_micro_usd),
        "min_side_px": profile.min_side_px,
        "max_side_px": profile.max_side_px,
        "min_pass_rate": thresholds.min_pass_rate,
        "max_error_share": thresholds.max_error_share,
        "max_unknown_share": thresholds.max_unknown_share,
        "max_unreachable_share": thresholds.max_unreachable_share,
        "max_unspent_share": None if thresholds.allow_partial else 0,
        "max_cost_usd": thresholds.max_cost_usd,
        "max_cost_per_approved_usd": thresholds.max_cost_per_approved_usd,
    }


def check_rows(verdicts: pl.DataFrame) -> None:
    """Every row number once, among these.

    Raises:
        ConservationError: some row is there twice; the message names the first ones.

    """
    twice = verdicts.filter(pl.col("row").is_duplicated())["row"].unique().sort()
    if len(twice):
        raise ConservationError(
            f"{len(twice)} row numbers are there more than once: {_first(twice)}. {ConservationError.ADVICE}"
        )


def check_pictures(verdicts: pl.DataFrame) -> None:
    """Every picture once outside the duplicates, among these.

    Raises:
        ConservationError: some picture is there twice; the message names the first rows.

    """
    again = verdicts.filter(pl.col("image_key").is_duplicated())["row"].sort()
    if len(again):
        raise ConservationError(
            f"{len(again)} rows share a picture and none is named a duplicate: rows {_first(again)}."
            f" {ConservationError.ADVICE}"
        )


def own_pictures(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that stand for a picture of their own: columns ``row`` and ``image_key``."""
    wanted = pl.col("outcome").ne_missing(Outcome.DUPLICATE.value) & pl.col("image_key").is_not_null()
    return verdicts.filter(wanted).select("row", "image_key")


def report(expectations: Sequence[Expectation], facts: Sequence[Facts], judged_at: datetime) -> GateReport:
    """Open only if each suite has said something and every expectation held."""
    judged = {e.suite for e in expectations}
    held = judged.issuperset(SUITES) and all(e.success for e in expectations)
    return GateReport(open=held, expectations=tuple(expectations), facts=tuple(facts), judged_at=judged_at)


def words(report: GateReport) -> str:
    """The report as one plain sentence, for a state's message."""
    if report.open:
        return f"Gate open: all {len(report.expectations)} expectations held."
    silent = [name for name in SUITES if name not in {e.suite for e in report.expectations}]
    reasons = [f"the suite {name} was not judged" for name in silent] + [str(e) for e in report.failed]
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return f"Gate closed: {'; '.join(reasons[:_NAMED])}{more}."


def _tallies() -> list[pl.Expr]:
    """Counts of unique pictures and sums of micro-USD, as aggregates."""
    outcome = pl.col("outcome")
    unreachable = (outcome == Outcome.SCREENED_OUT.value) & pl.col("reason").is_in(sorted(UNREACHABLE))
    # A duplicate repeats what its first was charged.
    paid = pl.col("paid_usd").filter(outcome.ne_missing(Outcome.DUPLICATE.value))
    return [
        pl.len().alias("rows"),
        outcome.ne_missing(Outcome.DUPLICATE.value).sum().alias("unique"),
        *((outcome == o.value).sum().cast(pl.Int64).alias(o.value) for o in _COUNTED),
        unreachable.sum().alias("unreachable"),
        _micro_sum(pl.col("cost_usd")).alias("cost_micro"),
        _micro_sum(paid).alias("paid_micro"),
    ]


def _with_shares(tallies: pl.LazyFrame) -> pl.LazyFrame:
    """Shares, and amounts in USD; each by one division, so that it equals the number as one writes it."""
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
        _share(passed, attempted).alias("pass_rate"),
        _share(pl.col("error"), attempted).alias("error_share"),
        _share(pl.col("unknown"), attempted).alias("unknown_share"),
        _share(pl.col("unspent"), unique).alias("unspent_share"),
        _share(pl.col("unreachable"), unique).alias("unreachable_share"),
        (pl.col("cost_micro") / MICRO_USD).alias("cost_usd"),
        (paid / MICRO_USD).alias("data_set_cost_usd"),
        per_approved,
    )


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)


def _micro_sum(amounts: pl.Expr) -> pl.Expr:
    """Add as whole micro-USD: a sum of floats drifts."""
    return (amounts * MICRO_USD).round().cast(pl.Int64).sum()


def _first(rows: pl.Series) -> str:
    named = ", ".join(str(row) for row in rows.head(_NAMED))
    return named + (", ..." if len(rows) > _NAMED else "")
