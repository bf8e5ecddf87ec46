"""Output folders to test on: one in an object store, and one on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.object_store import ObjectPath


@pytest.fixture
def out(in_store: dict[str, str], request: pytest.FixtureRequest) -> Iterator[ObjectPath]:
    """A folder of the test's own, with characters that are odd but allowed."""
    path = file_io.parse_path(f"s3://bucket/a [b] c/{request.node.name}")
    assert isinstance(path, ObjectPath)
    yield path
    path.remove_below()


@pytest.fixture(params=["local", pytest.param("object store", marks=pytest.mark.ci)])
def any_out(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty output folder of each kind."""
    folder: StoragePath = tmp_path if request.param == "local" else request.getfixturevalue("out")
    return folder
