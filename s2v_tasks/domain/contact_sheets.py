"""Contact sheets: which images of a run a person sees, as a seeded random sample of each outcome and reason.

A sheet is ``<outcome>`` or ``<outcome>/<reason>``. Duplicates have none: they are the images of other rows.
"""

from collections.abc import Collection
from typing import Final

import polars as pl

from s2v_tasks.domain.candidate_table import field_of, random_rank
from s2v_tasks.domain.dead_links import UNREACHABLE
from s2v_tasks.domain.faces import rule_of
from s2v_tasks.domain.image_url import REJECTION_REASONS
from s2v_tasks.domain.opt_out import OPTED_OUT
from s2v_tasks.models import Outcome

MAX_TILES: Final = 200
"""Of all sheets."""
MAX_PER_SHEET: Final = 24
NOT_SHOWN: Final = "not_shown"
"""The note of a tile whose image is neither fetched nor shown."""
NOT_FETCHED: Final = "not_fetched"
"""The note of a tile whose image can't be fetched any more."""
HIDDEN_REASONS: Final = REJECTION_REASONS | {
    "moderated", OPTED_OUT, "private_address", "odd_port", "bad_redirect", "too_many_redirects",
}  # fmt: skip
"""Moderated images, those whose host opted out, and URLs that no request is sent to."""

THUMBNAILS: Final[dict[str, pl.DataType]] = {
    "row": pl.Int64(),
    "sheet": pl.String(),
    "thumbnail": pl.Binary(),
    "width_px": pl.Int64(),
    "height_px": pl.Int64(),
    "note": pl.String(),
}
"""The columns of ``thumbnails.parquet``, a row for each tile.

``row`` is that of the verdicts, ``thumbnail`` a JPEG without metadata, sides in pixels are its own, ``note``
says why there is none.
"""

_DRAWN_PER_SHEET: Final = 100
"""So many rows of a larger sheet are expected below its threshold: fewer than 24 of 100 are never seen."""
_RANKS: Final = 2**64


def with_rules(verdicts: pl.LazyFrame, rules: Collection[str]) -> pl.LazyFrame:
    """Rows of which those that passed, though a rule of the face check drops such images, have its reason.

    So they have a sheet of their own: they show what a rule gives up.
    """
    has_passed = pl.col("outcome") == Outcome.PASSED.value
    return verdicts.with_columns(pl.when(has_passed).then(rule_of(rules)).otherwise("reason").alias("reason"))


def sheet_sizes(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of each sheet: columns ``sheet`` and ``rows``. ``verdicts`` as in `drawn`."""
    return _with_sheet(verdicts).group_by("sheet").agg(pl.len().alias("rows"))


def drawn(verdicts: pl.LazyFrame, sizes: pl.DataFrame, seed: int = 0) -> pl.LazyFrame:
    """Some rows of each sheet, at random: columns ``row`` and ``rank``. Memory does not grow with the rows.

    No text is among them: a few rows of text keep the memory of all that was read with them.

    Args:
        verdicts: The input's columns and those of `s2v_tasks.domain.verdict_table.SCHEMA`.
        sizes: What `sheet_sizes` says of them.
        seed: The same rows and seed draw the same images.
    """
    share = (_DRAWN_PER_SHEET / sizes["rows"]).clip(upper_bound=1.0)
    limits = sizes.select("sheet", limit=(share * (_RANKS - 2**12)).cast(pl.UInt64))
    return (
        _with_sheet(verdicts)
        .select("sheet", "row", random_rank(pl.col("row"), seed).alias("rank"))
        .join(limits.lazy(), on="sheet")
        .filter(pl.col("rank") <= pl.col("limit"))
        .select("row", "rank")
    )


def tiles(verdicts: pl.LazyFrame, rows: pl.DataFrame, url_column: str) -> pl.LazyFrame:
    """What is known of drawn rows.

    Args:
        verdicts: As in `drawn`.
        rows: A collected frame of `drawn`.
        url_column: The column with the URLs; may be a field of a struct, ``column.field``.

    Returns:
        Columns ``row``, ``sheet``, ``image_key``, ``url``, ``rank`` and ``note``; null: to be fetched.
    """
    url = field_of(url_column, verdicts.collect_schema())[0]
    reason = pl.col("reason")
    note = (
        pl.when(reason.is_in(sorted(HIDDEN_REASONS)))
        .then(pl.lit(NOT_SHOWN))
        .when(reason.is_in(sorted(UNREACHABLE)))
        .then(pl.lit(NOT_FETCHED))
    )
    return (
        _with_sheet(verdicts.filter(pl.col("row").is_in(rows["row"].implode())))
        .join(rows.lazy(), on="row")
        .select("row", "sheet", "image_key", url.alias("url"), "rank", note.alias("note"))
    )


def chosen(found: pl.DataFrame) -> pl.DataFrame:
    """The tiles of a collected frame of `tiles`, by sheet and row: the lowest ranks of each sheet.

    If all sheets together hold too many, each gives up its last ones; those without an image first.
    """
    within = pl.col("rank").rank("ordinal").over("sheet").alias("place")
    return (
        found.with_columns(within)
        .filter(pl.col("place") <= MAX_PER_SHEET)
        .sort(pl.col("note").is_not_null(), "place", "sheet")
        .head(MAX_TILES)
        .sort("sheet", "row")
        .drop("rank", "place")
    )


def _with_sheet(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    sheet = pl.concat_str("outcome", "reason", separator="/", ignore_nulls=True).alias("sheet")
    return verdicts.filter(pl.col("outcome") != Outcome.DUPLICATE.value).with_columns(sheet)
