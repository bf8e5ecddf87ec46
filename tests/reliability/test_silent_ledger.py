"""A run whose PostgreSQL falls silent: a signal ends it, soon, and no call is sent after it."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workbench import Bench, ended, set_rate, wait_until

from s2v_tasks import Emulator, EmulatorOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))
from network import Proxy, proxy_to

ENDS_WITHIN_S = 25.0


@pytest.fixture
def proxy(postgresql_server: str) -> Iterator[tuple[Proxy, asyncio.AbstractEventLoop]]:
    """A proxy to a PostgreSQL, in a thread of its own, and that thread's event loop."""
    ready = threading.Event()
    proxy = proxy_to(postgresql_server.format("postgres"))
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with proxy.running():
            ends.append((asyncio.get_running_loop(), asyncio.Event()))
            ready.set()
            await ends[0][1].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    loop, over = ends[0]
    yield proxy, loop
    loop.call_soon_threadsafe(over.set)
    thread.join(60)


@pytest.mark.ci
def test_a_signal_ends_a_run_whose_database_is_silent(
    proxy: tuple[Proxy, asyncio.AbstractEventLoop], tmp_path: Path, prefect_api: str
) -> None:
    """Within 25 s, with status 1; what was paid for is in the ledger, or counted as lost."""
    database, loop = proxy
    with Emulator(EmulatorOptions(limit=None)) as emulator:
        bench = Bench(tmp_path, emulator, {"S2V_LEDGER_URL": database.url})
        set_rate(5)
        process = bench.start(*bench.curating(bench.candidates(bench.portraits(200))))
        wait_until(lambda: bench.received() >= 3)
        loop.call_soon_threadsafe(database.fall_silent)
        time.sleep(1.0)  # some statement is under way
        process.send_signal(signal.SIGTERM)
        began_s, sent = time.monotonic(), bench.received()
        ran = ended(process, 120)
        assert time.monotonic() - began_s < ENDS_WITHIN_S
        assert bench.received() <= sent + 1
    assert ran.status == 1, ran.err
    assert "Traceback" not in ran.err
