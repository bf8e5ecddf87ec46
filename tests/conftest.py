"""What holds for every test: this machine only, a Prefect home of its own, nothing of the developer's."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
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
    # The store's client is no Python, so the guard can't block it: point it to no server.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
"""For this process and, inherited, for every child."""
LONGEST = ("test_crash.py", "e2e")
"""What takes longest is begun first, or one core would be idle at the end."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests that take a minute or more")
    parser.addoption(
        "--ci", action="store_true", help="also run what is left to .ci/run; what it needs must be installed"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a minute or more; run with --runslow")
    config.addinivalue_line("markers", "ci: more cases of what the default run tests; run with --ci")
    config.addinivalue_line(
        "markers", "needs(*names): programs or Python modules; without them it fails with --ci"
    )
    loopback_guard.install()
    # A machine that is busy is no reason to fail.
    hypothesis.settings.register_profile(
        "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("busy")
    # Before anything imports Prefect: it reads its settings once.
    for name in [n for n in os.environ if n.startswith(("DASHSCOPE_", "S2V_", "PREFECT_"))]:
        del os.environ[name]
    # Children import the same modules a hundred times: without bytecode each would compile them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(SETTINGS, TESTS_PID=str(os.getpid()))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; children would too
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Tests that keep to a rate or wait for a time limit leave a core idle: half as many again as cores."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(scope="session", autouse=True)
def keep_options() -> None:
    """A session that a test starts takes none of this one's options; before, xdist's workers need them."""
    os.environ.pop("PYTEST_ADDOPTS", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(SESSION_DIR, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, option in (("slow", "--runslow"), ("ci", "--ci")):
        if not config.getoption(option):
            skip = pytest.mark.skip(reason=f"{marker}: run with {option}")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)
    items.sort(key=lambda item: [part not in item.path.parts for part in LONGEST])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose programs or modules are not installed; with ``--ci`` it fails instead."""
    needed = [name for marker in item.iter_markers("needs") for name in marker.args]
    missing = [name for name in needed if not (shutil.which(name) or find_spec(name))]
    if missing:
        end = pytest.fail if item.config.getoption("--ci") else pytest.skip
        end(f"needs {', '.join(missing)}; .ci/run has it")


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


@pytest.fixture
def in_store(object_store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, with the variables set for this test."""
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    return object_store


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of the one Prefect server that the tests share; flows in this process use it too."""
    from s2v_tasks.adapters.prefect import server as prefect_server

    os.environ["PREFECT_API_URL"] = url = prefect_server.start()
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    yield url
    del os.environ["PREFECT_API_URL"]
