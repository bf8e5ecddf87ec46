"""Run numbers: the order of the runs of one output folder, which no clock decides.

A run takes the next number when it opens, by creating a file that must not exist yet; a store does the same
by a conditional put. The pointer moves only to a higher number.
"""

import os
from typing import Final

from s2v_tasks.adapters.storage import local_files, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.object_store import ObjectPath

_FOLDER: Final = ".run-numbers"


def take_number(out: StoragePath, run_id: str) -> int:
    """Take the next number of an output folder for a run, durably.

    Raises:
        StorageUnavailable: The folder can't be read or written.
    """
    folder = out / _FOLDER
    published = pointer.read(out)  # it counts too: the numbers may not have been copied with the rest
    number = max([published.highest[0] if published else 0, *_taken(folder)]) + 1
    while not _create(folder / f"{number:08}", f"{run_id}\n".encode()):
        number += 1
    return number


def _taken(folder: StoragePath) -> list[int]:
    if isinstance(folder, ObjectPath):
        names = [stored.path.name for stored in folder.below()]
    else:
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
    return [int(name) for name in names if name.isdecimal()]


def _create(path: StoragePath, content: bytes) -> bool:
    """Create a file with this content; False if it exists."""
    if isinstance(path, ObjectPath):
        return path.put_if(content, None)
    return local_files.create(path, content)
