"""Candidates from a database: a query's rows, fetched in batches into temporary parquet files.

From there on they are files like any others, so memory stays flat and no type is guessed from the first row.
The database's URL comes from ``S2V_SOURCE_URL`` only: it may hold a password.
"""

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from weakref import finalize

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from s2v_tasks.errors import InputError
from s2v_tasks.settings import Environment

BATCH_ROWS: Final = 50_000


class Query:
    """A query that may be asked: once, when its rows are wanted; they are kept as long as this is.

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

    def __str__(self) -> str:
        return f"{self._url.set(query={}).render_as_string(hide_password=True)}\0{self.text}"

    def scan(self) -> pl.LazyFrame:
        """The rows, fetched; what is null in one batch takes its type from the others.

        Raises:
            InputError: The database can't be asked that, or there are no rows.
        """
        if self._folder is None:
            self._folder = self._fetched()
        parts = [pl.scan_parquet(part, glob=False) for part in sorted(self._folder.iterdir())]
        return pl.concat(parts, how="vertical_relaxed")

    def _fetched(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="s2v-query-"))
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            with ThreadPoolExecutor(1) as pool:  # it may need an event loop of its own
                pool.submit(_ask, self.text, self._url, folder).result()
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever a driver raises)
            cause = getattr(error, "orig", None) or error
            words = " ".join(str(cause).split())[:300].replace(self._url.password or "\0", "***")
            raise InputError(
                f"the query can't be run ({type(cause).__name__}: {words}); mend it, or S2V_SOURCE_URL"
            ) from None
        return folder


def _url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except SQLAlchemyError:
        raise InputError("S2V_SOURCE_URL is no SQLAlchemy URL, such as postgresql://USER@HOST/DB") from None
    if url.drivername == "postgresql":  # the driver that is here anyway
        query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
        url = url.set(drivername="postgresql+asyncpg", query=query)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():  # it would be made
        raise InputError(f"S2V_SOURCE_URL names no database: there is no file {url.database}")
    return url


def _ask(query: str, url: sa.URL, folder: Path) -> None:
    if url.get_dialect().is_async:
        asyncio.run(_ask_async(query, url, folder))
        return
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            _written(query, connection, folder)
    finally:
        engine.dispose()


async def _ask_async(query: str, url: sa.URL, folder: Path) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: _written(query, sync, folder))
    finally:
        await engine.dispose()


def _written(query: str, connection: sa.Connection, folder: Path) -> None:
    """Nothing is committed: a query that writes leaves no trace."""
    query = query.replace(":", "\\:")  # as it is: no name after a colon is a parameter
    streamed = connection.execution_options(stream_results=True, max_row_buffer=BATCH_ROWS)
    batches = pl.read_database(
        query, streamed, iter_batches=True, batch_size=BATCH_ROWS, infer_schema_length=None
    )
    for number, batch in enumerate(batches):
        for name, dtype in batch.schema.items():
            if dtype == pl.Object:
                kind = type(batch[name].drop_nulls()[0]).__name__
                raise InputError(
                    f"column {name!r} of the query holds {kind}, which parquet does not know: cast it"
                )
        batch.write_parquet(folder / f"{number:06}.parquet")
    if not any(folder.iterdir()):
        raise InputError("the query gives no rows; there is nothing to curate")
