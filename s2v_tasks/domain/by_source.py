"""By source: what each segment and each host brought, and what it cost; sorted by waste.

A source is a value of the segment column, or the host of the candidates' URLs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from s2v_tasks.domain import pass_rate
from s2v_tasks.domain.candidate_table import field_of
from s2v_tasks.domain.funnel import is_dropped
from s2v_tasks.domain.gate_rules import micro_sum, segment_of
from s2v_tasks.domain.image_url import host_of
from s2v_tasks.domain.interval import wilson
from s2v_tasks.domain.ledger import MICRO_USD
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import ATTEMPTED, WAN22_S2V_DETECT, Outcome

NO_HOST: Final = "(no host)"
"""The host of candidates whose URL has none that is well formed."""
MAX_SHOWN: Final = 12
"""Rows of a table for people, the row of all others included."""

_SUMS: Final[dict[str, pl.DataType]] = {
    "candidates": pl.Int64(),
    "duplicates": pl.Int64(),
    "screened_out": pl.Int64(),
    "dropped": pl.Int64(),
    "checked": pl.Int64(),
    "passed": pl.Int64(),
    "sampled": pl.Int64(),
    "sampled_passed": pl.Int64(),
    "of_sample": pl.Int64(),
    "skipped": pl.Int64(),
    "calls": pl.Int64(),
    "wasted_calls": pl.Int64(),
    "cost_usd": pl.Float64(),
    "wasted_usd": pl.Float64(),
}
SCHEMA: Final[dict[str, pl.DataType]] = {
    "kind": pl.String(),
    "source": pl.String(),
    **_SUMS,
    "pass_rate": pl.Float64(),
    "pass_rate_low": pl.Float64(),
    "pass_rate_high": pl.Float64(),
    "cost_per_approved_usd": pl.Float64(),
    "hours_per_1000_approved": pl.Float64(),
}
"""The columns of `by_source`.

``candidates`` = ``duplicates`` + ``screened_out`` + ``checked`` + ``skipped``, rows; ``dropped``: those of
``screened_out`` that a rule of the face check dropped. ``checked``: an attempt was made, by this run or an
earlier one. ``calls``: of this run, and one for each verdict of an earlier run.
``wasted_*``: of images that did not pass. Amounts in USD, over all runs. ``sampled``: those of the
checked that count for the pass rate (`s2v_tasks.domain.pass_rate.in_sample`); ``of_sample``: the candidates,
if the run has a random sample, else 0. ``pass_rate``: sampled_passed / sampled, with Wilson's 95 % interval,
null if nothing was sampled. The last two are infinite if nothing passed, and null if nothing was spent
either; hours of the account at its 5 calls a second.
"""

_RATES: Final = ("pass rate", "95 % interval", "USD wasted", "USD per approved", "hours per 1,000")

_INTERVAL: Final = pl.Struct({"pass_rate_low": pl.Float64, "pass_rate_high": pl.Float64})
_MAX_CHARACTERS: Final = 60
_CALLS_PER_HOUR: Final = 3600 * WAN22_S2V_DETECT.rate_per_s


def source_columns(rows: pl.LazyFrame, url_column: str, segment_column: str | None) -> dict[str, pl.Expr]:
    """The source of each row, by its kind: the segment, where there is a segment column, and the host."""
    host = host_of(field_of(url_column, rows.collect_schema())[0]).fill_null(NO_HOST)
    segment = {} if segment_column is None else {"segment": segment_of(segment_column)}
    return segment | {"host": host}


def by_source(verdicts: pl.LazyFrame, url_column: str, segment_column: str | None = None) -> pl.LazyFrame:
    """A row for each value of the segment column, then one for each host; within both, most waste first.

    Waste is the money spent on images that did not pass, then the calls: a check that fails may be free.

    Args:
        verdicts: The input's columns and those of `s2v_tasks.domain.verdict_table.SCHEMA`.
        url_column: The column with the URLs; may be a field of a struct, ``column.field``.
        segment_column: None: only hosts.

    Returns:
        A frame of ``SCHEMA``. Memory grows with the number of sources, not of rows.
    """
    used = ["outcome", "reason", "audited", "attempts", "from_ledger", "lifetime_cost_usd"]
    sources = source_columns(verdicts, url_column, segment_column)
    pairs = verdicts.select(*used, **sources).group_by(*sources).agg(_tallies())
    # As one small frame: a lazy plan that uses it twice would read the rows twice.
    return pairs.map_batches(lambda frame: _by_kind(frame, [*sources]), schema=SCHEMA)


def _by_kind(pairs: pl.DataFrame, kinds: list[str]) -> pl.DataFrame:
    """The table, of a row for each pair of segment and host."""
    tables = [
        pairs.group_by(pl.lit(kind).alias("kind"), pl.col(kind).alias("source"))
        .agg(pl.exclude(*kinds).sum())
        .sort("wasted_micro", "wasted_calls", "candidates", "source", descending=[True, True, True, False])
        for kind in kinds
    ]
    usd = [(pl.col(f"{name}_micro") / MICRO_USD).alias(f"{name}_usd") for name in ("cost", "wasted")]
    return _with_rates(pl.concat(tables).with_columns(usd))


def of_kind(sources: pl.DataFrame, rows: int = MAX_SHOWN) -> pl.DataFrame:
    """The first kind of a frame of ``SCHEMA``, for people: the least wasteful sources are one row at the end.

    Args:
        sources: A frame of ``SCHEMA``.
        rows: Rows in all.
    """
    first = sources.filter(pl.col("kind") == pl.col("kind").first())
    if first.height <= rows:
        return first
    kept, rest = first.head(rows - 1), first.slice(rows - 1)
    micro = [(micro_sum(pl.col(name)) / MICRO_USD).alias(name) for name in ("cost_usd", "wasted_usd")]
    other = rest.select(
        pl.col("kind").first(),
        pl.lit(f"{rest.height:,} others").alias("source"),
        *(pl.col(name).sum() for name in _SUMS if not name.endswith("_usd")),
        *micro,
    )
    return pl.concat([kept, _with_rates(other)])


def _tallies() -> list[pl.Expr]:
    """Sums over rows; each of a plain expression, for polars streams no aggregate with a filter."""
    outcome, usd = pl.col("outcome"), pl.col("lifetime_cost_usd")
    passed, duplicate = outcome == Outcome.PASSED.value, outcome == Outcome.DUPLICATE.value
    attempted = outcome.is_in([one.value for one in ATTEMPTED])
    calls = pl.col("attempts").clip(lower_bound=pl.col("from_ledger").cast(pl.Int64))
    counted = {
        "duplicates": duplicate,
        "screened_out": outcome == Outcome.SCREENED_OUT.value,
        "dropped": is_dropped(),
        "checked": attempted,
        "passed": passed,
        "sampled": attempted & pass_rate.in_sample(),
        "sampled_passed": passed & pass_rate.in_sample(),
        "of_sample": pl.col("audited").is_not_null(),
        "skipped": outcome == Outcome.SKIPPED.value,
        "calls": calls,
        "wasted_calls": pl.when(passed).then(0).otherwise(calls),
    }
    return [
        pl.len().cast(pl.Int64).alias("candidates"),
        *(value.cast(pl.Int64).sum().alias(name) for name, value in counted.items()),
        # A duplicate repeats what its first was charged.
        micro_sum(pl.when(duplicate).then(0.0).otherwise(usd)).alias("cost_micro"),
        micro_sum(pl.when(duplicate | passed).then(0.0).otherwise(usd)).alias("wasted_micro"),
    ]


def _with_rates(sums: pl.DataFrame) -> pl.DataFrame:
    passed = pl.col("passed")
    interval = pl.struct("sampled_passed", "sampled").map_batches(
        _intervals, return_dtype=_INTERVAL, is_elementwise=True
    )
    return (
        sums.with_columns(
            pass_rate.of_each().alias("pass_rate"),
            interval.alias("interval"),
            _per(pl.col("cost_usd"), passed).alias("cost_per_approved_usd"),
            _per(pl.col("calls") / _CALLS_PER_HOUR * 1000, passed).alias("hours_per_1000_approved"),
        )
        .unnest("interval")
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    )


def _per(spent: pl.Expr, passed: pl.Expr) -> pl.Expr:
    return pl.when(passed > 0).then(spent / passed).when(spent > 0).then(pl.lit(float("inf")))


def _intervals(counts: pl.Series) -> pl.Series:
    found = [
        wilson(passed, checked) if checked else None
        for passed, checked in zip(counts.struct["sampled_passed"], counts.struct["sampled"], strict=True)
    ]
    rows = [(None, None) if span is None else (span.low, span.high) for span in found]
    return pl.DataFrame(rows, schema=_INTERVAL.to_schema(), orient="row").to_struct(counts.name)


def counts(sources: pl.DataFrame) -> tuple[str, ...]:
    """The counts that a table for people has: those dropped by the face check only where it dropped any."""
    dropped = ("dropped",) if sources["dropped"].sum() else ()
    return ("candidates", "screened_out", *dropped, "checked", "passed")


def header(sources: pl.DataFrame) -> tuple[str, ...]:
    """What `cells` has after the source; hours of the account per 1,000 approved images."""
    return (*(name.replace("_", " ") for name in counts(sources)), *_RATES)


def cells(sources: pl.DataFrame, names: Sequence[str] | None = None) -> list[list[str]]:
    """Each row of a frame of ``SCHEMA`` as text: the source, then what `header` names.

    Of the rows that are screened out, those that were dropped are apart. ``names``: the `counts` of the whole
    of which the frame is a part; None: its own.
    """
    names = counts(sources) if names is None else names
    sources = sources.with_columns(pl.col("screened_out") - pl.col("dropped"))
    return [
        [
            shown(row["source"])[:_MAX_CHARACTERS],
            *(f"{row[name]:,}" for name in names),
            *_rates(row),
            f"{row['wasted_usd']:,.4f}",
            amount(row["cost_per_approved_usd"], 6),
            amount(row["hours_per_1000_approved"], 3),
        ]
        for row in sources.iter_rows(named=True)
    ]


def sample_of(row: Mapping[str, Any]) -> int | None:
    """The attempted images of the random sample, of a row of ``SCHEMA``; None: the run has none."""
    sampled: int = row["sampled"]
    return sampled if row["of_sample"] else None


def _rates(row: Mapping[str, Any]) -> tuple[str, str]:
    """The pass rate and its interval."""
    rate = pass_rate.shown(row["pass_rate"], sample_of(row))
    return rate, "-" if rate == "-" else f"{row['pass_rate_low']:.0%} to {row['pass_rate_high']:.0%}"


def share(value: float | None) -> str:
    """A share in percent, for people; ``-`` for None."""
    return "-" if value is None else f"{value:.1%}"


def amount(value: float | None, digits: int) -> str:
    """An amount in USD or hours, for people; ``-`` for None, and where nothing passed."""
    return "-" if value is None or value == float("inf") else f"{value:,.{digits}f}"


def markdown(sources: pl.DataFrame) -> str:
    """One kind of a frame of ``SCHEMA`` as a table in Markdown; empty without a row."""
    if sources.is_empty():
        return ""
    head = [sources["kind"][0], *header(sources)]
    rules = ["---", *("---:" for _ in head[1:])]
    lines = [[code(source), *numbers] for source, *numbers in cells(sources)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rules, *lines))


def code(text: str) -> str:
    """Others' text as code, which Markdown shows as it is."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`" if text.strip() else "` `"
