"""Portable types: which column types pyarrow and pandas can read from published parquet files."""

import io
from typing import Final

import polars as pl

from s2v_tasks.adapters.library_errors import LIBRARY_ERRORS
from s2v_tasks.errors import InputError

_PLAIN: Final = (
    pl.String, pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64,
    pl.Float32, pl.Float64, pl.Date, pl.Binary,
)  # fmt: skip
"""Every reader supports these; they are not tried."""


def check_portable(schema: pl.Schema) -> None:
    """Write a file of each column's type, and read it with pyarrow and pandas.

    Raises:
        InputError: pyarrow or pandas can't read a type; names the column.
    """
    for name, dtype in schema.items():
        if dtype not in _PLAIN and not _is_portable(dtype):
            raise InputError(
                f"column {name!r} holds {dtype}, which pyarrow or pandas can't read from parquet;"
                " cast it, or leave it out"
            )


def _is_portable(dtype: pl.DataType) -> bool:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    if any(isinstance(inner, pl.Decimal) and (inner.precision or 0) > 38 for inner in _nested_types(dtype)):
        return False  # polars panics over these and prints a backtrace
    try:
        content = io.BytesIO()
        pl.DataFrame({"x": pl.Series([None], dtype=dtype)}).write_parquet(content)
        content.seek(0)
        pq.read_table(content).to_pandas()
    except LIBRARY_ERRORS:
        return False
    return True


def _nested_types(dtype: object) -> list[object]:
    """A type and all that is nested in it."""
    if isinstance(dtype, pl.List | pl.Array):
        return [dtype, *_nested_types(dtype.inner)]
    if isinstance(dtype, pl.Struct):
        return [dtype, *(inner for field in dtype.fields for inner in _nested_types(field.dtype))]
    return [dtype]
