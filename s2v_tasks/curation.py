"""A curation, opened: estimated, approved, ready for its stages. For `curate`, and for flows of others."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from s2v_tasks.adapters import sources
from s2v_tasks.adapters.allowance import Allowance
from s2v_tasks.adapters.artifacts import reporting, show_estimate
from s2v_tasks.adapters.runners import Elsewhere
from s2v_tasks.addresses import PRIVATE_ALLOWED
from s2v_tasks.approval import approved
from s2v_tasks.blocks import stored_access, stored_ledger
from s2v_tasks.errors import InputError
from s2v_tasks.estimate import headline
from s2v_tasks.finish import begun
from s2v_tasks.looking import Look
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.plan import plan
from s2v_tasks.runs import Run, former_parts, open_run
from s2v_tasks.settings import CurateParameters, Screening
from s2v_tasks.survey import survey
from s2v_tasks.tasks import screen


@asynccontextmanager
async def open_curation(parameters: CurateParameters, run_id: str | None = None) -> AsyncIterator[Run]:
    """Open a curation run, new or left behind, inside a flow; the tasks called in the block work for it.

    First its cost is estimated and shown; if that is over ``spending.approve_above_usd`` the flow run pauses
    for a person's yes. ``run_id`` None: the flow run's own id, so that a retry of it is the same run; two
    curations in one flow need ids of their own.

    Raises:
        UsageError: The input can't be used, or the run is finished, different or in other hands.
        NotApproved: The run was too dear, and nobody said yes.
    """
    spending = parameters.spending
    if parameters.screening.enabled and parameters.screening.allow_private_hosts:
        get_run_logger().warning(PRIVATE_ALLOWED)
    access, ledger = await stored_access(spending.credentials), await stored_ledger(spending.ledger_block)
    planned = plan(parameters, access, ledger)
    run_id = run_id or str(flow_run.id)
    async with Allowance(WAN22_S2V_DETECT) as allowance:
        found = await survey(planned, allowance.rate_per_s, former_parts(planned, run_id))
        estimate, seen = found.estimate, [*found.seen, *found.known]
        get_run_logger().info("%s", headline(estimate))
        await show_estimate(estimate)
        before = sources.fingerprint(planned.files)
        granted = await approved(parameters, estimate)
        with sources.reading(parameters.candidates):
            if sources.fingerprint(planned.files) != before:  # what was approved is what is paid for
                raise InputError(f"{parameters.candidates} changed while the run waited; start it again")
        # The run stays the one that was asked for, whatever part of its budget is granted.
        granted_plan = replace(planned, parameters=granted)
        async with (
            _elsewhere(parameters.screening) as looking,
            open_run(granted_plan, run_id, allowance, seen=seen, looking=looking) as run,
            reporting(run),
        ):
            begun(run)
            await run.looking.remember(found.seen, found.seen_at)
            yield run


def _elsewhere(screening: Screening) -> AbstractAsyncContextManager[Look | None]:
    """What looks at pictures in a task runner; None: in the flow's own event loop."""
    if screening.runner == "loop":
        return nullcontext()
    return Elsewhere(screening.runner, screen.with_options(name="look"), screening=screening)
