"""The end-to-end tests share one Prefect server and one emulator; each has a folder of its own."""

import contextvars
import gc
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from unchanged_process import put_back, unchanged_process
from workbench import FAST_PER_S, Bench, Ran, set_rate

from s2v_tasks import Emulator, EmulatorOptions
from s2v_tasks.cli.app import main


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A plain flow of Prefect 3.8 leaves a connection to its server open (its default result storage)."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(scope="session")
def fast_emulator() -> Iterator[Emulator]:
    """A service without a rate limit, for tests that are not about the rate limit."""
    with Emulator(EmulatorOptions(limit=None)) as emulator:
        yield emulator


@pytest.fixture
def bench(tmp_path: Path, fast_emulator: Emulator, prefect_api: str) -> Bench:
    """A folder and the shared emulator, freshly reset; 200 calls a second are allowed."""
    fast_emulator.set_faults([])
    fast_emulator.reset()
    set_rate(FAST_PER_S)
    return Bench(tmp_path, fast_emulator)


@pytest.fixture
def rate_limited(tmp_path: Path, prefect_api: str) -> Iterator[Bench]:
    """A folder and an emulator of its own that admits 5 calls in any second; 5 are allowed."""
    set_rate(5)
    with Emulator(EmulatorOptions()) as emulator:
        yield Bench(tmp_path, emulator)


@pytest.fixture
def in_process(bench: Bench) -> Iterator[Bench]:
    """The same for flows that run in this process: they read the key from its environment."""
    before = dict(os.environ)
    gc.freeze()  # the collection at the end then visits only what this test made, not all that is imported
    for name in ("DASHSCOPE_API_KEY", "DASHSCOPE_HTTP_BASE_URL"):
        os.environ[name] = bench.env[name]
    yield bench
    put_back(before)  # the command sets some for its process, here ours
    gc.collect()  # what was left open is noticed here, not in a later test


@pytest.fixture
def command(
    in_process: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """The command in this process: seconds faster than one of its own, which has everything to import."""
    folder = in_process.folder / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["s2v", *map(str, arguments)])
        with pytest.raises(SystemExit) as end, unchanged_process():
            contextvars.copy_context().run(main)
        assert isinstance(end.value.code, int)
        return Ran(end.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, session_dir: Path) -> Path:
    """A Prefect home for commands that start a server of their own.

    Its database is a copy of the shared server's: to make one takes seconds, which the demo's test spends.
    """
    home = tmp_path_factory.mktemp("own-home")
    set_rate(5)
    with (
        closing(sqlite3.connect(session_dir / "prefect" / "prefect.db")) as shared,
        closing(sqlite3.connect(home / "prefect.db")) as own,
    ):
        shared.backup(own)
    set_rate(FAST_PER_S)
    return home


@pytest.fixture
def alone(bench: Bench, own_home: Path) -> Bench:
    """A bench whose commands find no Prefect server, and start their own."""
    env = {name: value for name, value in bench.env.items() if name != "PREFECT_API_URL"}
    bench.env = {**env, "PREFECT_HOME": str(own_home)}
    return bench


@pytest.fixture
def blocked(session_dir: Path) -> Callable[[], str]:
    """What processes of this session tried to reach beyond loopback since the test began."""
    log = session_dir / "blocked.log"
    before = log.stat().st_size if log.exists() else 0
    return lambda: log.read_text("utf-8")[before:] if log.exists() else ""
