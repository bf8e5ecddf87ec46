"""The pointer to the published dataset: read, and moved atomically, local or in an object store."""

import contextlib
import fcntl
import secrets
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from s2v_tasks.adapters.storage import history
from s2v_tasks.adapters.storage.file_io import StoragePath, in_todays_format, json_bytes, write_json
from s2v_tasks.adapters.storage.local_files import check_folder
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.domain.publish_rules import Publication, following, supersedes
from s2v_tasks.errors import S2VError, StorageUnavailable


def path_of(out: StoragePath) -> StoragePath:
    """The path of the pointer under an output folder."""
    return out / "published" / "current.json"


def read(out: StoragePath) -> Publication | None:
    """The publication that the pointer under ``out`` names; None without a pointer.

    Raises:
        S2VError: The pointer can't be read; UsageError if a newer program wrote it.
    """
    path = path_of(out)
    try:
        return _parsed(path, path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(
            f"{path} can't be read ({error.strerror}); fix that and run the same command again"
        ) from None


def check_movable(out: StoragePath) -> None:
    """Try what a publication needs, before anything is paid.

    Raises:
        UsageError: A newer program wrote the pointer, or its folder lacks rights or locks.
        StorageUnavailable: The store lacks rights, or conditional puts.
        S2VError: The pointer can't be read.
    """
    read(out)
    if isinstance(out, Path):
        check_folder(out / "published")
    else:
        (out / "published" / f".check-{secrets.token_hex(8)}").check_conditional_puts()


def move(out: StoragePath, publication: Publication, *, again: bool = False) -> Publication | None:
    """Move the pointer, atomically; None if a run that started later has published.

    Args:
        out: The output folder.
        publication: Of the run that is to be published.
        again: Publish it although it was withdrawn.

    Raises:
        Withdrawn: A rollback withdrew the run's publication.
    """

    def decide(current: Publication | None) -> Publication | None:
        if not again:
            history.check_not_withdrawn(out, publication.run_id, current)
        if not supersedes(publication, current, again=again):
            return None
        return following(publication, current)

    return change(out, decide)


def change(
    out: StoragePath, decide: Callable[[Publication | None], Publication | None]
) -> Publication | None:
    """Move the pointer to what ``decide`` gives for the current publication; None leaves it where it is.

    Both publications are in the history afterwards. No other process moves the pointer in between: on this
    machine they wait, in a store ``decide`` is called again.
    """
    path = path_of(out)
    if isinstance(path, ObjectPath):
        return _change_object(out, path, decide)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current = read(out)
        if (new := decide(current)) is None:
            return None
        if current is not None:
            history.record(out, current)
        write_json(path, new.model_dump())
        history.record(out, new)
    return new


def _change_object(
    out: StoragePath, path: ObjectPath, decide: Callable[[Publication | None], Publication | None]
) -> Publication | None:
    """Change it by compare-and-swap: the store replaces the pointer only if it is the one that was read."""
    while True:
        current, tag = None, None
        with contextlib.suppress(FileNotFoundError):
            before, tag = path.read_tagged()
            current = _parsed(path, before)
        if (new := decide(current)) is None:
            return None
        if current is not None:
            history.record(out, current)
        if path.put_if(json_bytes(new.model_dump()), tag):
            history.record(out, new)
            return new


def _parsed(path: StoragePath, content: bytes) -> Publication:
    try:
        return Publication.model_validate_json(in_todays_format(path, content))
    except ValidationError:
        raise S2VError(f"{path} is no pointer of this program; move it away and publish again") from None
