"""Candidates as a table: the key of each row's image, the duplicates, the rows of a sample, the partitions.

LazyFrame to LazyFrame; the rules about a single URL are in `s2v_tasks.domain.image_url`.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import polars as pl

from s2v_tasks.domain.alternate_urls import LATER
from s2v_tasks.domain.image_url import MAY_HAVE_FORMER_KEY, former_key, with_keys_or_reasons
from s2v_tasks.errors import InputError
from s2v_tasks.models import Screened, UniqueImage

SCHEMA: Final[dict[str, pl.DataType]] = {
    "row": pl.Int64(),
    "url": pl.String(),
    "image_key": pl.String(),
    "reason": pl.String(),
    "duplicate_of": pl.Int64(),
}
"""What ``add_image_keys`` returns, in order."""
KEYED_SCHEMA: Final = {name: dtype for name, dtype in SCHEMA.items() if name != "duplicate_of"}
"""What ``assign_keys`` returns: what is known of a row without the others."""
PARTITION_ROWS: Final = 100_000
"""Rows in memory at once, whatever their number."""

_SHOWN_COLUMNS: Final = 20
Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def add_image_keys(rows: pl.LazyFrame, url_column: str) -> pl.LazyFrame:
    """Number the rows, and give each the key of its image and the row that it repeats.

    Args:
        rows: Any rows, in input order.
        url_column: The column with the URLs; may be a field of a struct, ``column.field``.

    Returns:
        The columns of ``SCHEMA`` and every row, in order. ``image_key`` is null where ``reason`` says why the
        URL is rejected; ``duplicate_of`` is the first row with the same key, null for that first row itself.
    """
    return mark_duplicates(assign_keys(rows, url_column))


def url_column_of(rows: pl.LazyFrame, url_column: str) -> pl.LazyFrame:
    """The URLs alone, as column ``url``; ``url_column`` may be a field of a struct."""
    return rows.select(field_of(url_column, rows.collect_schema())[0].alias("url"))


def field_of(name: str, schema: pl.Schema) -> tuple[pl.Expr, pl.DataType | None]:
    """The column or ``column.field`` of a struct that a name means, and its type (None: there is none)."""
    column, found = pl.col(name), schema.get(name)
    if found is not None:
        return column, found
    outer, *inner = name.split(".")
    column, found = pl.col(outer), schema.get(outer)
    for part in inner:
        fields: dict[str, Any] = dict(found) if isinstance(found, pl.Struct) else {}
        column, found = column.struct.field(part), fields.get(part)
    return column, found


def assign_keys(rows: pl.LazyFrame, url_column: str, first: int = 0) -> pl.LazyFrame:
    """Number the rows from ``first``, and give each its key or the reason why its URL is rejected."""
    numbered = url_column_of(rows, url_column).with_row_index("row", first)
    return with_keys_or_reasons(numbered.select(pl.col("row").cast(pl.Int64), "url"))


def with_former_keys(batch: pl.DataFrame, known: Callable[[list[str]], Collection[str]]) -> pl.DataFrame:
    """Let rows keep the key that they had when an early ledger was written, where it is ``known``.

    An image that was paid for is then found though the normal form has changed since, and its attempts stay
    under one key. ``batch`` is of ``KEYED_SCHEMA``; ``known`` returns those of some keys that the ledger has.
    """
    may_differ = batch.filter(pl.col("reason").is_null() & pl.col("url").str.contains(MAY_HAVE_FORMER_KEY))
    formers = ((row, former_key(url)) for row, url in may_differ.select("row", "url").iter_rows())
    changed = {row: key for row, key in formers if key is not None}
    stored = known(list(set(changed.values()))) if changed else ()
    kept = {row: key for row, key in changed.items() if key in stored}
    if not kept:
        return batch
    key = pl.col("row").replace_strict(kept, default=None, return_dtype=pl.String)
    return batch.with_columns(key.fill_null(pl.col("image_key")).alias("image_key"))


def mark_duplicates(rows: Frame, key: str = "image_key", rank: str = "row") -> Frame:
    """Name the row that each row repeats, in ``duplicate_of``: the first by ``rank`` with its ``key``.

    A rank is the row's number, or ``LATER`` more.
    """
    first = pl.col(rank).min().over(key)
    repeats = pl.col(key).is_not_null() & (first < pl.col(rank))
    return rows.with_columns(pl.when(repeats).then(first % LATER).alias("duplicate_of"))


def unique_images(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The images of rows of ``SCHEMA``, each once, in order: columns ``image_key``, ``url``, ``row``."""
    wanted = pl.col("reason").is_null() & pl.col("duplicate_of").is_null()
    return rows.filter(wanted).select("image_key", "url", "row")


def partition_count(rows: int, partition_rows: int = PARTITION_ROWS) -> int:
    """The number of partitions that so many rows are split into."""
    return max(1, -(-rows // partition_rows))


def partition_of_key(partitions: int, key: str = "image_key") -> pl.Expr:
    """The partition of an image, from 0; null without a key.

    Keys are hashes, so partitions are about equal, unless an input repeats few images very often.
    """
    prefix = pl.col(key).str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64, strict=False)
    return prefix * partitions // 2**32


def partition_of(partitions: int, key: str = "image_key") -> pl.Expr:
    """The partition of a row, from 0: the same for all rows of an image; needs ``key`` and ``row``."""
    return partition_of_key(partitions, key).fill_null(pl.col("row") % partitions)


def key_range(partition: int, partitions: int) -> tuple[str, str]:
    """The keys of a partition: from the first of these two on, and before the second."""
    first, after = (f"{-(-number * 2**32 // partitions):08x}" for number in (partition, partition + 1))
    return first, after if partition + 1 < partitions else "g"


def records(images: pl.DataFrame) -> list[UniqueImage]:
    """Images as records, a ``UniqueImage`` each.

    Columns ``image_key``, ``url`` and, if there, ``seen`` and ``others``.
    """
    seen, others = (
        images[name] if name in images.columns else [None] * images.height for name in ("seen", "others")
    )
    return [
        UniqueImage(key, url, before and Screened(*before.values()), tuple(more if more is not None else ()))
        for key, url, before, more in zip(images["image_key"], images["url"], seen, others, strict=True)
    ]


def selected(
    rows: pl.LazyFrame,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    stratify_by: str | None = None,
) -> pl.LazyFrame:
    """The rows that are part of the run, in order: the first ``limit``, and of these a sample.

    The same rows and ``seed`` draw the same sample, on any machine and with any version: it depends on row
    numbers alone. With ``stratify_by`` every value of that column, null too, gets its share of it.
    """
    rows = rows if limit is None else rows.head(limit)
    if sample is None:
        return rows
    strata = pl.lit(0) if stratify_by is None else pl.col(stratify_by)
    numbered = rows.with_row_index(_DRAWN)
    drawn = (
        numbered.select(_DRAWN, strata.alias("stratum"))
        .with_columns(random_rank(pl.col(_DRAWN), seed).alias("rank"))
        # The n-th rank in a stratum of s rows is at (n - 1/2) / s: the first rows hold every stratum evenly.
        .with_columns(((pl.col("rank").rank("ordinal") - 0.5) / pl.len()).over("stratum").alias("quantile"))
        .sort("quantile", "rank")
        .head(sample)
        .select(_DRAWN)
    )
    return numbered.join(drawn, on=_DRAWN, how="semi", maintain_order="left").drop(_DRAWN)


_DRAWN: Final = "__s2v_drawn"


def random_rank(row: pl.Expr, seed: int) -> pl.Expr:
    """A pseudo-random number for each row, each number once: SplitMix64.

    polars' own hash may change with its version; its unsigned integers wrap around, as SplitMix64 needs.
    """
    return mixed(mixed(u64(seed)) + (row.cast(pl.UInt64) + 1) * u64(0x9E3779B97F4A7C15))


def mixed(z: pl.Expr) -> pl.Expr:
    """SplitMix64's mix of unsigned 64-bit integers: each has another image."""
    z = (z ^ (z // 2**30)) * u64(0xBF58476D1CE4E5B9)
    z = (z ^ (z // 2**27)) * u64(0x94D049BB133111EB)
    return z ^ (z // 2**31)


def u64(number: int) -> pl.Expr:
    """An unsigned 64-bit constant."""
    return pl.lit(number, pl.UInt64)


def columns_shown(schema: pl.Schema) -> str:
    """The columns of an input, for a message."""
    names = ", ".join(list(schema)[:_SHOWN_COLUMNS]) or "none"
    more = f" and {len(schema) - _SHOWN_COLUMNS} more" if len(schema) > _SHOWN_COLUMNS else ""
    return f"they have: {names}{more}"


def check_columns(
    schema: pl.Schema,
    url_column: str,
    added: Collection[str],
    segment_column: str | None = None,
    stratify_by: str | None = None,
) -> None:
    """Reject an input that can't be curated; ``added`` are the columns that a run adds to its own.

    Raises:
        InputError: A column is missing, the URLs are no strings, or a name is taken.
    """
    dtype = field_of(url_column, schema)[1]
    for wanted, there in (
        (url_column, dtype is not None),
        (segment_column, segment_column in schema),
        (stratify_by, stratify_by in schema),
    ):
        if wanted is not None and not there:
            advice = "; name the one with the URLs (--url-column)" if wanted == url_column else ""
            raise InputError(f"the candidates have no column {wanted!r}; {columns_shown(schema)}{advice}")
    if dtype != pl.String:
        raise InputError(
            f"column {url_column!r} must hold strings, it holds {dtype};"
            " cast it, or name the one with the URLs (--url-column)"
        )
    taken = [name for name in schema if name in added]
    if taken:
        names = ", ".join(map(repr, taken))
        raise InputError(f"the candidates have column {names}, which a run adds itself: rename it")
