"""The history of publications: a file for each, never changed, and one for each that was withdrawn.

The pointer moves first, then its publication is recorded; before it moves on, the one that it names is
recorded too. So the history lacks nothing after a kill, and begins with the pointer where there was none.
A file's name follows from its publication, so processes that record the same one write the same file.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from s2v_tasks.adapters.storage.file_io import (
    StoragePath,
    file_names,
    in_todays_format,
    json_bytes,
    write_json,
)
from s2v_tasks.adapters.storage.gate_reports import read_report
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder
from s2v_tasks.domain.publish_rules import PastPublication, Publication, ScopeFacts
from s2v_tasks.errors import S2VError, UsageError, Withdrawn

_STAMP: Final = "%Y%m%dT%H%M%S%fZ"
_STAMP_CHARS: Final = 22
_READERS: Final = 32  # a store responds slowly, but to many at once


@dataclass(frozen=True, slots=True)
class Recorded:
    """A publication of the history; ``at``: when its gate opened."""

    name: str
    at: datetime
    publication: PastPublication
    withdrawn: bool


def name_of(publication: Publication) -> str:
    """The name of a publication's file, ``<utc>-<run_id>.json``."""
    return f"{_at(publication):{_STAMP}}-{publication.run_id}.json"


def record(out: StoragePath, publication: Publication) -> None:
    """Record what the pointer names or has named, unless it is; on this machine under the pointer's lock.

    Raises:
        StorageUnavailable: It can't be written.
    """
    name = name_of(publication)
    if name in _names(out / "published" / "history"):
        return
    past = _unrecorded(out, publication.model_copy(update={"rolled_back": None}))
    _create(out / "published" / "history" / name, past.model_dump())


def withdraw(out: StoragePath, name: str, at: datetime, in_favour_of: str) -> None:
    """Mark a publication of the history as withdrawn, by a file of the same name beside it."""
    document = {"withdrawn_at": at.isoformat(), "rolled_back_to": in_favour_of}
    _create(out / "published" / "withdrawn" / name, document)


def read(out: StoragePath, current: Publication | None) -> list[Recorded]:
    """Every publication, by time; with ``current``, what the pointer names, if that is not recorded yet.

    Raises:
        S2VError: A file of the history can't be read; UsageError if a newer program wrote it.
    """
    folder, withdrawn = out / "published" / "history", set(_names(out / "published" / "withdrawn"))
    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(pool.map(lambda name: (name, _parsed(folder / name)), _names(folder)))
    if current is not None and name_of(current) not in found:
        found[name_of(current)] = _unrecorded(out, current)
    return [Recorded(name, _at(one), one, name in withdrawn) for name, one in sorted(found.items())]


def before(out: StoragePath, run: Manifest, current: Publication | None, most: int) -> list[PastPublication]:
    """The last publications of runs that started before a run, newest first; those withdrawn are left out.

    A run that was published twice counts once, by its last publication. ``current``: as `read`.

    Raises:
        S2VError: As `read`.
    """
    folder = out / "published" / "history"
    recorded = set(_names(folder))
    pointer = {} if current is None else {name_of(current): current}
    names = recorded | pointer.keys()
    found: dict[str, PastPublication] = {}
    for name in sorted(names - set(_names(out / "published" / "withdrawn")), reverse=True):
        if len(found) == most:
            break
        if _run_id(name) in found or _run_id(name) == run.run_id:
            continue
        one = _parsed(folder / name) if name in recorded else _unrecorded(out, pointer[name])
        if one.order < run.order:
            found[one.run_id] = one
    return list(found.values())


def check_not_withdrawn(out: StoragePath, run_id: str, current: Publication | None) -> None:
    """Check that not every publication of a run was withdrawn.

    Raises:
        Withdrawn: They were; says how to publish the run all the same.
    """
    withdrawn = {name for name in _names(out / "published" / "withdrawn") if _run_id(name) == run_id}
    if not withdrawn:
        return
    published = {name for name in _names(out / "published" / "history") if _run_id(name) == run_id}
    if current is not None and current.run_id == run_id:
        published.add(name_of(current))
    if published <= withdrawn:
        raise withdrawn_error(out, run_id)


def withdrawn_error(out: StoragePath, run_id: str) -> Withdrawn:
    """The error of a run whose publication was withdrawn: says how to publish it all the same."""
    return Withdrawn(
        f"run {run_id} was withdrawn by a rollback; to publish it all the same:"
        f" s2v gate {RunFolder(out, run_id).path} --publish --again"
    )


def _names(folder: StoragePath) -> list[str]:
    if isinstance(folder, Path) and not folder.is_dir():
        return []
    return [name for name in file_names(folder) if name.endswith(".json") and not name.startswith(".")]


def _run_id(name: str) -> str:
    return name[_STAMP_CHARS + 1 : -len(".json")]


def _at(publication: Publication) -> datetime:
    try:
        at = datetime.fromisoformat(publication.gate.checked_at)
    except ValueError:
        raise S2VError(
            f"the publication of run {publication.run_id} has no time (gate.checked_at); publish a run again"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _unrecorded(out: StoragePath, publication: Publication) -> PastPublication:
    """With its facts from the report of the gate; none if its run's folder is gone or damaged."""
    facts: tuple[ScopeFacts, ...] = ()
    with suppress(OSError, ValueError, TypeError, UsageError):
        report = read_report(RunFolder(out, publication.run_id), publication.gate.checked_at) or {}
        facts = tuple(ScopeFacts(**fact) for fact in report.get("facts", ()))
    return PastPublication(**publication.model_dump(), facts=facts)


def _parsed(path: StoragePath) -> PastPublication:
    try:
        return PastPublication.model_validate_json(in_todays_format(path, path.read_bytes()))
    except (OSError, ValidationError):
        raise S2VError(f"{path} can't be read as a publication; restore it from a copy") from None


def _create(path: StoragePath, document: dict[str, Any]) -> None:
    """Write a file that is never changed: the first one stays."""
    if isinstance(path, ObjectPath):
        path.put_if(json_bytes(document), None)
    elif not path.exists():  # a process that writes here holds the pointer's lock
        write_json(path, document)
