"""Ledger report: balances of calls and charges, and the reconciliation with the vendor's invoice. Pure."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import polars as pl

from s2v_tasks.domain.ledger import MICRO_USD, State

SCHEMA: Final[dict[str, pl.DataType]] = {
    "id": pl.Int64(),
    "run_id": pl.String(),
    "budget": pl.String(),
    "service": pl.String(),
    "account": pl.String(),
    "model": pl.String(),
    "image_key": pl.String(),
    "host": pl.String(),
    "state": pl.String(),
    "price_micro_usd": pl.Int64(),
    "reserved_at": pl.Datetime("us", "UTC"),
    "settled_at": pl.Datetime("us", "UTC"),
    "request_id": pl.String(),
    "http_status": pl.Int64(),
    "code": pl.String(),
}
"""One row per attempt, as exported; money in micro-USD."""

Grouping = Literal["run", "day", "model"]
GROUPINGS: Final[tuple[Grouping, ...]] = get_args(Grouping)
_KEYS: Final[dict[Grouping, pl.Expr]] = {
    "run": pl.col("run_id").alias("run"),
    "day": pl.col("reserved_at").dt.date().cast(pl.String).alias("day"),
    "model": pl.col("model"),
}


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The vendor's invoice compared with the ledger, in calls.

    ``only_invoice`` are charges whose responses were lost: the ledger counts each as ``unknown``. More of
    them than ``unknown`` are ``unexplained`` (another program on the account).
    """

    matched: int
    only_invoice: tuple[str, ...]
    only_ledger: tuple[str, ...]
    unknown: int

    @property
    def unexplained(self) -> int:
        """Charges on the invoice that no attempt of the ledger explains."""
        return max(0, len(self.only_invoice) - self.unknown)

    @property
    def agrees(self) -> bool:
        """Whether invoice and ledger agree."""
        return not self.unexplained and not self.only_ledger


def balance(attempts: pl.LazyFrame, grouping: Grouping) -> pl.LazyFrame:
    """Calls and charges by run, day (UTC) or model, in order.

    Columns: the group, ``calls``, one count per state, ``lifetime_cost_usd`` (billed) and ``unconfirmed_usd``
    (unknown and reserved, at full price).
    """
    state = pl.col("state")
    price_usd = pl.col("price_micro_usd")
    unconfirmed = state.is_in([State.UNKNOWN.value, State.RESERVED.value])
    return (
        attempts.group_by(_KEYS[grouping])
        .agg(
            pl.len().alias("calls"),
            *((state == s.value).sum().alias(s.value) for s in State),
            (price_usd.filter(state == State.BILLED.value).sum() / MICRO_USD).alias("lifetime_cost_usd"),
            (price_usd.filter(unconfirmed).sum() / MICRO_USD).alias("unconfirmed_usd"),
        )
        .sort(grouping)
    )


def reconcile(attempts: pl.DataFrame, invoiced: pl.Series) -> Reconciled:
    """Compare the vendor's request ids with the ledger's billed ones."""
    state = pl.col("state")
    billed = set(attempts.filter(state == State.BILLED.value)["request_id"].drop_nulls())
    invoice = set(invoiced.drop_nulls())
    unconfirmed = state.is_in([State.UNKNOWN.value, State.RESERVED.value])
    return Reconciled(
        matched=len(billed & invoice),
        only_invoice=tuple(sorted(invoice - billed)),
        only_ledger=tuple(sorted(billed - invoice)),
        unknown=attempts.filter(unconfirmed).height,
    )
