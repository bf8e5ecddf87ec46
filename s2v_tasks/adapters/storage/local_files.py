"""Local files: whole or absent, durable, and errors that name the file that they are about."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from s2v_tasks.adapters.library_errors import error_line
from s2v_tasks.errors import StorageUnavailable, UsageError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of writers only: the disk, the quota or the file is full, or nothing may be written."""
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES})
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then move it to ``path``: atomic and durable.

    Raises:
        StorageUnavailable: The file can't be written. Another error of ``write`` passes unchanged: it may be
            about what it reads.
    """
    with wrap_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with wrap_write_errors(path, FULL):
            write(temporary)
        with wrap_write_errors(path):
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def create(path: Path, content: bytes) -> bool:
    """Create a file with this content, durably; False if it exists.

    Raises:
        StorageUnavailable: It can't be written.
    """
    with wrap_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Flush a file, or a folder's directory entry, to disk; not a folder where the file system can't."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:  # CIFS and FUSE; or a folder that may be written and not read
        if error.errno not in _NO_SYNC or not path.is_dir():
            raise


@contextlib.contextmanager
def wrap_write_errors(path: Path, numbers: Collection[int] | None = None) -> Iterator[None]:
    """Name the file that can't be written. ``numbers``: only of these errors; None: of any."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        number = _number_of(error)
        if numbers is not None and number not in numbers:
            raise
        what = error_line(error) if number is None else os.strerror(number)
        fix = "make room there" if number in (errno.ENOSPC, errno.EDQUOT) else "fix that"
        if path.is_relative_to(tempfile.gettempdir()):
            fix += ", or set TMPDIR to another folder"
        raise StorageUnavailable(
            f"{path} can't be written ({what}); {fix}, then run the same command again"
        ) from None


def _number_of(error: Exception) -> int | None:
    """The error number of the system; polars has it in its words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


@contextlib.contextmanager
def temporary_dir() -> Iterator[Path]:
    """A temporary folder for the block.

    Raises:
        UsageError: None can be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="s2v-")
    except OSError as error:
        raise UsageError(
            f"no temporary folder can be made ({error.strerror}); set TMPDIR to a folder with room"
        ) from None
    with made as folder:
        yield Path(folder)


def check_folder(folder: Path) -> None:
    """Try what a publication in this folder needs: create, lock and move a file; it leaves nothing.

    Raises:
        UsageError: It can't be done.
    """
    probe, existed = folder / f".{secrets.token_hex(4)}.tmp", folder.exists()
    moved = probe.with_suffix(".moved")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe.replace(moved)
    except OSError as error:
        fix = "give it rights and room"
        if error.errno in _NO_LOCKS:
            fix = "mount it with file locks (docs/guides/shared_storage.md)"
        raise UsageError(
            f"nothing could be published in {folder} ({error.strerror}); {fix}, or name another --out"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            moved.unlink(missing_ok=True)
            if not existed:
                folder.rmdir()
