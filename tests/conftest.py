"""What holds for every test: this machine only, a Prefect home of its own, nothing of the developer's."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LOOPBACK = Path(__file__).parent / "loopback"
sys.path.insert(0, str(LOOPBACK))
import loopback_guard  # noqa: E402  (from that folder)

SESSION_DIR = Path(tempfile.mkdtemp(prefix="s2v-tests-"))
SETTINGS = {
    "PREFECT_HOME": str(SESSION_DIR / "prefect"),
    "XDG_CACHE_HOME": str(SESSION_DIR / "cache"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "GX_ANALYTICS_ENABLED": "false",
    "PYTHONPATH": str(LOOPBACK),
    "TESTS_BLOCKED_LOG": str(SESSION_DIR / "blocked.log"),
    "NO_PROXY": "*",
    # The store's client is no Python: without a server of the tests it finds nobody, and asks nobody else.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
"""For this process and, inherited, for every child."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests that take a minute or more")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a minute or more; run with --runslow")
    loopback_guard.install()
    # Before anything imports Prefect: it reads its settings once.
    for name in [n for n in os.environ if n.startswith(("DASHSCOPE_", "S2V_", "PREFECT_"))]:
        del os.environ[name]
    os.environ.update(SETTINGS)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(SESSION_DIR, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--runslow"):
        skip = pytest.mark.skip(reason="slow: run with --runslow")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def session_dir() -> Path:
    """A folder for what lives as long as the session."""
    return SESSION_DIR


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to an S3-speaking server, which lives as long as the tests."""
    from object_store import running

    with running(tmp_path_factory.mktemp("object-store")) as env:
        yield env


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of the one Prefect server that the tests share; flows in this process use it too."""
    from s2v_tasks.adapters import prefect_server

    os.environ["PREFECT_API_URL"] = url = prefect_server.start()
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    yield url
    del os.environ["PREFECT_API_URL"]
