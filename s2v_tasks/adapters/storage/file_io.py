"""File IO: atomic writes, local or in an object store."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import polars as pl
from polars.io.plugins import register_io_source

from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.library_errors import LIBRARY_ERRORS, error_line
from s2v_tasks.adapters.storage import local_files
from s2v_tasks.adapters.storage.local_files import FULL, temporary_dir, wrap_write_errors
from s2v_tasks.adapters.storage.object_store import ObjectPath, is_object_url, or_stores
from s2v_tasks.adapters.storage.store_errors import store_cause
from s2v_tasks.domain import format_1
from s2v_tasks.errors import S2VError, StorageUnavailable, UsageError
from s2v_tasks.models import FORMAT

StoragePath = Path | ObjectPath
"""A local path, or a path in an object store."""
_DAMAGED = "parquet:"
"""How polars begins what it says of a parquet file's content (2.1)."""


def parse_path(name: str | StoragePath) -> StoragePath:
    """Parse a local path, ``~`` included, or a URL such as ``s3://bucket/path``.

    Raises:
        UsageError: The URL names no bucket, or its scheme can't be written.
    """
    if is_object_url(str(name)):
        return ObjectPath.of(str(name))
    scheme, separator, _ = str(name).partition("://")
    if separator:  # as a path it would silently become a local folder
        raise UsageError(f"{scheme}:// can't be written; name a path, {or_stores()}")
    return Path(expanded(str(name))).resolve()


def parquet(*paths: StoragePath) -> pl.LazyFrame:
    """Scan parquet files lazily; brackets in a path are no pattern."""
    return pl.scan_parquet([str(path) for path in paths], glob=False)


@contextlib.contextmanager
def wrap_storage_errors(where: StoragePath) -> Iterator[None]:
    """Turn an error about a run's files into one line: a store, a full disk, a damaged parquet file."""
    if isinstance(where, Path):
        try:
            with wrap_write_errors(where, FULL):
                yield
        except pl.exceptions.ComputeError as error:
            if not str(error).startswith(_DAMAGED):
                raise
            raise UsageError(
                f"{where}: a file is damaged ({error_line(error)}); restore it from a copy"
            ) from None
        return
    try:
        yield
    except S2VError:
        raise
    except LIBRARY_ERRORS as error:
        cause, fix = store_cause(error)
        raise StorageUnavailable(f"{where} can't be read ({cause}); {fix}") from None


def write_whole(path: StoragePath, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then move it to ``path``: atomic and durable."""
    if isinstance(path, ObjectPath):
        with temporary_dir() as folder:
            with wrap_write_errors(folder / "whole", FULL):
                write(folder / "whole")
            path.put(folder / "whole")
    else:
        local_files.write_whole(path, write)


def move_whole(file: Path, path: StoragePath) -> None:
    """Move a local file to ``path``, atomically."""

    def write(temporary: Path) -> None:
        shutil.move(file, temporary)

    write_whole(path, write)


@contextlib.contextmanager
def staged_dir(folder: StoragePath) -> Iterator[Path]:
    """A local folder for the block; afterwards its files are in ``folder``, uploaded if in a store."""
    if isinstance(folder, Path):
        yield folder
        return
    with temporary_dir() as temporary:
        yield temporary
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            (folder / file.relative_to(temporary).as_posix()).put(file)


def subfolders(folder: StoragePath) -> list[str]:
    """The names of the folders directly in a folder; none if it does not exist."""
    if isinstance(folder, ObjectPath):
        return folder.folders()
    return sorted(path.name for path in folder.glob("*/"))


def file_names(folder: StoragePath) -> list[str]:
    """The names of the files directly in a folder, sorted."""
    if isinstance(folder, ObjectPath):
        return [stored.path.name for stored in folder.below() if stored.path.parent == folder]
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def remove_below(folder: StoragePath) -> None:
    """Remove a folder with its content."""
    if isinstance(folder, ObjectPath):
        folder.remove_below()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: StoragePath, document: object) -> None:
    """Write a JSON file, atomically; a number that is not finite raises ``ValueError``."""
    content = json_bytes(document)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)


def json_bytes(document: object) -> bytes:
    """A JSON file's content; a number that is not finite raises ``ValueError``."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return f"{text}\n".encode()


def sink(
    frame: pl.LazyFrame,
    path: StoragePath,
    write_frame: Callable[[pl.LazyFrame, BinaryIO], object] = pl.LazyFrame.sink_parquet,
) -> None:
    """Stream a frame into a file, as parquet if ``write_frame`` is no other sink of polars, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a path polars opens in a thread, even after the query has failed
            write_frame(frame, file)

    write_whole(path, write)


def sink_frames(frames: Iterator[pl.DataFrame], path: StoragePath) -> None:
    """Stream frames of one schema, at least one, into a parquet file, atomically."""
    first = next(frames)

    def source(
        _columns: list[str] | None, _predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        yield first
        yield from frames

    sink(register_io_source(source, schema=first.schema), path)


def sha256(path: StoragePath) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    if isinstance(path, ObjectPath):
        digest = hashlib.sha256()
        for chunk in path.chunks():
            digest.update(chunk)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_todays_format(path: StoragePath, content: bytes) -> bytes:
    """The content of a manifest or a pointer, of whatever format; what is no JSON is left to its validation.

    Raises:
        UsageError: Its format is newer than this program's.
    """
    try:
        document = json.loads(content)
        found = document.get("format", 1)
    except (ValueError, AttributeError):
        return content
    if isinstance(found, int) and found > FORMAT:
        raise UsageError(
            f"{path} was written by a newer s2v-tasks (format {found}, supported: {FORMAT})."
            " Upgrade s2v-tasks"
        )
    return json.dumps(format_1.document(document)).encode() if found == 1 else content
