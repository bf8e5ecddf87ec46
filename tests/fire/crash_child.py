"""The job that is killed: a whole run as `flows.curate` leads it, without the Prefect server.

The stages are the real ones; Great Expectations, which takes seconds and keeps nothing, is left out: the
gate's report is made by hand and is open.
"""

import asyncio
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from crash_bench import content_of
from crash_points import CrashPoints, WatchedClient
from fork_server import Job
from prefect.logging import disable_run_logger
from pydantic import SecretStr

from s2v_tasks import gate as stage6
from s2v_tasks import tasks
from s2v_tasks.adapters import storage
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.dashscope import Access, DetectClient
from s2v_tasks.engine import Engine
from s2v_tasks.models import WAN22_S2V_DETECT, GateReport, Screened
from s2v_tasks.plan import plan
from s2v_tasks.runs import Run, open_run
from s2v_tasks.settings import CurateParameters, Output, Screening, Spending
from s2v_tasks.shards import Stage, through
from s2v_tasks.verdicts import screened_frame

RATE_PER_S = 50.0
MAX_SLEEP_S = 0.02
BEAT_EVERY = 10


class BriskClock(SystemClock):
    """The machine's clock for someone impatient: long sleeps end early, and some others late."""

    def __init__(self) -> None:
        self._sleeps = 0

    async def sleep(self, seconds: float) -> None:
        """Wait a little."""
        self._sleeps += 1
        late_s = 0.012 if self._sleeps % 15 == 5 else 0.0
        await asyncio.sleep(max(0.0, min(seconds, MAX_SLEEP_S)) + late_s)


class Rate:
    """An allowance that nobody changes."""

    rate_per_s = RATE_PER_S
    source = "this test"


class BeatingClient(WatchedClient):
    """Keeps the lease alive after each few answers: a run this short would not come to it."""

    def __init__(self, client: DetectClient, points: CrashPoints, sends: Path, run: Run) -> None:
        super().__init__(client, points, sends)
        self._run = run

    async def send(self, request: Any) -> Any:
        answer = await super().send(request)
        if self._points.counts["call:answered"] % BEAT_EVERY == 0:
            await self._run.ledger.beat(self._run.lease)
        return answer


def run(job: Job) -> None:
    """Do the job, and tell how often each step was reached."""
    logging.disable(logging.WARNING)
    points = CrashPoints(job["step"], job["occurrence"])
    points.watch_ledger()
    points.watch_files(Path(job["out"]))
    asyncio.run(_curate(job, points))
    Path(job["report"]).write_text(json.dumps(points.counts), "utf-8")


async def _curate(job: Job, points: CrashPoints) -> None:
    parameters = CurateParameters(
        candidates=job["candidates"],
        out=job["out"],
        budget_usd=job["budget_usd"],
        screening=Screening(same_content=job["copies"]),
        spending=Spending(),
        output=Output(shard_size=job["shard_size"]),
    )
    access = Access(job["base_url"], SecretStr("key"))
    clock = BriskClock()
    async with (
        open_run(plan(parameters, access), job["run_id"], Rate(), clock) as run,
        DetectClient(access, WAN22_S2V_DETECT) as client,
    ):
        watched = BeatingClient(client, points, Path(job["sends"]), run)
        run.engine = Engine(run.ledger, run.lease, watched, clock, lambda: RATE_PER_S)
        with disable_run_logger():
            await through(run, _looker(Path(job["looks"])), tasks.detect.fn)
            await tasks.verdicts.fn()
            assert not run.stopped, run.stopped
            report = _open(run)
            await tasks.publish.fn(run.folder.path, report)
        run.manifest = run.manifest.model_copy(update={"status": "published"})
        run.folder.write(run.manifest)
        run.folder.clean()


def _looker(looks: Path) -> Stage:
    """A screen that keeps all, and writes down what it looked at."""

    async def look(pictures: pl.DataFrame) -> pl.DataFrame:
        with looks.open("a") as file:
            file.writelines(f"{key}\n" for key in pictures["image_key"])
        await asyncio.sleep(0.002)
        return screened_frame(Screened(key, content_key=content_of(key)) for key in pictures["image_key"])

    return look


def _open(run: Run) -> GateReport:
    """A report of an open gate, written where the gate writes its own."""
    facts = stage6.read_facts(stage6.facts_of(storage.parquet(run.folder.verdicts)).collect())
    report = GateReport(open=True, expectations=(), facts=facts, judged_at=datetime.now(UTC))
    storage.write_json(run.folder.gate, {"open": True, "facts": [asdict(fact) for fact in facts]})
    return report
