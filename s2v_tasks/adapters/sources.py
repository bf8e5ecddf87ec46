"""Where candidates come from: files, folders, globs, object stores, data sets on Hugging Face, databases."""

import contextlib
import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import polars as pl

from s2v_tasks.adapters.objects import ObjectPath, Stored, is_object_url, or_stores
from s2v_tasks.adapters.query import Query
from s2v_tasks.errors import InputError

QUERY: Final = "sql:"
HUGGING_FACE: Final = "hf://"
_READERS: Final[dict[str, str]] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv",
    ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip

Found = Path | Stored | Query | str
"""A file here, an object in a store, a query, or a URL that only polars reads."""


def find(candidates: str) -> list[Found]:
    """What a path, a folder, a glob, a URL or a ``sql:`` query names, sorted.

    Raises:
        InputError: There is nothing, or it is of different or unknown kinds.
    """
    if candidates.startswith(QUERY):
        return [Query(candidates.removeprefix(QUERY).strip())]
    if candidates.startswith(HUGGING_FACE):
        return [candidates]
    found: list[Found] = []
    if is_object_url(candidates):
        found.extend(_stored(ObjectPath.of(candidates)))
    elif "://" in candidates:
        scheme = candidates.partition("://")[0]
        raise InputError(f"{scheme}:// can't be read; name a path, hf://, {or_stores()}")
    else:
        found.extend(_local(candidates))
    if not found:
        raise InputError(
            f"no such file: {candidates}; name a parquet, csv or ndjson file, a folder or a glob of them"
        )
    endings = {_suffix(one) for one in found}
    if len({_READERS.get(ending) for ending in endings}) > 1 or not endings <= _READERS.keys():
        shown = ", ".join(sorted(ending or "(none)" for ending in endings))
        raise InputError(
            f"can't read {candidates} (ending: {shown}); files must all be .parquet, .csv or .ndjson (.jsonl)"
        )
    return found


def spelt(candidates: str) -> str:
    """The same in one spelling, from whatever folder."""
    if candidates.startswith((QUERY, HUGGING_FACE)):
        return candidates
    return str(ObjectPath.of(candidates) if is_object_url(candidates) else Path(candidates).absolute())


def _local(candidates: str) -> list[Path]:
    path = Path(candidates)
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and _is_part(file, path)]
    return [Path(p) for p in sorted(glob.glob(candidates, recursive=True)) if Path(p).is_file()]  # noqa: PTH207


def _stored(path: ObjectPath) -> list[Stored]:
    """One object; else all below a folder; else those that match a pattern, folder by folder."""
    if (one := path.stat()) is not None:
        return [one]
    if below := list(path.below()):
        return [found for found in below if _is_part(_pure(found.path), _pure(path))]
    first = next((n for n, part in enumerate(path.key.split("/")) if glob.has_magic(part)), None)
    if first is None:
        return []
    fixed = ObjectPath(path.root, "/".join(path.key.split("/")[:first]))
    return [found for found in fixed.below() if _pure(found.path).match(str(_pure(path)))]


def _pure(path: ObjectPath) -> PurePosixPath:
    return PurePosixPath("/", path.key)


def _is_part(file: PurePosixPath | Path, folder: PurePosixPath | Path) -> bool:
    """Whether a file of a folder is data: what other writers leave beside it begins with ``_`` or a dot."""
    return not any(part.startswith(("_", ".")) for part in file.relative_to(folder).parts)


def _suffix(one: Found) -> str:
    if isinstance(one, Query):
        return ".parquet"
    if isinstance(one, str):  # a folder of a data set holds parquet
        ending = PurePosixPath(one).suffix.lower()
        return ending if ending in _READERS else ".parquet"
    return (one.path if isinstance(one, Stored) else one).suffix.lower()


def scan(found: list[Found]) -> pl.LazyFrame:
    """The rows of what was found, all of one kind, in its order, not read yet.

    CSV values stay the text they are ("007" must not become 7).
    """
    kind = _READERS[_suffix(found[0])]
    if isinstance(found[0], Query):
        return found[0].scan()
    if isinstance(found[0], str):
        return _read(kind, found[0], pattern=True)
    return _read(kind, [str(one.path if isinstance(one, Stored) else one) for one in found], pattern=False)


def schema(found: list[Found]) -> pl.Schema | None:
    """The columns of what was found; None for a query, which is only asked when a run begins."""
    return None if isinstance(found[0], Query) else scan(found).collect_schema()


def _read(kind: str, names: str | list[str], *, pattern: bool) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(names, glob=pattern)
    if kind == "csv":
        return pl.scan_csv(names, infer_schema=False, glob=pattern)
    if not pattern:
        strange = next((name for name in names if is_object_url(name) and glob.has_magic(name)), None)
        if strange is not None:
            raise InputError(
                f"{strange}: NDJSON in a store can't be read by a name with *, ? or [; rename it"
            )
        names = [glob.escape(name) for name in names]
    return pl.scan_ndjson(names, infer_schema_length=None)


@contextlib.contextmanager
def reading(candidates: str) -> Iterator[None]:
    """Turn what polars says about a file that it can't read, or not copy, into one line."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"can't read {candidates}: {line[:300]};"
            " check the file (or the access to its store), and the space in OUT and TMPDIR"
        ) from None


def fingerprint(found: list[Found]) -> str:
    """A hash that changes when a file is replaced, grows, or is written again.

    Of a query or a data set on Hugging Face it only tells the name: an unfinished run goes on with the rows
    that it read when it began.
    """
    digest = hashlib.sha256()
    for one in found:
        if isinstance(one, Path):
            stat = one.stat()
            line = f"{one.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
        elif isinstance(one, Stored):
            line = f"{one.path}\0{one.size}\0{one.tag}\0"
        else:
            line = f"{one}\0"
        digest.update(line.encode())
    return digest.hexdigest()
