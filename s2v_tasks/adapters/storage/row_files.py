"""Row files: writes rows as CSV, parquet or NDJSON, whole or not at all."""

from collections.abc import Callable
from typing import Any, BinaryIO, Final

import polars as pl

from s2v_tasks.adapters.library_errors import wrap_library_errors
from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.errors import UsageError

_WRITERS: Final[dict[str, Callable[[pl.LazyFrame, BinaryIO], Any]]] = {
    ".csv": pl.LazyFrame.sink_csv,
    ".parquet": pl.LazyFrame.sink_parquet,
    ".ndjson": pl.LazyFrame.sink_ndjson,
    ".jsonl": pl.LazyFrame.sink_ndjson,
}


def check_target(path: StoragePath, rows: pl.LazyFrame) -> None:
    """Refuse a file that could not hold these rows.

    Raises:
        UsageError: Its ending is unknown, or it would be a CSV with nested columns.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"--to: the file's name must end in {', '.join(_WRITERS)} (given: {path.name!r})")
    nested = [name for name, dtype in rows.collect_schema().items() if dtype.is_nested()]
    if path.suffix == ".csv" and nested:
        raise UsageError(
            f"--to: a CSV can't hold the nested column {nested[0]!r}; write .parquet or .ndjson, or choose"
            " other --columns"
        )


def write_rows(rows: pl.LazyFrame, path: StoragePath) -> None:
    """Stream rows into a file, by its ending; an existing one is replaced.

    Raises:
        UsageError: See `check_target`; or the rows hold what the kind of file can't.
        StorageUnavailable: The file can't be written, or the rows can't be read from their store.
    """
    check_target(path, rows)

    def write(rows: pl.LazyFrame, file: BinaryIO) -> None:
        with wrap_library_errors(lambda m: UsageError(f"{path} can't be written ({m}); try .parquet")):
            _WRITERS[path.suffix](rows, file)

    file_io.sink(rows, path, write)
