"""A finished run in a few numbers, for people: the funnel from candidates to approved pictures."""

from dataclasses import dataclass

import polars as pl

from s2v_tasks.ledger import MICRO_USD, usd
from s2v_tasks.models import ATTEMPTED, Outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """The funnel. Counts are rows; ``reasons`` are (outcome, reason, rows), most frequent first; USD."""

    rows: int
    duplicates: int
    screened_out: int
    known: int
    judged: int
    passed: int
    failed: int
    error: int
    unknown: int
    unspent: int
    reasons: tuple[tuple[str, str, int], ...]
    cost_usd: float
    data_set_cost_usd: float

    @property
    def cost_per_approved_usd(self) -> float | None:
        """What one approved picture cost, over all runs; None if there is none."""
        return self.data_set_cost_usd / self.passed if self.passed else None

    @property
    def pass_rate(self) -> float | None:
        """Passed of attempted; None if nothing was attempted."""
        attempted: int = sum(getattr(self, outcome) for outcome in ATTEMPTED)
        return self.passed / attempted if attempted else None

    def reasons_of(self, outcome: Outcome) -> list[tuple[str, int]]:
        """The reasons of one outcome and their rows."""
        return [(reason, rows) for of, reason, rows in self.reasons if of == outcome]


def tallied(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """Add up rows of `s2v_tasks.verdicts.SCHEMA`: a row per outcome, reason and source; whole micro-USD."""
    micro = [(pl.col(name) * MICRO_USD).round().cast(pl.Int64).sum() for name in ("cost_usd", "paid_usd")]
    return verdicts.group_by("outcome", "reason", "from_ledger").agg(pl.len().alias("rows"), *micro)


def summarise(tallies: pl.DataFrame) -> Summary:
    """The funnel, of what ``tallied`` gave."""
    counts = dict(tallies.group_by("outcome").agg(pl.col("rows").sum()).iter_rows())
    reasons = (
        tallies.filter(pl.col("reason").is_not_null())
        .group_by("outcome", "reason")
        .agg(pl.col("rows").sum())
        .sort("rows", "outcome", "reason", descending=[True, False, False])
    )
    attempted = sum(counts.get(outcome, 0) for outcome in ATTEMPTED)
    known = int(tallies.filter("from_ledger")["rows"].sum())
    return Summary(
        rows=int(tallies["rows"].sum()),
        duplicates=counts.get(Outcome.DUPLICATE, 0),
        screened_out=counts.get(Outcome.SCREENED_OUT, 0),
        known=known,
        judged=attempted - known,
        passed=counts.get(Outcome.PASSED, 0),
        failed=counts.get(Outcome.FAILED, 0),
        error=counts.get(Outcome.ERROR, 0),
        unknown=counts.get(Outcome.UNKNOWN, 0),
        unspent=counts.get(Outcome.UNSPENT, 0),
        reasons=tuple(reasons.iter_rows()),
        cost_usd=usd(int(tallies["cost_usd"].sum())),
        data_set_cost_usd=usd(int(tallies["paid_usd"].sum())),
    )


def markdown(summary: Summary, headline: str, *, gate: str, rate: str) -> str:
    """The same for a page: a table of the funnel, the gate in words, the rate and where it is from."""
    per_approved = summary.cost_per_approved_usd
    rows = [
        ("candidates", summary.rows),
        ("duplicates", summary.duplicates),
        ("screened out for free", summary.screened_out),
        ("known from earlier runs", summary.known),
        ("judged now", summary.judged),
        ("**passed**", summary.passed),
        ("failed", summary.failed),
        ("errors", summary.error),
        ("unknown (answer lost)", summary.unknown),
        ("unspent", summary.unspent),
    ]
    table = "\n".join(f"| {label} | {count:,} |" for label, count in rows)
    price = f"USD {per_approved:.6f}" if per_approved is not None else "-"
    return (
        f"## {headline}\n\n| | rows |\n| --- | ---: |\n{table}\n\n"
        f"**Cost** this run USD {summary.cost_usd:.6f}, data set over all runs"
        f" USD {summary.data_set_cost_usd:.6f}, per approved picture {price}.\n\n"
        f"**{gate}**\n\n**Pace** {rate}\n"
    )
