"""Lists the source items of candidates: files, objects, a query or a dataset; fingerprints them."""

import glob
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from s2v_tasks.adapters.storage.object_store import ObjectPath, StoredObject, is_object_url, or_stores
from s2v_tasks.adapters.storage.query import Query
from s2v_tasks.errors import InputError, StorageUnavailable

QUERY: Final = "sql:"
HUGGING_FACE: Final = "hf://"
READERS: Final[dict[str, str]] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv",
    ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip

_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"

SourceItem = Path | StoredObject | Query | str
"""A local file, an object in a store, a query, or a URL that only polars reads."""


def find(candidates: str, out: Path | ObjectPath | None = None) -> list[SourceItem]:
    """The source items that a path, a folder, a glob, a URL or a ``sql:`` query names, sorted.

    Raises:
        InputError: There are none, they are of different or unknown kinds, or ``out`` lies among them.
    """
    if candidates.startswith(QUERY):
        return [Query(candidates.removeprefix(QUERY).strip())]
    if is_hugging_face(candidates):
        return [HUGGING_FACE + candidates[len(HUGGING_FACE) :]]
    found: list[SourceItem] = []
    if is_object_url(candidates):
        try:
            found.extend(_stored(ObjectPath.of(candidates)))
        except StorageUnavailable as error:  # nothing was sent yet, as with an output that can't be used
            raise InputError(error.message) from None
    elif "://" in candidates:
        scheme = candidates.partition("://")[0]
        raise InputError(f"{scheme}:// can't be read; name a path, hf://, {or_stores()}")
    else:
        found.extend(_local(candidates))
    if not found:
        raise InputError(
            f"no such file: {candidates}; name a parquet, csv or ndjson file, a folder or a glob of them"
        )
    if out is not None:
        check_outside(candidates, out)
    endings = {suffix(one): one for one in reversed(found)}
    if len({READERS.get(ending) for ending in endings}) > 1 or not endings.keys() <= READERS.keys():
        shown = ", ".join(
            f"{ending or '(none)'} of {item_name(endings[ending])}" for ending in sorted(endings)
        )
        raise InputError(
            f"can't read {candidates} (ending: {shown}); files must all be .parquet, .csv or .ndjson (.jsonl)"
        )
    return found


def normalize_path(candidates: str) -> str:
    """The candidates' path as an absolute path or normalized URL."""
    if candidates.startswith(QUERY):
        return candidates
    if is_hugging_face(candidates):
        return item_name(find(candidates)[0])
    return str(ObjectPath.of(candidates) if is_object_url(candidates) else Path(candidates).absolute())


def is_hugging_face(candidates: str) -> bool:
    """Whether the text names a dataset on Hugging Face."""
    return candidates.lower().startswith(HUGGING_FACE)


def item_name(one: SourceItem) -> str:
    """The path or URL of an item, for messages and for polars."""
    return str(one.path if isinstance(one, StoredObject) else one)


def _local(candidates: str) -> list[Path]:
    path = Path(candidates)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(_below(path, path, frozenset()))
    names = glob.glob(candidates, recursive=True)  # noqa: PTH207
    for folder in _listed(candidates):
        if not os.access(folder, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise InputError(
                f"can't read the folder {folder} of {candidates}; give it rights, or leave it out"
            )
    return [found for found in map(Path, sorted(names)) if _is_there(found) and found.is_file()]


def _below(folder: Path, root: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The data files below a folder, through symbolic links too.

    Raises:
        InputError: A folder can't be read, or a link is broken or circular: rows would be missing.
    """
    try:
        stat = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"can't read the folder {folder} ({error.strerror}); give it rights, or leave it out"
        ) from None
    if (here := (stat.st_dev, stat.st_ino)) in above:
        raise InputError(f"can't read {root}: {folder} links to a folder that it is in; remove the link")
    for entry in entries:
        if not _is_part(entry, root):
            continue
        if entry.is_dir():
            yield from _below(entry, root, above | {here})
        elif _is_there(entry) and entry.is_file():
            yield entry


def _is_there(path: Path) -> bool:
    if not path.exists():
        raise InputError(f"can't read {path}: it is a broken link; remove it, or fix it")
    return True


def _listed(pattern: str) -> Iterator[str]:
    """The folders that a pattern must list; ``glob`` skips an unreadable one without an error."""
    parts = Path(pattern).parts
    for number, part in enumerate(parts):
        if glob.has_magic(part):
            above = str(Path(*parts[:number])) if number else "."
            folders = f"{above}/**/" if part == "**" else f"{above}/"
            yield from glob.iglob(folders, recursive=True)  # noqa: PTH207


def fixed_part(candidates: str) -> Path | ObjectPath | None:
    """The folder whose present and future files are candidates; None: single files, or no files.

    Of a pattern, the part before its first wildcard.
    """
    if candidates.startswith(QUERY) or is_hugging_face(candidates):
        return None
    if is_object_url(candidates):
        stored = ObjectPath.of(candidates)
        keys = stored.key.split("/")
        first = next((n for n, part in enumerate(keys) if glob.has_magic(part)), len(keys))
        return ObjectPath(stored.root, "/".join(keys[:first]))
    path = Path(candidates)
    if path.is_dir():
        return path
    wild = [n for n, part in enumerate(path.parts) if glob.has_magic(part)]
    return Path(*path.parts[: wild[0]]) if wild else None


def check_outside(candidates: str, out: Path | ObjectPath) -> None:
    """Refuse an output folder whose files the next command would read as candidates.

    Raises:
        InputError: It is the folder of the candidates, or below it.
    """
    root = fixed_part(candidates)
    is_pattern = isinstance(root, Path) and not Path(candidates).is_dir()
    if root is None or (is_pattern and "**" not in Path(candidates).parts):
        return
    if isinstance(root, ObjectPath):
        if not isinstance(out, ObjectPath) or out.root != root.root or glob.has_magic(candidates):
            return
        inner, above = _pure(out), _pure(root)
    elif isinstance(out, Path):
        inner, above = PurePosixPath(out.resolve()), PurePosixPath(root.resolve())
    else:
        return
    if inner.is_relative_to(above) and _is_part(inner, above):
        raise InputError(
            f"--out {out} is in the folder of the candidates, {candidates}: its files would be read as"
            " candidates; name a folder elsewhere, or one whose name begins with _"
        )


def partitions(one: SourceItem, candidates: str) -> dict[str, str | None]:
    """Hive partition columns of an item, as in ``source=web/part.parquet``; always text."""
    root = fixed_part(candidates)
    if root is None or not isinstance(one, Path | StoredObject):
        return {}
    path = _pure(one.path) if isinstance(one, StoredObject) else PurePosixPath(one)
    folder = _pure(root) if isinstance(root, ObjectPath) else PurePosixPath(root)
    if not path.is_relative_to(folder):
        return {}
    named = (part.partition("=") for part in path.relative_to(folder).parts[:-1] if "=" in part)
    return {
        unquote(name): None if value == _HIVE_NULL else unquote(value) for name, _, value in named if name
    }


def _stored(path: ObjectPath) -> list[StoredObject]:
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
    """Whether a file of a folder is data: names of other files begin with ``_`` or a dot."""
    return not any(part.startswith(("_", ".")) for part in file.relative_to(folder).parts)


def suffix(one: SourceItem) -> str:
    """The suffix that selects the reader."""
    if isinstance(one, Query):
        return ".parquet"
    if isinstance(one, str):  # a folder of a dataset holds parquet
        ending = PurePosixPath(one).suffix.lower()
        return ending if ending in READERS else ".parquet"
    return (one.path if isinstance(one, StoredObject) else one).suffix.lower()


def fingerprint(found: list[SourceItem]) -> str:
    """A hash that changes when a file is replaced, grows, or is written again.

    For a query or a dataset on Hugging Face it covers only the name: an unfinished run continues with the
    rows that it read at its start.
    """
    digest = hashlib.sha256()
    for one in found:
        if isinstance(one, Path):
            stat = one.stat()
            line = f"{one.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
        elif isinstance(one, StoredObject):
            line = f"{one.path}\0{one.size}\0{one.tag}\0"
        else:
            line = f"{one}\0"
        digest.update(line.encode())
    return digest.hexdigest()
