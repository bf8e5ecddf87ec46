"""Stage 5: one outcome for every input row. LazyFrame to LazyFrame; the schema is the contract."""

from collections.abc import Iterable
from dataclasses import astuple

import polars as pl

from s2v_tasks.candidates import PLACED_SCHEMA, compared
from s2v_tasks.errors import ConservationError
from s2v_tasks.ledger import RUN_STOPPED, usd
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
    "cost_usd": pl.Float64(),
    "paid_usd": pl.Float64(),
    "from_ledger": pl.Boolean(),
    "width_px": pl.Int64(),
    "height_px": pl.Int64(),
    "image_format": pl.String(),
    "image_traits": pl.String(),
    "judged_at": pl.Datetime("us", "UTC"),
}
"""The columns this project adds behind the input's own, in order."""

_SEEN = ("width_px", "height_px", "image_format", "image_traits")
SCREENED_SCHEMA: dict[str, pl.DataType] = {
    "image_key": pl.String(),
    "screen_reason": pl.String(),
    **{name: SCHEMA[name] for name in _SEEN},
    "content_key": pl.String(),
    "validator": pl.String(),
}
"""What the screen told, a row per picture looked at; ``screen_reason`` null: kept."""

SAME_SCHEMA: dict[str, pl.DataType] = {"image_key": pl.String(), "asked_key": pl.String()}
"""Pictures with the bytes of another, and the key of that one: they are asked by it."""

LOOKED_SCHEMA: dict[str, pl.DataType] = {
    **{name: dtype for name, dtype in PLACED_SCHEMA.items() if name != "url"},
    "screen_reason": pl.String(),
    **{name: SCHEMA[name] for name in _SEEN},
    "asked_key": pl.String(),
}
"""Rows with what the screen told of them; all with one ``asked_key`` are one picture."""

SAME_CONTENT = "same_content"
"""The reason of a duplicate that has another address than its first."""

_JUDGED = (
    "outcome", "reason", "check_pass", "humanoid", "code", "message", "request_id", "http_status",
    "attempts", "billing", "cost_usd", "paid_usd", "from_ledger", "judged_at",
)  # fmt: skip
JUDGED_SCHEMA: dict[str, pl.DataType] = {"image_key": pl.String(), **{name: SCHEMA[name] for name in _JUDGED}}
"""What the paid stage told, a row per picture."""

_CHARGES = ("attempts", "cost_usd", "paid_usd")
_COPIED = ("check_pass", "humanoid", "code", "request_id", *_SEEN)


def screened_frame(screened: Iterable[Screened]) -> pl.DataFrame:
    """Records of the screen as a frame of ``SCREENED_SCHEMA``."""
    return pl.DataFrame([astuple(s) for s in screened], schema=SCREENED_SCHEMA, orient="row")


def screened_records(frame: pl.DataFrame) -> list[Screened]:
    """A frame of ``SCREENED_SCHEMA`` as records."""
    return [Screened(*row) for row in frame.select(*SCREENED_SCHEMA).iter_rows()]


def kept(pictures: pl.DataFrame, screened: pl.DataFrame) -> pl.DataFrame:
    """The pictures that the screen kept, in order, with their ``content_key``.

    ``screened`` has the columns of ``SCREENED_SCHEMA``.
    """
    passed = screened.filter(pl.col("screen_reason").is_null()).select("image_key", "content_key")
    return pictures.join(passed, on="image_key", how="inner", maintain_order="left")


def last_told(judged: pl.DataFrame) -> pl.DataFrame:
    """What was told last of each picture: those with the same bytes tell of it one after the other.

    What it cost only grows.
    """
    return (
        judged.with_columns(pl.col(*_CHARGES).max().over("image_key"))
        .sort("judged_at", maintain_order=True)
        .unique("image_key", keep="last", maintain_order=True)
    )


def looked(placed: pl.LazyFrame, screened: pl.LazyFrame, same: pl.LazyFrame) -> pl.LazyFrame:
    """Placed rows with what the screen told of them and what they are asked by: ``LOOKED_SCHEMA``.

    ``placed`` is of `s2v_tasks.candidates.PLACED_SCHEMA`, ``same`` of ``SAME_SCHEMA``.
    """
    return (
        placed.join(screened, on="image_key", how="left")
        .join(same, on="image_key", how="left")
        .with_columns(pl.coalesce("asked_key", "image_key").alias("asked_key"))
        .select(*LOOKED_SCHEMA)
    )


def judged_frame(verdicts: Iterable[Verdict]) -> pl.DataFrame:
    """Records of the paid stage as a frame of ``JUDGED_SCHEMA``."""
    rows = [
        (
            v.image_key, v.outcome.value, v.reason, v.check_pass, v.humanoid, v.code, v.message,
            v.request_id, v.http_status, v.attempts, v.billing.value, usd(v.cost_micro_usd),
            usd(v.paid_micro_usd), v.from_ledger, v.judged_at,
        )
        for v in verdicts
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=JUDGED_SCHEMA, orient="row")


def outcomes(
    rows: pl.LazyFrame,
    judged: pl.LazyFrame,
    charged: pl.LazyFrame | None = None,
    *,
    unreached: str = RUN_STOPPED,
) -> pl.LazyFrame:
    """One row of ``SCHEMA`` for each row of ``LOOKED_SCHEMA``, in input order.

    All rows of a picture are among them. A picture that neither stage reached is ``unspent``, for the reason
    ``unreached``. ``charged`` (``JUDGED_SCHEMA``) holds what was charged before for pictures that were never
    answered: it counts even if this run screens them out.
    """
    charged = judged.clear() if charged is None else charged
    # What the screen refused does not stand for its copies, though they go by its key.
    has_copies = (pl.col("image_key") != pl.col("asked_key")).any().over("asked_key")
    stands_not = has_copies & pl.col("screen_reason").is_not_null()
    asked_key = pl.when(stands_not).then(pl.format("-{}", "image_key")).otherwise("asked_key")
    rows = compared(rows.with_columns(asked_key.alias("asked_key")), "asked_key")
    judged = judged.rename({"image_key": "asked_key", "reason": "judged_reason"})
    charged = charged.select(pl.col("image_key").alias("asked_key"), *_CHARGES)
    duplicate = pl.col("duplicate_of").is_not_null()
    # For its address, or by the screen: unless another run has had it judged since.
    refused = pl.coalesce("reason", pl.when(pl.col("outcome").is_null()).then("screen_reason"))
    unique = (
        rows.filter(~duplicate)
        .join(judged, on="asked_key", how="left")
        .join(charged, on="asked_key", how="left", suffix="_before")
        .with_columns(pl.coalesce(name, f"{name}_before") for name in _CHARGES)
        .with_columns(
            pl.when(refused.is_not_null())
            .then(pl.lit(Outcome.SCREENED_OUT.value))
            .otherwise(pl.col("outcome").fill_null(Outcome.UNSPENT.value))
            .alias("outcome"),
            pl.when(refused.is_null() & pl.col("outcome").is_null())
            .then(pl.lit(unreached))
            .otherwise(pl.coalesce(refused, "judged_reason"))
            .alias("reason"),
            *_free(),
        )
    )
    other_address = pl.col("image_key") != pl.col("first_key")
    copies = (
        rows.filter(duplicate)
        .select("row", "image_key", "asked_key", "duplicate_of")
        .join(
            unique.select("asked_key", pl.col("image_key").alias("first_key"), *_COPIED),
            on="asked_key",
            how="left",
        )
        .with_columns(
            pl.lit(Outcome.DUPLICATE.value).alias("outcome"),
            pl.when(other_address).then(pl.lit(SAME_CONTENT)).alias("reason"),
        )
        .with_columns(
            *(pl.lit(None, SCHEMA[name]).alias(name) for name in ("message", "http_status", "judged_at")),
            *(pl.lit(None, SCHEMA[name]).alias(name) for name in _FREE),
        )
        .with_columns(*_free())
    )
    typed = [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
    return pl.concat([unique.select(typed), copies.select(typed)]).sort("row")


_FREE: dict[str, object] = {
    "attempts": 0,
    "billing": Billing.NONE.value,
    "cost_usd": 0.0,
    "paid_usd": 0.0,
    "from_ledger": False,
}


def _free() -> list[pl.Expr]:
    """What holds for a row about which nobody was asked."""
    return [pl.col(name).fill_null(pl.lit(value)) for name, value in _FREE.items()]


def assemble(rows: pl.LazyFrame, outcome_rows: pl.LazyFrame) -> pl.LazyFrame:
    """The input's own columns, their outcomes behind them; both in input order: ``conserved`` sees to it."""
    return pl.concat([rows, outcome_rows.select(*SCHEMA)], how="horizontal")


def approved(verdicts: pl.LazyFrame, *, keep_duplicates: bool = False) -> pl.LazyFrame:
    """The rows to publish: each passed picture once, or with the duplicates of passed ones."""
    wanted = pl.col("outcome") == Outcome.PASSED.value
    if keep_duplicates:
        wanted |= (pl.col("outcome") == Outcome.DUPLICATE.value) & pl.col("check_pass")
    return verdicts.filter(wanted)


def conserved(outcome_rows: pl.DataFrame, rows: int, first: int = 0) -> dict[str, int]:
    """The number of rows with each outcome, after checking that each of some input rows has exactly one.

    These are ``rows`` rows from the row ``first`` on, and they are in order.

    Raises:
        ConservationError: Rows are missing, doubled, out of order or without an outcome; the message names
            some.
    """
    numbers = outcome_rows["row"]
    wanted = pl.int_range(first, first + rows, eager=True).alias("row")
    if not numbers.equals(wanted):
        wrong = wanted.to_frame().join(outcome_rows, on="row", how="anti")["row"]
        doubled = numbers.filter(numbers.is_duplicated()).unique()
        some = ", ".join(map(str, [*wrong.head(5), *doubled.head(5)]))
        raise ConservationError(
            f"{rows} rows went in and {outcome_rows.height} came out; wrong rows: {some or 'their order'}."
            f" {ConservationError.ADVICE}"
        )
    counts = dict(outcome_rows.group_by("outcome").len().iter_rows())
    strange = set(counts) - {outcome.value for outcome in Outcome}
    if strange:
        known = pl.col("outcome").is_in(list(Outcome)).fill_null(value=False)
        rows_wrong = outcome_rows.filter(~known)["row"].head(5).to_list()
        raise ConservationError(
            f"rows {rows_wrong} have no outcome of the closed set, but {sorted(map(str, strange))}."
            f" {ConservationError.ADVICE}"
        )
    return {outcome.value: counts.get(outcome.value, 0) for outcome in Outcome}
