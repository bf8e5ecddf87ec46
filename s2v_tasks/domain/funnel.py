"""Funnel: the steps from candidates to approved images, as people see them; each row is in one.

A step is an outcome, but two outcomes are two steps each: what a rule of the face check dropped is apart from
what the screen rejected, and what was left out as hopeless apart from what was not reached.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain import faces
from s2v_tasks.domain.ledger import HOPELESS
from s2v_tasks.models import Outcome

DROPPED: Final = "dropped"

_APART: Final[Mapping[str, tuple[Outcome, tuple[str, ...]]]] = {
    DROPPED: (Outcome.SCREENED_OUT, tuple(faces.BUCKET_OF)),
    HOPELESS: (Outcome.SKIPPED, (HOPELESS,)),
}
"""The steps that are a part of an outcome: the rows with some of its reasons."""

UNCHECKED: Final = (Outcome.DUPLICATE.value, Outcome.SCREENED_OUT.value, DROPPED)
"""The steps before the check."""
ENDS: Final = (
    Outcome.PASSED.value, Outcome.FAILED.value, Outcome.ERROR.value, Outcome.UNKNOWN.value,
    Outcome.SKIPPED.value, HOPELESS,
)  # fmt: skip
"""The steps after it."""
_LABELS: Final = {
    Outcome.DUPLICATE.value: "duplicates",
    Outcome.SCREENED_OUT.value: "screened out for free",
    DROPPED: "dropped by the face check",
    Outcome.PASSED.value: "passed",
    Outcome.FAILED.value: "failed",
    Outcome.ERROR.value: "errors",
    Outcome.UNKNOWN.value: "unknown (response lost)",
    Outcome.SKIPPED.value: "skipped",
    HOPELESS: "left out as hopeless",
}
_SAYS_WHY: Final = (Outcome.UNKNOWN.value, HOPELESS)
_RARE: Final = (DROPPED, Outcome.UNKNOWN.value, Outcome.SKIPPED.value, HOPELESS)


@dataclass(frozen=True, slots=True)
class Step:
    """A step and its rows; ``reasons``: of these rows, most frequent first, unless the step says as much."""

    key: str
    label: str
    rows: int
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def is_shown(self) -> bool:
        """Whether a table needs it: few runs have the rare steps."""
        return bool(self.rows) or self.key not in _RARE


def step() -> pl.Expr:
    """The step of each row, of the columns ``outcome`` and ``reason``."""
    found = pl.col("outcome")
    for key in _APART:
        found = pl.when(_is(key)).then(pl.lit(key)).otherwise(found)
    return found.alias("step")


def outcome_of(key: str) -> str:
    """The outcome of a step's rows."""
    return _APART[key][0].value if key in _APART else key


def own_reasons(key: str, reasons: Iterable[str]) -> list[str]:
    """The reasons that tell a step's rows from others of its outcome; none: all of the outcome are its.

    ``reasons``: all that rows of the outcome have.
    """
    if key in _APART:
        return [reason for reason in reasons if reason in _APART[key][1]]
    apart = {reason for outcome, some in _APART.values() if outcome == key for reason in some}
    found = [*reasons]
    return [reason for reason in found if reason not in apart] if apart.intersection(found) else []


def is_dropped() -> pl.Expr:
    """Whether a rule of the face check dropped the row's image."""
    return _is(DROPPED)


def steps_of(counts: pl.DataFrame) -> dict[str, Step]:
    """Every step by its key, of a frame with the columns ``outcome``, ``reason`` and ``rows``."""
    by_reason = counts.group_by(step(), "reason").agg(pl.col("rows").sum())
    rows = dict(by_reason.group_by("step").agg(pl.col("rows").sum()).iter_rows())
    named = by_reason.drop_nulls("reason").filter(~pl.col("step").is_in(_SAYS_WHY))
    named = named.sort("rows", "reason", descending=[True, False])
    return {
        key: Step(key, label, rows.get(key, 0), tuple(named.filter(step=key).select("reason", "rows").rows()))
        for key, label in _LABELS.items()
    }


def _is(key: str) -> pl.Expr:
    outcome, reasons = _APART[key]
    return (pl.col("outcome") == outcome.value) & pl.col("reason").is_in(reasons).fill_null(value=False)
