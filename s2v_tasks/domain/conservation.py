"""Conservation: every input row comes out once, in order, with one outcome of the closed set. Pure."""

import polars as pl

from s2v_tasks.errors import DataIntegrityError
from s2v_tasks.models import Outcome


def check_conserved(outcome_rows: pl.DataFrame, rows: int, first: int = 0) -> dict[str, int]:
    """Check that each of some input rows has exactly one outcome; the number of rows with each.

    They are ``rows`` rows from the row ``first`` on, in order.

    Raises:
        DataIntegrityError: Rows are missing, doubled, out of order or without an outcome; the message names
            some.
    """
    numbers = outcome_rows["row"]
    wanted = pl.int_range(first, first + rows, eager=True).alias("row")
    if not numbers.equals(wanted):
        wrong = wanted.to_frame().join(outcome_rows, on="row", how="anti")["row"]
        doubled = numbers.filter(numbers.is_duplicated()).unique()
        some = ", ".join(map(str, [*wrong.head(5), *doubled.head(5)]))
        raise DataIntegrityError(
            f"{rows} rows went in and {outcome_rows.height} came out; wrong rows: {some or 'their order'}."
            f" {DataIntegrityError.ADVICE}"
        )
    counts = dict(outcome_rows.group_by("outcome").len().iter_rows())
    unexpected = set(counts) - {outcome.value for outcome in Outcome}
    if unexpected:
        known = pl.col("outcome").is_in(list(Outcome)).fill_null(value=False)
        rows_wrong = outcome_rows.filter(~known)["row"].head(5).to_list()
        raise DataIntegrityError(
            f"rows {rows_wrong} have no outcome of the closed set, but {sorted(map(str, unexpected))}."
            f" {DataIntegrityError.ADVICE}"
        )
    return {outcome.value: counts.get(outcome.value, 0) for outcome in Outcome}
