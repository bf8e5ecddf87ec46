"""One of several processes that draw on one budget: an engine on a shared ledger, perhaps killed."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from pathlib import Path

from crash_child import BriskClock
from crash_points import CrashPoints, WatchedClient
from fork_server import Job
from pydantic import SecretStr

from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.adapters.http.detect_client import DetectClient, service_of
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.ledger import Scope
from s2v_tasks.errors import LedgerUnavailable
from s2v_tasks.models import WAN22_S2V_DETECT, UniqueImage
from s2v_tasks.runtime.engine import Engine
from s2v_tasks.settings import Credentials

BUDGET = "name:shared"
RATE_PER_S = 500.0
BEAT_S = 2.0
STARTS = 3
"""On a busy machine eight processes may wait too long for one lock."""


def run(job: Job) -> None:
    """Do the job; how many images had which outcome goes into the report."""
    logging.disable(logging.WARNING)
    points = CrashPoints(job["step"], job["occurrence"])
    points.watch_ledger()
    for left in reversed(range(STARTS)):
        try:
            counts = asyncio.run(_check(job, points))
            break
        except LedgerUnavailable:  # it says "run the same command again"
            if not left:
                raise
    Path(job["report"]).write_text(" ".join(f"{n} {outcome}" for outcome, n in counts.items()), "utf-8")


async def _check(job: Job, points: CrashPoints) -> Counter[str]:
    clock = BriskClock()
    access = Credentials(job["base_url"], SecretStr("key"))
    scope = Scope(service_of(access.base_url), "default", WAN22_S2V_DETECT)
    async with (
        Ledger(job["ledger"], clock) as ledger,
        DetectClient(access, WAN22_S2V_DETECT) as client,
    ):
        lease = await ledger.open_run(job["run_id"], scope, BUDGET, job["cap"], "retry")
        watched = WatchedClient(client, points, Path(job["sends"]))
        engine = Engine(lease, watched, clock, lambda: RATE_PER_S)
        beating = asyncio.create_task(_beat(lease))
        verdicts = await engine.check_images([UniqueImage(image_key(url), url) for url in job["urls"]])
        await engine.finish()
        beating.cancel()
        if engine.stopped is not None:
            with suppress(LedgerUnavailable):
                await lease.close("stopped")
            raise engine.stopped
        await lease.close("published")
    return Counter(verdict.outcome.value for verdict in verdicts)


async def _beat(lease: RunLedger) -> None:
    """Keep the lease, as a run does: on a busy machine a race may take longer than one lives."""
    while True:
        await asyncio.sleep(BEAT_S)
        await lease.heartbeat()
