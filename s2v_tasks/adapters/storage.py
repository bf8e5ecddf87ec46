"""Files: reading candidates, writing whole files or none, and the pointer to what is published."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import ValidationError

from s2v_tasks.errors import InputError, S2VError
from s2v_tasks.publish import Publication, supersedes

_READERS: Final[dict[str, str]] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv",
    ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip


def find(candidates: str) -> list[Path]:
    """The files that a path or a glob names, sorted.

    Raises:
        InputError: There are none, or they are of different or unknown kinds.
    """
    paths = [Path(candidates)] if Path(candidates).is_file() else []
    paths = paths or [Path(p) for p in sorted(_glob(candidates)) if Path(p).is_file()]
    if not paths:
        raise InputError(f"no such file: {candidates}; name a parquet, csv or ndjson file, or a glob of them")
    kinds = {_READERS.get(path.suffix.lower()) for path in paths}
    if len(kinds) > 1 or None in kinds:
        endings = ", ".join(sorted({path.suffix or "(none)" for path in paths}))
        raise InputError(
            f"can't read {candidates} (ending: {endings}); files must all be"
            " .parquet, .csv or .ndjson (.jsonl)"
        )
    return paths


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute pattern)


def scan(paths: list[Path]) -> pl.LazyFrame:
    """The rows of some files of one kind, in order of the files, not read yet.

    CSV values stay the text they are ("007" must not become 7).
    """
    kind = _READERS[paths[0].suffix.lower()]
    if kind == "parquet":
        return parquet(*paths)
    if kind == "csv":
        return pl.scan_csv(paths, infer_schema=False, glob=False)
    return pl.scan_ndjson([glob.escape(str(path)) for path in paths], infer_schema_length=None)


def parquet(*paths: Path) -> pl.LazyFrame:
    """The rows of parquet files, not read yet; brackets in a path are no pattern."""
    return pl.scan_parquet(list(paths), glob=False)


@contextlib.contextmanager
def reading(candidates: str) -> Iterator[None]:
    """Turn what polars says about a file that it can't read into one line."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"can't read {candidates}: {line[:300]}; check that it is the kind of file its ending says"
        ) from None


def fingerprint(paths: list[Path]) -> str:
    """A hash that changes when a file is replaced, grows, or is written again."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then put it in place: whole and durable, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: object) -> None:
    """A JSON file, whole or not at all. Numbers that are not finite are refused."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)

    def write(temporary: Path) -> None:
        temporary.write_text(text + "\n", "utf-8")

    write_whole(path, write)


def sink(frame: pl.LazyFrame, path: Path) -> None:
    """A parquet file, whole or not at all, streamed."""
    write_whole(path, frame.sink_parquet)


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_pointer(out: Path) -> Publication | None:
    """What is published under ``out``, or None.

    Raises:
        S2VError: The pointer is there but can't be read.
    """
    path = pointer_path(out)
    try:
        return Publication.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise S2VError(f"{path} is no pointer of this program; move it away and publish again") from None


def pointer_path(out: Path) -> Path:
    """Where the pointer is."""
    return out / "published" / "current.json"


def publish(out: Path, publication: Publication) -> bool:
    """Move the pointer, atomically, unless a run that started later has published meanwhile."""
    path = pointer_path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not supersedes(publication, read_pointer(out)):
            return False
        write_json(path, publication.model_dump())
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
