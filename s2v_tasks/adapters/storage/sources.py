"""Reads candidates from files, object stores, datasets on Hugging Face and databases."""

import contextlib
import glob
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Final

import polars as pl

from s2v_tasks.adapters.library_errors import wrap_library_errors
from s2v_tasks.adapters.storage.csv_check import BLOCK_BYTES, count_records
from s2v_tasks.adapters.storage.listing import (
    READERS,
    SourceItem,
    find,
    fingerprint,
    item_name,
    normalize_path,
    partitions,
    suffix,
)
from s2v_tasks.adapters.storage.object_store import StoredObject, is_object_url
from s2v_tasks.adapters.storage.query import Query
from s2v_tasks.adapters.storage.schema_union import cast_to_schema, is_exact, lossy_columns, union_schema
from s2v_tasks.errors import InputError, StorageUnavailable

__all__ = [
    "check_records",
    "find",
    "fingerprint",
    "normalize_path",
    "scan",
    "schema",
    "schemas",
    "wrap_read_errors",
]

_AT_ONCE: Final = 8
_BOM: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def scan(found: list[SourceItem], candidates: str = "") -> pl.LazyFrame:
    """Scan source items of one kind lazily, in their order.

    CSV values stay text ("007" must not become 7). Files may differ in their columns and types.
    ``candidates``, as given to ``find``, tells which folder names are Hive partitions.

    Raises:
        InputError: The files can't be read as one table without loss; names the file and the column.
    """
    kind = READERS[suffix(found[0])]
    if isinstance(found[0], Query):
        return found[0].scan()
    if isinstance(found[0], str):
        return _read(kind, [found[0]], pattern=True)
    whole = _united_schema(found, candidates)
    own = schemas(found, candidates)
    columns = [partitions(one, candidates) for one in found]
    groups = groupby(range(len(found)), key=lambda number: (tuple(own[number].items()), columns[number]))
    parts = [_part(kind, found, list(numbers), whole, columns) for _, numbers in groups]
    return pl.concat(parts, how="vertical")


def _part(
    kind: str,
    found: list[SourceItem],
    numbers: list[int],
    whole: pl.Schema,
    columns: list[dict[str, str | None]],
) -> pl.LazyFrame:
    """The rows of files with the same columns, cast to the schema of all files."""
    named = columns[numbers[0]]
    rows = _read(kind, [item_name(found[number]) for number in numbers], whole=whole)
    new = [name for name in named if name not in rows.collect_schema() or kind == "ndjson"]
    values = [pl.lit(named[name], pl.String).alias(name) for name in new]
    return cast_to_schema(rows.with_columns(values) if values else rows, whole)


def schemas(found: list[SourceItem], candidates: str = "") -> list[pl.Schema]:
    """The columns of each file, its Hive partition columns included."""

    def own(one: SourceItem) -> pl.Schema:
        with wrap_read_errors(item_name(one)):
            _read(READERS[suffix(one)], [item_name(one)])  # raises if it can't be read by that name
            _check_encoding(one)
            columns = _schema(READERS[suffix(one)], item_name(one), fingerprint([one]))
        named = dict.fromkeys(partitions(one, candidates), pl.String())
        return pl.Schema({**columns, **{name: dtype for name, dtype in named.items() if name not in columns}})

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(own, found))


@lru_cache(maxsize=100_000)
def _schema(kind: str, name: str, _fingerprint: str) -> pl.Schema:
    """Cached, because NDJSON must be read whole for its schema."""
    return _read(kind, [name]).collect_schema()


def schema(found: list[SourceItem], candidates: str = "") -> pl.Schema | None:
    """The columns of source items; None for a query, which runs only when a run starts.

    Raises:
        InputError: See ``scan``.
    """
    return None if isinstance(found[0], Query) else scan(found, candidates).collect_schema()


def _united_schema(found: list[SourceItem], candidates: str) -> pl.Schema:
    own = schemas(found, candidates)
    whole, bad = union_schema(own)
    if bad is not None:
        number, column = bad
        other = next(n for n, one in enumerate(own) if one.get(column, pl.Null()) != pl.Null)
        raise InputError(
            f"{item_name(found[number])}: column {column!r} holds {own[number][column]},"
            f" in {item_name(found[other])} it holds {own[other][column]}:"
            " no type holds both without loss. Cast one"
        )
    for one, columns in zip(found, own, strict=True):
        for column in lossy_columns(columns, whole):
            rows = _read(READERS[suffix(one)], [item_name(one)])
            with wrap_read_errors(item_name(one)):
                exact = is_exact(rows, column, whole)
            if not exact:
                raise InputError(
                    f"{item_name(one)}: column {column!r} holds whole numbers of more than 53 bits, other"
                    " files hold fractions: no type holds both without loss. Cast one"
                )
    return whole


def _read(
    kind: str, names: list[str], *, pattern: bool = False, whole: pl.Schema | None = None
) -> pl.LazyFrame:
    """Scan files of one schema. NDJSON has no schema, so it takes the schema of all files."""
    if kind == "parquet":
        return pl.scan_parquet(names[0] if pattern else names, glob=pattern)
    if kind == "csv":
        return pl.scan_csv(names[0] if pattern else names, infer_schema=False, glob=pattern)
    if not pattern:
        unreadable = next((name for name in names if is_object_url(name) and glob.has_magic(name)), None)
        if unreadable is not None:
            raise InputError(
                f"{unreadable}: NDJSON in a store can't be read by a name with *, ? or [; rename it"
            )
        names = [glob.escape(_without_bom(name)) for name in names]
    return pl.scan_ndjson(names, schema=whole, infer_schema_length=None)


def _check_encoding(one: SourceItem) -> None:
    """Refuse a text file that is no UTF-8 with line feeds; the reader's own error would mislead."""
    if READERS[suffix(one)] == "parquet":
        return
    head = next(_chunks(one), b"")
    wrong = None
    if head.startswith(_UTF_16) or b"\x00" in head[:4096].split(b"\n")[0]:
        wrong = "it is UTF-16 or UTF-32; save it as UTF-8"
    elif b"\r" in head and b"\n" not in head:
        wrong = "its lines end with a carriage return alone; end them with \\n or \\r\\n"
    elif isinstance(one, StoredObject) and head.startswith(_BOM) and READERS[suffix(one)] == "ndjson":
        wrong = "it begins with a byte order mark; save it without one"
    if wrong is not None:
        raise InputError(f"can't read {item_name(one)}: {wrong}")


def _without_bom(name: str) -> str:
    """The path of an NDJSON file, or of its copy without the byte order mark, which the reader refuses."""
    path = Path(name)
    if is_object_url(name) or not path.is_file():
        return name
    with path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            return name
    return _copied(name, fingerprint([path]))


@lru_cache(maxsize=10_000)
def _copied(name: str, fingerprint_: str) -> str:
    copy = Path(_copies().name) / hashlib.sha256(fingerprint_.encode()).hexdigest()
    with Path(name).open("rb") as file, copy.open("wb") as without:
        file.seek(len(_BOM))
        shutil.copyfileobj(file, without)
    return str(copy)


@cache
def _copies() -> "tempfile.TemporaryDirectory[str]":
    """The folder of copies. It lives as long as the process: rows are read lazily, and more than once."""
    return tempfile.TemporaryDirectory(prefix="s2v-text-")


def check_records(found: list[SourceItem]) -> int | None:
    """Count the records of CSV files by a strict check; None: other files hold their row count.

    Raises:
        InputError: The records of a file are ambiguous; names the file and the line.
    """
    if isinstance(found[0], Query) or READERS[suffix(found[0])] != "csv":
        return None
    return sum(count_records(_chunks(one), item_name(one)) for one in found)


def _chunks(one: SourceItem) -> Iterator[bytes]:
    if isinstance(one, StoredObject):
        yield from one.path.chunks()
    elif isinstance(one, Path):
        with one.open("rb") as file:
            while chunk := file.read(BLOCK_BYTES):
                yield chunk
    else:
        for batch in pl.scan_lines(str(one)).collect_batches(maintain_order=True):
            yield "\n".join([*batch.to_series(), ""]).encode()


def first_unreadable(found: list[SourceItem], candidates: str) -> str:
    """The first of several files that can't be read; ``candidates`` if each can be read alone."""
    if len(found) > 1:
        for one in found:
            try:
                scan([one]).select(pl.all().null_count()).collect(engine="streaming")
            except (pl.exceptions.PolarsError, OSError):
                return item_name(one)
    return candidates


@contextlib.contextmanager
def wrap_read_errors(candidates: str, found: Iterable[SourceItem] = ()) -> Iterator[None]:
    """Turn a library's error about an unreadable file, or a failed copy, into an ``InputError``."""

    def input_error(message: str) -> InputError:
        return InputError(
            f"can't read {first_unreadable(list(found), candidates)}: {message};"
            " check the file (or the access to its store), and the space in OUT and TMPDIR"
        )

    try:
        with wrap_library_errors(input_error):
            yield
    except StorageUnavailable as error:  # nothing was sent yet, as with an output that can't be used
        raise InputError(error.message) from None
