"""Run folders of format 1, read by today's names: `NAMES` and `VALUES` are the one table.

The first version of this program wrote them, without a format number. Their parameters are read by
`s2v_tasks.settings.moved`. Pure; `s2v_tasks.adapters.storage.run_folder` reads the files.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import polars as pl

NAMES: Final[Mapping[str, str]] = {
    "cost_usd": "run_cost_usd",
    "paid_usd": "lifetime_cost_usd",
    "data_set_cost_usd": "dataset_cost_usd",
    "judged_at": "checked_at",
}
"""Columns of the verdicts, and keys of ``manifest.json``, ``current.json`` and ``gate.json``."""

VALUES: Final[Mapping[str, str]] = {
    "unspent": "skipped",
    "budget_spent": "budget_exhausted",
    "no_answer": "response_lost",
}
"""Outcomes, reasons, and the status of a run."""

_FACTS: Final = {**NAMES, **VALUES, "unspent_share": "skipped_share"}

_COLUMNS: Final = {old: new for old, new in NAMES.items() if old != "data_set_cost_usd"}


def document(old: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest, a pointer or a gate's report, by today's names; what has them already stays as it is."""
    new = {NAMES.get(name, name): value for name, value in old.items()}
    for name, renamed in (("gate", NAMES), ("counts", VALUES)):
        if isinstance(new.get(name), dict):
            new[name] = {renamed.get(key, key): value for key, value in new[name].items()}
    if isinstance(new.get("facts"), list):
        new["facts"] = [{_FACTS.get(key, key): value for key, value in fact.items()} for fact in new["facts"]]
    if isinstance(new.get("status"), str):
        new["status"] = VALUES.get(new["status"], new["status"])
    return new


def is_verdicts(columns: Collection[str]) -> bool:
    """Whether verdicts with these columns are of format 1."""
    return set(_COLUMNS) <= set(columns) and not set(_COLUMNS.values()) <= set(columns)


def clashing(columns: Collection[str]) -> list[str]:
    """Columns of the input that are named as today's program names its own."""
    return sorted(set(_COLUMNS.values()) & set(columns))


def verdicts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Verdicts by today's names, of `s2v_tasks.domain.verdict_table.SCHEMA`; nothing is read here."""
    values = pl.col("outcome", "reason").replace(dict(VALUES))
    return rows.rename(_COLUMNS).with_columns(values)
