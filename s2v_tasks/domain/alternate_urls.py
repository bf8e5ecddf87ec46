"""Alternate URLs: which URL of an image is used where rows name several, such as one signed again. Pure.

An image's URLs are tried newest first, at most ``MAX_URLS``; the newest is that of its last row.
``url_index`` says how far: it only grows, so one stored number continues the search.
"""

from typing import Final

import polars as pl

from s2v_tasks.domain.image_url import requested_form

MAX_URLS: Final = 3
"""URLs that are tried for one image."""
INDEX_SCHEMA: Final[dict[str, pl.DataType]] = {"image_key": pl.String(), "url_index": pl.Int64()}
"""How far the search is: the number of URLs that were given up."""
SEVERAL_SCHEMA: Final[dict[str, pl.DataType]] = {
    "row": pl.Int64(),
    "image_key": pl.String(),
    "url": pl.String(),
    "position": pl.Int64(),
    "first": pl.Int64(),
}
"""Rows of images with several URLs: ``position`` of the URL, 0 the newest; ``first`` row with that URL."""
LATER: Final = 2**40
"""Added to the number of a row that does not represent its image; more than any input has rows."""


def several_urls(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of images with several URLs, of ``SEVERAL_SCHEMA``.

    URLs that differ only in what is not sent, or in the letter case of the host, are one.

    Args:
        rows: All rows of some images, of `s2v_tasks.domain.candidate_table.SCHEMA`.
    """
    urls = rows.select("row", "image_key", "url", "duplicate_of")
    first = urls.select(pl.col("row").alias("duplicate_of"), pl.col("url").alias("first_url"))
    repeats = urls.drop_nulls("duplicate_of").join(first, on="duplicate_of", how="inner")
    keys = repeats.filter(pl.col("url") != pl.col("first_url")).select("image_key").unique()
    requested = pl.col("url").map_elements(requested_form, return_dtype=pl.String)
    of_url = ["image_key", "requested"]
    newest_first = pl.col("last").rank("dense", descending=True).over("image_key").cast(pl.Int64)
    return (
        urls.join(keys, on="image_key", how="semi", maintain_order="left")
        .with_columns(requested.alias("requested"))
        .with_columns(
            pl.col("row").min().over(of_url).alias("first"), pl.col("row").max().over(of_url).alias("last")
        )
        .with_columns((newest_first - 1).alias("position"))
        .select(*SEVERAL_SCHEMA)
    )


def with_urls(images: pl.LazyFrame, several: pl.LazyFrame | None) -> pl.LazyFrame:
    """Images with their newest URL as ``url``, the first row with it as ``row``, and ``others``.

    ``others``, null or empty without any, are up to two older URLs, newest first. ``images`` has columns
    ``image_key``, ``url`` and ``row``; ``several`` is what `several_urls` found, None: nothing.
    """
    if several is None:
        return images.with_columns(pl.lit(None, pl.List(pl.String)).alias("others"))
    urls = (
        several.filter((pl.col("row") == pl.col("first")) & (pl.col("position") < MAX_URLS))
        .sort("position")
        .group_by("image_key", maintain_order=True)
        .agg(pl.col("url").alias("urls"), pl.col("row").first().alias("newest"))
    )
    return images.join(urls, on="image_key", how="left", maintain_order="left").select(
        "image_key",
        pl.coalesce(pl.col("urls").list.first(), "url").alias("url"),
        pl.coalesce("newest", "row").alias("row"),
        pl.col("urls").list.slice(1).alias("others"),
    )


def skipped_to(images: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
    """Images whose search goes on at another URL: the URLs before it are left out; the last one stays.

    ``images`` has columns ``url``, ``others`` and ``url_index``, that of ``url``; ``index`` is of
    ``INDEX_SCHEMA``.
    """
    index = index.filter(pl.col("url_index") > 0)
    if index.is_empty():
        return images
    by = (pl.col("to").fill_null(0) - pl.col("url_index")).clip(0)
    urls = pl.concat_list(pl.concat_list("url"), pl.col("others").fill_null([]))
    to = index.select("image_key", pl.col("url_index").alias("to"))
    return (
        images.join(to, on="image_key", how="left", maintain_order="left")
        .with_columns(by.alias("by"), urls.alias("urls"))
        .with_columns(
            pl.col("urls").list.get(pl.min_horizontal("by", pl.col("urls").list.len() - 1)).alias("url"),
            pl.col("urls").list.slice(pl.col("by") + 1).alias("others"),
            (pl.col("url_index") + pl.col("by")).alias("url_index"),
        )
        .drop("to", "by", "urls")
    )


def following(images: pl.DataFrame, unfetched: pl.Series) -> pl.DataFrame:
    """What is sent next for the ``unfetched`` keys, whose first image was sent: its next URL, or a copy's.

    ``images`` may hold several images with one ``image_key``, copies of each other; columns as `skipped_to`.
    """
    images = images.filter(pl.col("image_key").is_in(unfetched.implode()))
    is_first = pl.col("image_key").is_first_distinct()
    has_another = pl.col("others").list.len().fill_null(0) > 0
    again = images.filter(is_first & has_another).with_columns(
        pl.col("others").list.first().alias("url"),
        pl.col("others").list.slice(1).alias("others"),
        (pl.col("url_index") + 1).alias("url_index"),
    )
    return pl.concat([again, images.filter(~is_first)])


def with_rank(
    rows: pl.LazyFrame, several: pl.LazyFrame | None = None, skipped: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Rows with ``rank``, their order in representing their image: first those with the URL that is used.

    Args:
        rows: Columns ``row``, ``image_key`` and ``url_index``, what the screen chose; null: the newest.
        several: What `several_urls` found; None: nothing.
        skipped: Of ``INDEX_SCHEMA``: images whose URLs the vendor could not fetch; None: there are none.
    """
    if several is None and skipped is None:
        return rows.with_columns(pl.col("row").alias("rank"))
    positions = pl.LazyFrame(schema=SEVERAL_SCHEMA) if several is None else several
    beyond = pl.LazyFrame(schema=INDEX_SCHEMA) if skipped is None else skipped
    index = pl.max_horizontal("url_index", "url_index_skipped").fill_null(0)
    is_used = pl.col("position").fill_null(0) == index
    return (
        rows.join(positions.select("row", "position"), on="row", how="left")
        .join(beyond, on="image_key", how="left", suffix="_skipped")
        .with_columns((pl.col("row") + pl.when(is_used).then(0).otherwise(LATER)).alias("rank"))
    )
