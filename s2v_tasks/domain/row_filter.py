"""The rows behind a number: those of some outcomes, reasons, segments and hosts."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from s2v_tasks.domain.by_source import source_columns
from s2v_tasks.domain.candidate_table import field_of
from s2v_tasks.errors import UsageError
from s2v_tasks.models import Outcome


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows are wanted: each criterion is any of its values; none: all.

    ``segments`` are values of the segment column as text, null is `s2v_tasks.domain.gate_rules.NO_SEGMENT`;
    ``hosts`` are in lower case, and `s2v_tasks.domain.by_source.NO_HOST`.
    """

    outcomes: Sequence[str] = ()
    reasons: Sequence[str] = ()
    segments: Sequence[str] = ()
    hosts: Sequence[str] = ()

    def check(self, segment_column: str | None) -> None:
        """Refuse what no row of a run could match.

        Raises:
            UsageError: There is no such outcome, or the run has no segments.
        """
        known = [outcome.value for outcome in Outcome]
        for outcome in self.outcomes:
            if outcome not in known:
                raise UsageError(f"--outcome: {', '.join(known)} (given: {outcome!r})")
        if self.segments and segment_column is None:
            raise UsageError(
                "--segment: this run has no segment column; filter by --host, or start a new run with"
                " --segment-column"
            )

    def apply(self, verdicts: pl.LazyFrame, url_column: str, segment_column: str | None) -> pl.LazyFrame:
        """The wanted rows, in their order and with their columns.

        Args:
            verdicts: The input's columns and those of `s2v_tasks.domain.verdict_table.SCHEMA`.
            url_column: The column with the URLs; may be a field of a struct, ``column.field``.
            segment_column: The column with the segments; None without one.
        """
        sources = source_columns(verdicts, url_column, segment_column)
        criteria = [
            (pl.col("outcome"), self.outcomes),
            (pl.col("reason"), self.reasons),
            (sources.get("segment", pl.lit(None, pl.String)), self.segments),
            (sources["host"], self.hosts),
        ]
        wanted = [column.is_in(list(values)) for column, values in criteria if values]
        return verdicts.filter(wanted) if wanted else verdicts  # polars 2.1 fails on a filter without any


def columns_of(rows: pl.LazyFrame, names: Sequence[str]) -> pl.LazyFrame:
    """Some columns, or ``column.field`` of a struct, each once, under the name it is given here.

    Raises:
        UsageError: There is none of a name.
    """
    schema, chosen = rows.collect_schema(), []
    for name in dict.fromkeys(names):
        column, dtype = field_of(name, schema)
        if dtype is None:
            raise UsageError(f"--columns: no column {name!r}; the rows have others: {', '.join(schema)}")
        chosen.append(column.alias(name))
    return rows.select(chosen)
