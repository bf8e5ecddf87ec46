"""Files, here or in an object store: whole or not at all, and the pointer to what is published."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from s2v_tasks.adapters.objects import ObjectPath, is_object_url, or_stores
from s2v_tasks.errors import S2VError, StorageUnavailable, UsageError
from s2v_tasks.publish import Publication, supersedes

Place = Path | ObjectPath
"""Where something is written: a local path, or one in an object store."""


def place(name: str | Place) -> Place:
    """The place that a path or a URL such as ``s3://bucket/path`` names.

    Raises:
        UsageError: The URL names no bucket, or is of a kind that can't be written.
    """
    if is_object_url(str(name)):
        return ObjectPath.of(str(name))
    scheme, separator, _ = str(name).partition("://")
    if separator:  # as a path it would be a folder here that nobody looks into
        raise UsageError(f"{scheme}:// can't be written; name a path, {or_stores()}")
    return Path(str(name)).resolve()


def parquet(*paths: Place) -> pl.LazyFrame:
    """The rows of parquet files, not read yet; brackets in a path are no pattern."""
    return pl.scan_parquet([str(path) for path in paths], glob=False)


@contextlib.contextmanager
def reaching(where: Place) -> Iterator[None]:
    """One line for what polars says when a run's file in a store can't be read."""
    try:
        yield
    except (pl.exceptions.ComputeError, OSError) as error:
        if isinstance(where, Path):
            raise
        raise StorageUnavailable(
            f"{where} can't be read ({type(error).__name__}); check the store and run the same command again"
        ) from None


def write_whole(path: Place, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then put it in place: whole and durable, or not at all."""
    if isinstance(path, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="s2v-") as folder:
            file = Path(folder) / "whole"
            write(file)
            path.put(file)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def filled(folder: Place) -> Iterator[Path]:
    """A local folder to fill; what is in it then is in ``folder``."""
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="s2v-") as temporary:
        yield Path(temporary)
        for file in sorted(path for path in Path(temporary).rglob("*") if path.is_file()):
            (folder / file.relative_to(temporary).as_posix()).put(file)


def subfolders(folder: Place) -> list[str]:
    """The names of the folders directly in a folder, which may not be there."""
    if isinstance(folder, ObjectPath):
        return folder.folders()
    return sorted(path.name for path in folder.glob("*/"))


def remove_below(folder: Place) -> None:
    """Remove a folder and all in it."""
    if isinstance(folder, ObjectPath):
        folder.remove_below()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Place, document: object) -> None:
    """A JSON file, whole or not at all. Numbers that are not finite are refused."""
    content = _json(document)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)


def _json(document: object) -> bytes:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return f"{text}\n".encode()


def sink(frame: pl.LazyFrame, path: Place) -> None:
    """A parquet file, whole or not at all, streamed."""
    write_whole(path, frame.sink_parquet)


def sha256(path: Place) -> str:
    """The hash of a file's content."""
    if isinstance(path, ObjectPath):
        digest = hashlib.sha256()
        for chunk in path.chunks():
            digest.update(chunk)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_pointer(out: Place) -> Publication | None:
    """What is published under ``out``, or None.

    Raises:
        S2VError: The pointer is there but can't be read.
    """
    path = pointer_path(out)
    try:
        return _publication(path, path.read_bytes())
    except FileNotFoundError:
        return None


def _publication(path: Place, content: bytes) -> Publication:
    try:
        return Publication.model_validate_json(content)
    except ValidationError:
        raise S2VError(f"{path} is no pointer of this program; move it away and publish again") from None


def pointer_path(out: Place) -> Place:
    """Where the pointer is."""
    return out / "published" / "current.json"


def publish(out: Place, publication: Publication) -> bool:
    """Move the pointer, atomically, unless a run that started later has published meanwhile."""
    path = pointer_path(out)
    if isinstance(path, ObjectPath):
        return _publish_object(path, publication)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not supersedes(publication, read_pointer(out)):
            return False
        write_json(path, publication.model_dump())
    return True


def _publish_object(path: ObjectPath, publication: Publication) -> bool:
    """The same without a lock: the store puts the pointer only over the one that was read just before."""
    content = _json(publication.model_dump())
    while True:
        current, tag = None, None
        with contextlib.suppress(FileNotFoundError):
            before, tag = path.read_tagged()
            current = _publication(path, before)
        if not supersedes(publication, current):
            return False
        if path.put_if(content, tag):
            return True


def sync(path: Path) -> None:
    """Make a file's content durable, or a folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
