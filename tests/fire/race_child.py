"""One of several processes that draw on one budget: an engine on a shared ledger, perhaps killed."""

import asyncio
import logging
from collections import Counter
from pathlib import Path

from crash_child import BriskClock
from crash_points import CrashPoints, WatchedClient
from fork_server import Job
from pydantic import SecretStr

from s2v_tasks.adapters.dashscope import Access, DetectClient, service_of
from s2v_tasks.adapters.database import LedgerDatabase
from s2v_tasks.candidates import image_key
from s2v_tasks.engine import Engine
from s2v_tasks.ledger import Scope
from s2v_tasks.models import WAN22_S2V_DETECT, Candidate

BUDGET = "name:shared"
RATE_PER_S = 500.0


def run(job: Job) -> None:
    """Do the job; how many pictures had which outcome goes into the report."""
    logging.disable(logging.WARNING)
    points = CrashPoints(job["step"], job["occurrence"])
    points.watch_ledger()
    counts = asyncio.run(_judge(job, points))
    Path(job["report"]).write_text(" ".join(f"{n} {outcome}" for outcome, n in counts.items()), "utf-8")


async def _judge(job: Job, points: CrashPoints) -> Counter[str]:
    clock = BriskClock()
    access = Access(job["base_url"], SecretStr("key"))
    scope = Scope(service_of(access.base_url), "default", WAN22_S2V_DETECT)
    async with (
        LedgerDatabase(job["ledger"], clock) as ledger,
        DetectClient(access, WAN22_S2V_DETECT) as client,
    ):
        lease = await ledger.open_run(job["run_id"], scope, BUDGET, job["cap"], "retry")
        watched = WatchedClient(client, points, Path(job["sends"]))
        engine = Engine(ledger, lease, watched, clock, lambda: RATE_PER_S)
        verdicts = await engine.judge([Candidate(image_key(url), url) for url in job["urls"]])
        await engine.finish()
        assert engine.stopped is None, engine.stopped
        await ledger.close_run(lease, "published")
    return Counter(verdict.outcome.value for verdict in verdicts)
