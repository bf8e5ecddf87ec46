"""What the report of a run counts: frames over its verdicts, each with a row for few things."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain.face_summary import FaceSummary
from s2v_tasks.domain.gate_rules import micro_sum
from s2v_tasks.domain.ledger import MICRO_USD
from s2v_tasks.models import Outcome

MAX_BINS: Final = 60
"""Bars of the rate over time."""


@dataclass(frozen=True, slots=True)
class ReportFrames:
    """The collected frames: see `outcomes`, `responses`, `facts_of`, `by_source`, `changes`.

    ``changed`` and ``changed_sources``: the frames of `s2v_tasks.domain.changes.Changes`; None without an
    earlier publication. ``tiles``: of `tiles_of`; None without thumbnails. ``published``: the facts
    without the segments that are left out; None: the same. ``faces``: None without a face check.
    """

    outcomes: pl.DataFrame
    responses: pl.DataFrame
    facts: pl.DataFrame
    sources: pl.DataFrame
    changed: pl.DataFrame | None = None
    changed_sources: pl.DataFrame | None = None
    tiles: pl.DataFrame | None = None
    published: pl.DataFrame | None = None
    faces: FaceSummary | None = None


def outcomes(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """A row for each outcome, reason, HTTP status and code: rows, calls and USD over all runs.

    ``calls`` counts one for each verdict of an earlier run; ``resent``: calls of this run after the first of
    an image; ``lost_usd``: charges of responses that were lost.
    """
    outcome, attempts = pl.col("outcome"), pl.col("attempts")
    own = outcome != Outcome.DUPLICATE.value
    calls = attempts.clip(lower_bound=pl.col("from_ledger").cast(pl.Int64))
    usd = pl.when(own).then(pl.col("lifetime_cost_usd")).otherwise(0.0)
    return (
        verdicts.group_by("outcome", "reason", "http_status", "code")
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.when(own).then(calls).otherwise(0).sum().alias("calls"),
            (pl.when(own).then(attempts).otherwise(0) - 1).clip(lower_bound=0).sum().alias("resent"),
            pl.when(own).then(pl.col("from_ledger").cast(pl.Int64)).otherwise(0).sum().alias("reused"),
            (micro_sum(usd) / MICRO_USD).alias("usd"),
            (micro_sum(pl.col("run_cost_usd")) / MICRO_USD).alias("run_usd"),
        )
        .sort("rows", "outcome", "reason", "code", descending=[True, False, False, False])
    )


def responses(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """Deciding responses of this run by the second in which they were stored: ``second``, ``images``."""
    sent = (pl.col("attempts") > 0) & ~pl.col("from_ledger") & pl.col("checked_at").is_not_null()
    own = pl.col("outcome") != Outcome.DUPLICATE.value
    return (
        verdicts.filter(sent & own)
        .group_by(pl.col("checked_at").dt.truncate("1s").alias("second"))
        .agg(pl.len().cast(pl.Int64).alias("images"))
        .sort("second")
    )


def rate(responses: pl.DataFrame) -> list[float]:
    """Responses a second in up to ``MAX_BINS`` equal spans, from the first second to the last."""
    if responses.is_empty():
        return []
    first = responses["second"][0]
    seconds = (responses["second"] - first).dt.total_seconds()
    width = -(-(seconds[-1] + 1) // MAX_BINS)
    totals = dict(
        pl.DataFrame({"bin": seconds // width, "images": responses["images"]})
        .group_by("bin")
        .agg(pl.col("images").sum())
        .iter_rows()
    )
    return [totals.get(number, 0) / width for number in range(seconds[-1] // width + 1)]


def tiles_of(thumbnails: pl.DataFrame, verdicts: pl.LazyFrame, segment_column: str | None) -> pl.LazyFrame:
    """The thumbnails with what is known of their rows; rows that the verdicts have not are left out."""
    named = ["outcome", "reason", "code", "image_width", "image_height"]
    known = verdicts.filter(pl.col("row").is_in(thumbnails["row"].implode())).select(
        "row", "outcome", "reason", "code",
        pl.col("width_px").alias("image_width"), pl.col("height_px").alias("image_height"),
        (pl.lit(None, pl.String) if segment_column is None else pl.col(segment_column).cast(pl.String))
        .alias("segment"),
    )  # fmt: skip
    return (
        thumbnails.lazy()
        .join(known, on="row", how="inner")
        .select("row", "sheet", "thumbnail", pl.col("width_px", "height_px"), "note", "segment", *named)
    )
