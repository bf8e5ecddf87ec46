"""The table of verdicts: one outcome for every input row, frame to frame."""

from collections.abc import Collection, Iterable
from dataclasses import astuple

import polars as pl

from s2v_tasks.domain import faces
from s2v_tasks.domain.alternate_urls import INDEX_SCHEMA, skipped_to, with_rank
from s2v_tasks.domain.candidate_table import KEYED_SCHEMA, mark_duplicates
from s2v_tasks.domain.ledger import RUN_STOPPED, usd
from s2v_tasks.domain.opt_out import OPTED_OUT
from s2v_tasks.domain.screening import FILE_KEY
from s2v_tasks.models import Billing, Outcome, Screened, Verdict

SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "image_key": pl.String(),
    "outcome": pl.String(),
    "reason": pl.String(),
    "duplicate_of": pl.Int64(),
    "check_pass": pl.Boolean(),
    "humanoid": pl.Boolean(),
    "code": pl.String(),
    "message": pl.String(),
    "request_id": pl.String(),
    "http_status": pl.Int64(),
    "attempts": pl.Int64(),
    "billing": pl.String(),
    "run_cost_usd": pl.Float64(),
    "lifetime_cost_usd": pl.Float64(),
    "from_ledger": pl.Boolean(),
    "width_px": pl.Int64(),
    "height_px": pl.Int64(),
    "image_format": pl.String(),
    "image_traits": pl.String(),
    "checked_at": pl.Datetime("us", "UTC"),
    **faces.COLUMNS,
    "audited": pl.Boolean(),
    "audited_in_run": pl.Boolean(),
}
"""The columns that a run adds behind the input's own, in order."""

_HEADER = ("width_px", "height_px", "image_format", "image_traits")
SCREENED_SCHEMA: dict[str, pl.DataType] = {
    "image_key": pl.String(),
    "screen_reason": pl.String(),
    **{name: SCHEMA[name] for name in _HEADER},
    "content_key": pl.String(),
    "validator": pl.String(),
    "url_index": pl.Int64(),
    "file_key": pl.String(),
}
"""Results of the screen, a row for each image; ``screen_reason`` null: kept."""

CANONICAL_SCHEMA: dict[str, pl.DataType] = {"image_key": pl.String(), "canonical_key": pl.String()}
"""Images with the content of another, and the key of that one: they are checked under it."""

RESOLVED_SCHEMA: dict[str, pl.DataType] = {
    **{name: dtype for name, dtype in KEYED_SCHEMA.items() if name != "url"},
    "screen_reason": pl.String(),
    **{name: SCHEMA[name] for name in _HEADER},
    **faces.COLUMNS,
    "canonical_key": pl.String(),
    "rank": pl.Int64(),
}
"""Rows with the results of the screen; all with one ``canonical_key`` are one image.

The lowest ``rank`` represents it: `s2v_tasks.domain.alternate_urls.with_rank`.
"""

SAME_CONTENT = "same_content"
"""The reason of a duplicate that has another URL than its first row."""

_CHECKED = (
    "outcome", "reason", "check_pass", "humanoid", "code", "message", "request_id", "http_status",
    "attempts", "billing", "run_cost_usd", "lifetime_cost_usd", "from_ledger", "checked_at",
)  # fmt: skip
CHECKED_SCHEMA: dict[str, pl.DataType] = {
    "image_key": pl.String(),
    **{name: SCHEMA[name] for name in _CHECKED},
}
"""Results of the paid check, a row for each image."""

_LATER = ("audited", "audited_in_run")
_CHARGES = ("attempts", "run_cost_usd", "lifetime_cost_usd")
_COPIED = ("check_pass", "humanoid", "code", "request_id", *_HEADER, *faces.COLUMNS)


def screened_frame(screened: Iterable[Screened]) -> pl.DataFrame:
    """Results of the screen as a frame of ``SCREENED_SCHEMA``."""
    return pl.DataFrame([astuple(s) for s in screened], schema=SCREENED_SCHEMA, orient="row")


def screened_records(frame: pl.DataFrame) -> list[Screened]:
    """A frame of ``SCREENED_SCHEMA`` as records."""
    return [Screened(*row) for row in frame.select(*SCREENED_SCHEMA).iter_rows()]


def kept(images: pl.DataFrame, screened: pl.DataFrame) -> pl.DataFrame:
    """The images that the screen kept, in order, with their ``content_key`` and the URL to use.

    ``screened`` has the columns of ``SCREENED_SCHEMA``.
    """
    passed = screened.filter(pl.col("screen_reason").is_null())
    content = passed.select("image_key", pl.coalesce("content_key", "file_key").alias("content_key"))
    images = images.join(content, on="image_key", how="inner", maintain_order="left")
    return skipped_to(images, passed.select(*INDEX_SCHEMA))


def comparable(kept: pl.DataFrame, *, same_content: bool) -> pl.DataFrame:
    """The kept images that may be the image of another URL: columns ``image_key`` and ``content_key``.

    By a hash of their bytes only with ``same_content``, for then every image has one.
    """
    if "content_key" not in kept.columns:  # nothing was screened
        return pl.DataFrame(schema={"image_key": pl.String, "content_key": pl.String})
    is_wanted = pl.lit(same_content) | pl.col("content_key").str.starts_with(FILE_KEY)
    return kept.select("image_key", "content_key").drop_nulls().filter(is_wanted)


def latest_results(checked: pl.DataFrame) -> pl.DataFrame:
    """The latest result of each image: its copies are checked under its key, one after the other.

    The charges are the highest ones, for they only grow.
    """
    return (
        checked.with_columns(pl.col(*_CHARGES).max().over("image_key"))
        .sort("checked_at", maintain_order=True)
        .unique("image_key", keep="last", maintain_order=True)
    )


def attach_screened(
    keyed: pl.LazyFrame,
    screened: pl.LazyFrame,
    canonical: pl.LazyFrame,
    several: pl.LazyFrame | None = None,
    skipped: pl.LazyFrame | None = None,
    seen: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Rows with the results of the screen and the key that they are checked under: ``RESOLVED_SCHEMA``.

    ``keyed`` is of `s2v_tasks.domain.candidate_table.KEYED_SCHEMA`, ``canonical`` of ``CANONICAL_SCHEMA``,
    ``seen`` of `s2v_tasks.domain.faces.SCHEMA`; ``several`` and ``skipped`` are those of
    `s2v_tasks.domain.alternate_urls.with_rank`.
    """
    rows = (
        keyed.join(screened, on="image_key", how="left")
        .join(canonical, on="image_key", how="left")
        .join(pl.LazyFrame(schema=faces.SCHEMA) if seen is None else seen, on="image_key", how="left")
        .with_columns(pl.coalesce("canonical_key", "image_key").alias("canonical_key"))
    )
    return with_rank(rows, several, skipped).select(*RESOLVED_SCHEMA)


def checked_frame(verdicts: Iterable[Verdict]) -> pl.DataFrame:
    """Verdicts as a frame of ``CHECKED_SCHEMA``."""
    rows = [
        (
            v.image_key, v.outcome.value, v.reason, v.check_pass, v.humanoid, v.code, v.message,
            v.request_id, v.http_status, v.attempts, v.billing.value, usd(v.run_cost_micro_usd),
            usd(v.lifetime_cost_micro_usd), v.from_ledger, v.checked_at,
        )
        for v in verdicts
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=CHECKED_SCHEMA, orient="row")


def outcomes(
    rows: pl.DataFrame,
    checked: pl.DataFrame,
    charged: pl.DataFrame | None = None,
    *,
    unreached: str = RUN_STOPPED,
    rules: Collection[str] = (),
) -> pl.DataFrame:
    """One outcome for each row: the first line that is true of it decides.

    ======================================  ============  =============================================
    row                                     outcome       reason
    ======================================  ============  =============================================
    repeats an earlier row                  duplicate     ``same_content`` if the two URLs differ
    its URL is rejected                     screened_out  why the URL is rejected
    screened: the image opted out           screened_out  ``opted_out``, whatever another run paid for
    screened out, and has no verdict        screened_out  why the screen rejects it
    not checked, and a rule drops it        screened_out  the rule of the face check
    has a verdict                           the verdict's the verdict's
    no stage has reached it                 skipped       ``unreached``
    ======================================  ============  =============================================

    Args:
        rows: ``RESOLVED_SCHEMA``; all rows of an image are among them.
        checked: ``CHECKED_SCHEMA``, at most one row for each canonical key.
        charged: ``CHECKED_SCHEMA``, what was charged before for images that never got a response: it counts
            even if this run screens them out.
        unreached: The reason of images that neither stage has reached.
        rules: Of `s2v_tasks.domain.faces`: those by which the run drops images.

    Returns:
        One row of ``SCHEMA`` for each of ``rows``, in any order.
    """
    marked = mark_duplicates(_resolve_canonical(rows), "canonical_key", "rank")
    is_duplicate = pl.col("duplicate_of").is_not_null()
    images = _decide(_attach_results(marked.filter(~is_duplicate), checked, charged), unreached, rules)
    duplicates = _copy_to_duplicates(marked.filter(is_duplicate), images)
    typed = [
        pl.lit(None, dtype).alias(name) if name in _LATER else pl.col(name).cast(dtype)
        for name, dtype in SCHEMA.items()
    ]
    return pl.concat([images.select(typed), duplicates.select(typed)])


def _resolve_canonical(rows: pl.DataFrame) -> pl.DataFrame:
    """Give a screened-out row that has copies a key of its own: it does not represent them."""
    copied = rows.filter(pl.col("image_key") != pl.col("canonical_key"))["canonical_key"]
    if copied.is_empty():
        return rows
    stands_alone = pl.col("canonical_key").is_in(copied.implode()) & pl.col("screen_reason").is_not_null()
    own_key = pl.format("-{}", "image_key")
    return rows.with_columns(
        pl.when(stands_alone).then(own_key).otherwise("canonical_key").alias("canonical_key")
    )


def _attach_results(
    images: pl.DataFrame, checked: pl.DataFrame, charged: pl.DataFrame | None
) -> pl.DataFrame:
    """Add the verdict and the charges of each image; the verdict's reason as ``checked_reason``."""
    verdicts = checked.rename({"image_key": "canonical_key", "reason": "checked_reason"})
    images = images.join(verdicts, on="canonical_key", how="left")
    if charged is None or charged.is_empty():
        return images
    charges = charged.select(pl.col("image_key").alias("canonical_key"), *_CHARGES)
    return images.join(charges, on="canonical_key", how="left", suffix="_before").with_columns(
        pl.coalesce(name, f"{name}_before") for name in _CHARGES
    )


def _decide(images: pl.DataFrame, unreached: str, rules: Collection[str]) -> pl.DataFrame:
    """Decide outcome and reason of each image that is no duplicate: the table in `outcomes`."""
    # A later verdict overrules the screen, but is no permission of an image that opted out.
    by_screen = pl.col("outcome").is_null() | (pl.col("screen_reason") == OPTED_OUT)
    is_unchecked = pl.col("outcome").fill_null(Outcome.SKIPPED.value) == Outcome.SKIPPED.value
    dropped = pl.when(is_unchecked).then(faces.rule_of(rules))
    rejection = pl.coalesce("reason", pl.when(by_screen).then("screen_reason"), dropped)
    is_rejected = rejection.is_not_null()
    return images.with_columns(
        pl.when(is_rejected)
        .then(pl.lit(Outcome.SCREENED_OUT.value))
        .otherwise(pl.col("outcome").fill_null(Outcome.SKIPPED.value))
        .alias("outcome"),
        pl.when(~is_rejected & pl.col("outcome").is_null())
        .then(pl.lit(unreached))
        .otherwise(pl.coalesce(rejection, "checked_reason"))
        .alias("reason"),
        pl.when(~is_rejected).then("check_pass").alias("check_pass"),
        *_without_call(),
    )


def _copy_to_duplicates(duplicates: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Give each duplicate what is known of its image; it costs nothing."""
    has_another_url = pl.col("image_key") != pl.col("first_key")
    empty = ("message", "http_status", "checked_at", *_WITHOUT_CALL)
    return (
        duplicates.select("row", "image_key", "canonical_key", "duplicate_of")
        .join(
            images.select("canonical_key", pl.col("image_key").alias("first_key"), *_COPIED),
            on="canonical_key",
            how="left",
        )
        .with_columns(
            pl.lit(Outcome.DUPLICATE.value).alias("outcome"),
            pl.when(has_another_url).then(pl.lit(SAME_CONTENT)).alias("reason"),
            *(pl.lit(None, SCHEMA[name]).alias(name) for name in empty),
        )
        .with_columns(*_without_call())
    )


_WITHOUT_CALL: dict[str, object] = {
    "attempts": 0,
    "billing": Billing.NONE.value,
    "run_cost_usd": 0.0,
    "lifetime_cost_usd": 0.0,
    "from_ledger": False,
}


def _without_call() -> list[pl.Expr]:
    """The values of a row for which no call was made."""
    return [pl.col(name).fill_null(pl.lit(value)) for name, value in _WITHOUT_CALL.items()]


def assemble(rows: pl.LazyFrame, outcome_rows: pl.LazyFrame) -> pl.LazyFrame:
    """The input's own columns, then their outcomes; both in input order: see `conservation`."""
    return pl.concat([rows, outcome_rows.select(*SCHEMA)], how="horizontal")
