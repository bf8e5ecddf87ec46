"""Candidates from a database: fetches a query's rows in batches into temporary parquet files.

The files are then read like any others, so memory stays flat and no type is guessed from the first row. The
database's URL comes from ``S2V_SOURCE_URL`` only: it may hold a password.
"""

import asyncio
import datetime as dt
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Final
from weakref import finalize

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from s2v_tasks.adapters.database.database_url import parse_url
from s2v_tasks.adapters.database.engines import create_engine
from s2v_tasks.adapters.database.patience import CLOSE_S
from s2v_tasks.adapters.library_errors import wrap_library_errors
from s2v_tasks.adapters.storage.schema_union import cast_to_schema, is_exact, lossy_columns, union_schema
from s2v_tasks.errors import InputError
from s2v_tasks.settings import Environment

BATCH_ROWS: Final = 50_000
_CHANGES: Final = re.compile(r"\s*(alter|create|drop|truncate|grant|revoke|vacuum)\b", re.IGNORECASE)


class Query:
    """A query that runs once, at the first ``scan``; its rows are kept as long as this object.

    Raises:
        InputError: The environment names no database.
    """

    def __init__(self, text: str) -> None:
        secret = Environment().source_url
        if secret is None:
            raise InputError("a query needs a database: set S2V_SOURCE_URL to its SQLAlchemy URL")
        self.text = text
        self._url = _url(secret.get_secret_value())
        self._folder: Path | None = None
        self._cancelled = threading.Event()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def __str__(self) -> str:
        return f"{self._url.set(query={}).render_as_string(hide_password=True)}\0{self.text}"

    def scan(self) -> pl.LazyFrame:
        """The fetched rows; a column that is null in one batch takes its type from the others.

        Raises:
            InputError: The query fails, or returns no rows.
        """
        if self._folder is None:
            self._folder = self._fetch()
        parts = [pl.scan_parquet(part, glob=False) for part in sorted(self._folder.iterdir())]
        schemas = [part.collect_schema() for part in parts]
        whole, bad = union_schema(schemas)
        lossy = (
            column
            for part, schema in zip(parts, schemas, strict=True)
            for column in lossy_columns(schema, whole)
            if not is_exact(part, column, whole)
        )
        if (column := bad[1] if bad else next(lossy, None)) is not None:
            raise InputError(f"column {column!r} of the query holds values without a common type: cast it")
        return pl.concat([cast_to_schema(part, whole) for part in parts], how="vertical")

    def _fetch(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="s2v-query-"))
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with wrap_library_errors(self._query_error), ThreadPoolExecutor(1) as pool:
            # In a thread, where it may run an event loop of its own.
            pool.submit(self._run, folder).result()
        return folder

    def cancel(self) -> None:
        """End the query, from any thread: a database that does not respond would hold up the process."""
        self._cancelled.set()
        if self._running is not None:
            loop, task = self._running
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)

    def _run(self, folder: Path) -> None:
        if self._url.get_dialect().is_async:
            asyncio.run(self._run_async(folder))
            return
        engine = sa.create_engine(self._url)
        try:
            with engine.connect() as connection:
                _write_rows(self.text, connection, folder)
        finally:
            engine.dispose()

    async def _run_async(self, folder: Path) -> None:
        task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]
        self._running = asyncio.get_running_loop(), task
        if self._cancelled.is_set():
            raise asyncio.CancelledError
        is_postgresql = self._url.drivername == "postgresql+asyncpg"
        engine = create_engine(self._url) if is_postgresql else create_async_engine(self._url)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(lambda sync: _write_rows(self.text, sync, folder))
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await engine.dispose()

    def _query_error(self, message: str) -> InputError:
        message = message.replace(self._url.password or "\0", "***")
        return InputError(f"the query can't be run ({message}); fix it, or S2V_SOURCE_URL")


def _url(text: str) -> sa.URL:
    url = parse_url(text, "S2V_SOURCE_URL", InputError)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        # connecting would create it
        raise InputError(f"S2V_SOURCE_URL names no database: there is no file {url.database}. Fix the URL")
    return url


def _write_rows(query: str, connection: sa.Connection, folder: Path) -> None:
    """Write the rows into ``folder``. The query's transaction is rolled back."""
    query = query.replace(":", "\\:")  # unchanged: a name after a colon is no parameter
    if _CHANGES.match(query):  # some databases commit these implicitly
        raise InputError("the query can't be run (it is no SELECT); fix it")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # else the driver begins a transaction only before a known write
    streamed = connection.execution_options(stream_results=True, max_row_buffer=BATCH_ROWS)
    result = streamed.execute(sa.text(query))
    if not result.returns_rows:
        raise InputError("the query can't be run (it is no SELECT); fix it")
    names = _names(result.keys())
    for number, rows in enumerate(result.partitions(BATCH_ROWS)):
        columns = zip(*rows, strict=True) if names else ()
        frame = pl.DataFrame([series(name, values) for name, values in zip(names, columns, strict=True)])
        frame.write_parquet(folder / f"{number:06}.parquet")
    if not any(folder.iterdir()):
        raise InputError("the query returns no rows, so there is nothing to curate. Fix the query")


def _names(keys: Iterable[str]) -> list[str]:
    names = list(keys)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the query returns two columns {twice!r}; rename one of them (AS ...)")
    return names


_KINDS: Final[tuple[tuple[type, ...], ...]] = (
    (bool,), (int,), (int, float), (Decimal,), (int, Decimal), (str,), (bytes,), (dt.date,), (dt.datetime,),
    (dt.time,), (dt.timedelta,), (list,), (dict,),
)  # fmt: skip
"""Sets of value types that one column can hold without a change of values."""
_EXACT: Final = 2**53


def series(name: str, values: Sequence[object]) -> pl.Series:
    """One column of a batch: every value unchanged, or an error; never a null instead.

    Raises:
        InputError: The values have no common type that parquet supports; names the column.
    """
    kinds = {bytes if issubclass(kind, memoryview | bytearray) else kind for kind in set(map(type, values))}
    kinds.discard(type(None))
    if not kinds:
        return pl.Series(name, values, dtype=pl.Null)
    if not any(kinds <= set(allowed) for allowed in _KINDS):
        shown = " and ".join(sorted(kind.__name__ for kind in kinds))
        what = "which parquet does not support" if len(kinds) == 1 else "which have no common type"
        raise InputError(f"column {name!r} of the query holds {shown}, {what}: cast it")
    if kinds == {int, float} and any(isinstance(v, int) and abs(v) > _EXACT for v in values):
        raise InputError(f"column {name!r} of the query holds fractions and whole numbers over 2^53: cast it")
    if Decimal in kinds and not all(Decimal(v).is_finite() for v in values if v is not None):  # type: ignore[arg-type]
        raise InputError(
            f"column {name!r} of the query holds a numeric NaN or infinity: cast it, or make it NULL"
        )
    plain = [bytes(v) if isinstance(v, memoryview | bytearray) else v for v in values]
    return pl.Series(name, plain, strict=len(kinds) == 1)
