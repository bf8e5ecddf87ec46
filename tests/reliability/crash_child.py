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

import anyio._backends._asyncio  # noqa: F401  (httpx imports it with its first call, in each child again)
import polars as pl
from crash_bench import content_of
from crash_points import CrashPoints, WatchedClient
from fork_server import Job
from prefect.logging import disable_run_logger
from pydantic import SecretStr

from s2v_tasks import tasks
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.http.detect_client import DetectClient
from s2v_tasks.adapters.storage import file_io
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.verdict_table import screened_frame
from s2v_tasks.models import WAN22_S2V_DETECT, GateReport, Screened
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.final_steps import write_page
from s2v_tasks.runtime.finalize import finalize_run
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import plan
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.stages import Stage
from s2v_tasks.settings import Advanced, Credentials, CurateParameters, Screening, Source, Thresholds

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
    """A rate limit that never changes; a low one has images chosen a few at a time."""

    source = "this test"

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s


class BeatingClient(WatchedClient):
    """Renews the lease after each few responses: a run this short would not come to it."""

    run: RunContext

    async def send(self, *call: Any) -> Any:
        response = await super().send(*call)
        if self._points.counts["call:responded"] % BEAT_EVERY == 0:
            await self.run.ledger.heartbeat()
        return response


def run(job: Job) -> None:
    """Do the job, and report how often each step was reached."""
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
        source=Source(segment_column=job["settings"].get("segment_column")),
        screening=Screening(
            dedupe="bytes" if job["copies"] else "url",
            faces=job["settings"].get("faces", "off"),
            allow_private_hosts=True,
        ),
        thresholds=Thresholds(**job["settings"].get("thresholds", {})),
        advanced=Advanced(shard_size=job["shard_size"]),
    )
    credentials = Credentials(job["base_url"], SecretStr("key"))
    planned = plan(parameters, credentials)
    async with DetectClient(credentials, WAN22_S2V_DETECT) as client:
        watched = BeatingClient(client, points, Path(job["sends"]))
        rate = Rate(job["settings"].get("rate_per_s", RATE_PER_S))
        async with open_run(planned, job["run_id"], rate, BriskClock(), client=watched) as run:
            watched.run = run
            with disable_run_logger(), tasks.current_run(run):
                await _stages(run, Path(job["screen_log"]), with_page=job["page"])


async def _stages(run: RunContext, screen_log: Path, *, with_page: bool) -> None:
    screen = _logging_screen(screen_log, with_faces=run.parameters.screening.faces != "off")
    await process_shards(run, screen, tasks.detect.fn)
    await tasks.verdicts.fn()
    assert not run.stopped, run.stopped
    report = _open(run)
    publication = await tasks.publish.fn(run.folder.path, report)
    if with_page:
        await finalize_run(run, report, publication, steps=(write_page,))
        return
    run.state.status = "published"
    run.folder.write(run.manifest.model_copy(update={"status": "published"}))
    run.folder.clean()


def _logging_screen(screen_log: Path, *, with_faces: bool) -> Stage:
    """A screen that logs what it screens; it keeps all, and fetches only for the face check."""

    async def screen(images: pl.DataFrame) -> pl.DataFrame:
        with screen_log.open("a") as file:
            file.writelines(f"{key}\n" for key in images["image_key"])
        if with_faces:
            screened: pl.DataFrame = await tasks.screen.fn(images)
            return screened
        await asyncio.sleep(0.002)
        return screened_frame(Screened(key, content_key=content_of(key)) for key in images["image_key"])

    return screen


def _open(run: RunContext) -> GateReport:
    """A report of an open gate, written where the gate writes its own."""
    facts = gate_rules.read_facts(gate_rules.facts_of(file_io.parquet(run.folder.verdicts)).collect())
    report = GateReport(open=True, expectations=(), facts=facts, checked_at=datetime.now(UTC))
    file_io.write_json(run.folder.gate, {"open": True, "facts": [asdict(fact) for fact in facts]})
    return report
