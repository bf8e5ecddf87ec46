"""Changes between two runs: images added and removed, and verdicts that changed, in all and by source."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain.by_source import source_columns
from s2v_tasks.domain.gate_rules import is_own_image
from s2v_tasks.models import Outcome

VERDICTS_SCHEMA: Final[dict[str, pl.DataType]] = {
    "before": pl.String(),
    "after": pl.String(),
    "images": pl.Int64(),
    "rows": pl.List(pl.Int64()),
}
SOURCES_SCHEMA: Final[dict[str, pl.DataType]] = {
    "kind": pl.String(),
    "source": pl.String(),
    "added": pl.Int64(),
    "removed": pl.Int64(),
    "changed": pl.Int64(),
    "gained": pl.Int64(),
    "lost": pl.Int64(),
}
EXAMPLES_OF_EACH: Final = 5


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two runs, in unique images; duplicates are not counted.

    ``verdicts``: a row of ``VERDICTS_SCHEMA`` for each pair of verdicts, most frequent first: the outcome
    with its reason ``before`` and ``after``, and up to ``EXAMPLES_OF_EACH`` ``rows`` of the later run.
    ``sources``: a row of ``SOURCES_SCHEMA`` for each segment (if both runs have them), then for each host,
    with most changes first. ``gained``: passed now and not before, ``lost``: the reverse; both count added
    and removed images too.
    """

    verdicts: pl.LazyFrame
    sources: pl.LazyFrame


def images_of(verdicts: pl.LazyFrame, url_column: str, segment_column: str | None = None) -> pl.LazyFrame:
    """What `changes` compares of a run: each unique image by its key, with its verdict and its sources.

    Args:
        verdicts: The input's columns and those of `s2v_tasks.domain.verdict_table.SCHEMA`.
        url_column: The column with the URLs; may be a field of a struct, ``column.field``.
        segment_column: None: only hosts.
    """
    verdict = pl.concat_str("outcome", "reason", separator=" ", ignore_nulls=True)
    return verdicts.filter(is_own_image()).select(
        "image_key",
        "row",
        verdict.alias("verdict"),
        (pl.col("outcome") == Outcome.PASSED.value).alias("passed"),
        **source_columns(verdicts, url_column, segment_column),
    )


def changes(before: pl.LazyFrame, after: pl.LazyFrame) -> Changes:
    """What changed between two runs; both are what `images_of` returns, and need not have the same columns.

    Memory grows with the number of images: collect both frames in one pass, streaming.
    """
    shared = before.collect_schema().keys() & after.collect_schema().keys()
    kinds = [kind for kind in ("segment", "host") if kind in shared]
    both = before.join(after, on="image_key", how="full", coalesce=True, suffix="_after")
    was, now = pl.col("verdict"), pl.col("verdict_after")
    changed = was.is_not_null() & now.is_not_null() & (was != now)
    verdicts = (
        both.filter(changed)
        .group_by(was.alias("before"), now.alias("after"))
        .agg(pl.len().alias("images"), pl.col("row_after").bottom_k(EXAMPLES_OF_EACH).sort().alias("rows"))
        .sort("images", "before", "after", descending=[True, False, False])
        .select(pl.col(name).cast(dtype) for name, dtype in VERDICTS_SCHEMA.items())
    )
    passed, passes = (pl.col(name).fill_null(value=False) for name in ("passed", "passed_after"))
    counted = [
        was.is_null().sum().alias("added"),
        now.is_null().sum().alias("removed"),
        changed.sum().alias("changed"),
        (passes & ~passed).sum().alias("gained"),
        (passed & ~passes).sum().alias("lost"),
    ]
    difference = pl.sum_horizontal("added", "removed", "changed")
    sources = [
        both.group_by(pl.coalesce(f"{kind}_after", kind).alias("source"))
        .agg(counted)
        .select(pl.lit(kind).alias("kind"), pl.all())
        .sort(difference, "source", descending=[True, False])
        for kind in kinds
    ]
    typed = [pl.col(name).cast(dtype) for name, dtype in SOURCES_SCHEMA.items()]
    return Changes(verdicts, pl.concat(sources).select(typed))
