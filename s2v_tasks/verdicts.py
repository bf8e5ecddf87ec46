"""Stage 5: one outcome for every input row. LazyFrame to LazyFrame; the schema is the contract."""

import polars as pl

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
    "judged_at": pl.Datetime("us", "UTC"),
}
"""The columns this project adds behind the input's own, in order."""
