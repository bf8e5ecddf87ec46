"""What the end-to-end tests work with: a folder, an emulated service, and the command as a user runs it."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import psutil
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from s2v_tasks import Emulator
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.models import WAN22_S2V_DETECT

KEY = "sk-test"
COMMAND = [sys.executable, "-m", "s2v_tasks"]
FAST_PER_S = 200
PRICE_USD = WAN22_S2V_DETECT.price_micro_usd / 1e6


def set_rate(rate_per_s: int) -> None:
    """Set the account's allowance on the shared Prefect server, as an operator would."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(WAN22_S2V_DETECT.model, rate_per_s, float(rate_per_s))


def wait_until(true: Callable[[], Any], timeout_s: float = 300.0, every_s: float = 0.1) -> Any:
    """What ``true`` gives as soon as it is something; fails after a bounded time.

    Polling a Prefect server or every process costs tens of milliseconds of CPU, so it is not done more often.
    """
    until = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(every_s)
    return found


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def run_dir(self) -> Path:
        """The folder that the command printed."""
        found = re.search(r"^verdicts\s+(.*)/verdicts\.parquet$", self.out, re.MULTILINE)
        assert found, self.out + self.err
        return Path(found[1])

    @property
    def verdicts(self) -> pl.DataFrame:
        """The rows that the run wrote."""
        return pl.read_parquet(self.run_dir / "verdicts.parquet")

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself."""
        return load(self.run_dir / "manifest.json")

    @property
    def gate(self) -> dict[str, Any]:
        """The gate's report."""
        return load(self.run_dir / "gate.json")


@dataclass
class Bench:
    """A folder with candidates, and the command that works on them against one emulator."""

    folder: Path
    emulator: Emulator
    env: dict[str, str] = field(default_factory=dict)
    out_name: str = "out"
    always: tuple[str, ...] = ("--no-report-images",)
    """Options of every curation: the images are fetched a second time only where a test is about that."""

    def __post_init__(self) -> None:
        self.env = {
            **os.environ,
            "DASHSCOPE_API_KEY": KEY,
            "DASHSCOPE_HTTP_BASE_URL": self.emulator.base_url,
            **self.env,
        }
        del self.env["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"]  # keeping its log quiet is the command's part

    @property
    def out(self) -> Path:
        """Where the command writes, by default."""
        return self.folder / self.out_name

    def url(self, number: int, subject: str = "portrait", query: str = "") -> str:
        """The URL of an image that the emulator draws."""
        return f"{self.emulator.origin}/samples/gen/{subject}-{number}.jpg{query}"

    def portraits(self, count: int, first: int = 0) -> list[str]:
        """Addresses of different images that pass."""
        return [self.url(number) for number in range(first, first + count)]

    def candidates(self, urls: Iterable[str | None], name: str = "candidates.parquet", **columns: Any) -> str:
        """Write a list of candidates, and give its path."""
        path = self.folder / name
        pl.DataFrame({"image_url": pl.Series(list(urls), dtype=pl.String), **columns}).write_parquet(path)
        return str(path)

    def start(self, *arguments: object, **env: str) -> subprocess.Popen[str]:
        """Start the command in a session of its own, so that it can be killed with all it started."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object, **env: str) -> Ran:
        """Run the command to its end."""
        return ended(self.start(*arguments, **env))

    def curating(self, candidates: str, *options: object, out: Path | str | None = None) -> list[object]:
        """The arguments of an ordinary curation run."""
        budget = [] if "--budget-usd" in options else ["--budget-usd", 10]
        options = (*budget, "--allow-private-hosts", *self.always, *options)
        return ["curate", candidates, "--out", out or self.out, *options]

    def curate(self, candidates: str, *options: object, out: Path | None = None, **env: str) -> Ran:
        """Curate, as a user would."""
        return self.run(*self.curating(candidates, *options, out=out), **env)

    def billed_urls(self) -> list[str]:
        """The images on the invoice."""
        return [line["image_url"] for line in self.emulator.invoice()]

    def billed_ids(self) -> set[str]:
        """The calls on the invoice."""
        return {line["request_id"] for line in self.emulator.invoice()}

    def received(self) -> int:
        """The calls that reached the service."""
        return self.emulator.calls()["received"]


def ended(process: subprocess.Popen[str], timeout_s: float = 300.0) -> Ran:
    """Wait for a command."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the command did not end:\n{out}\n{err}") from None
    return Ran(process.returncode, out, err)


def load(path: Path) -> dict[str, Any]:
    """A JSON file."""
    return json.loads(path.read_text("utf-8"))


def pointer(out: Path) -> Publication:
    """What is published."""
    return Publication.model_validate_json((out / "published" / "current.json").read_bytes())


def ledger_ids(path: Path, state: str = "billed") -> set[str]:
    """The request ids that a ledger holds as ``state``."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db, db:
        rows = db.execute("SELECT request_id FROM attempts WHERE state = ?", (state,)).fetchall()
    assert len({id_ for (id_,) in rows}) == len(rows)
    return {id_ for (id_,) in rows}


def flow_runs(name: str = "curate", limit: int = 1) -> list[FlowRun]:
    """The flow runs of the shared server, latest first."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = FlowFilter(name=FlowFilterName(any_=[name]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=limit)


def descendants(mark: str) -> list[psutil.Process]:
    """Every living process whose environment holds ``TESTS_MARK=mark``, however it was left behind."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TESTS_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def files_below(folder: Path) -> set[str]:
    """Every file and folder, by its relative path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
