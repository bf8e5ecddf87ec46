"""Prefect setup: creates what a server needs beside the deployments, and never changes what exists.

An operator's changes (a lower rate, a paused automation, a pool's limits) are kept.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from s2v_tasks.adapters.prefect.rate_limit_ui import ensure_limit
from s2v_tasks.blocks import BLOCKS
from s2v_tasks.errors import UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import PREFECT_TAG

SILENT_FOR: Final = timedelta(minutes=10)
"""Three heartbeats at Prefect's default of 180 s, and a minute for an unreachable server."""

_OURS: Final = ResourceSpecification.model_validate(
    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{PREFECT_TAG}"}
)
_ANY_RUN: Final = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
_MESSAGE: Final = "{{ flow_run.name }}: {{ flow_run.state.message }} {{ (flow_run|ui_url) or '' }}"


@dataclass(frozen=True, slots=True)
class Item:
    """One object on the server, and whether it was created now."""

    kind: str
    name: str
    made: bool


async def set_up(work_pool: str, alert: str | None = None) -> AsyncIterator[Item]:
    """Create what is missing, and yield each item.

    ``alert``: a stored notification block as ``type/name``, which is notified of runs that fail or crash.

    Raises:
        UsageError: The block does not exist.
    """
    async with get_client() as client:
        notification = await _notification(client, alert) if alert else None
        yield Item("work pool", work_pool, await _make_pool(client, work_pool))
        limit = WAN22_S2V_DETECT.model
        yield Item("concurrency limit", limit, await ensure_limit(client, WAN22_S2V_DETECT))
        for block in BLOCKS:
            yield Item("block type", block.get_block_type_slug(), await _register(client, block))
        for automation in (zombies(), *([notification] if notification else [])):
            yield Item("automation", automation.name, await _make_automation(client, automation))


def zombies(silent_for: timedelta = SILENT_FOR) -> AutomationCore:
    """An automation that ends the runs of killed processes, which would stay Running; they can be retried."""
    ends = ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended", "AwaitingRetry")
    return AutomationCore(
        name="s2v zombie runs",
        description=f"Marks a run without a heartbeat for {silent_for} as crashed. Retry it: it continues.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=_ANY_RUN,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silent_for,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="the run's process ended; retry the run, or repeat the command: it continues",
            )
        ],
    )


async def _notification(client: PrefectClient, block: str) -> AutomationCore:
    """An automation that notifies a block of a failed run and its reason, a closed gate included."""
    slug, _, name = block.partition("/")
    try:
        document = await client.read_block_document_by_name(name, slug)
    except ObjectNotFound:
        raise UsageError(
            f"no block {block!r}. Create one in the Prefect UI, under Blocks, and name it as type/name,"
            " such as slack-webhook/team"
        ) from None
    return AutomationCore(
        name=f"s2v alert to {block}",
        description="A run failed: gate closed, budget exhausted, account refused, outage; or it crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=_ANY_RUN,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=document.id,
                subject="s2v: {{ flow.name }} {{ flow_run.state.name }}",
                body=_MESSAGE,
            )
        ],
    )


async def _make_pool(client: PrefectClient, name: str) -> bool:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return True
    return False


async def _register(client: PrefectClient, block: type[Block]) -> bool:
    """Register the type and its current schema; return whether the type was created."""
    try:
        await client.read_block_type_by_slug(block.get_block_type_slug())
        made = False
    except ObjectNotFound:
        made = True
    await block.aregister_type_and_schema(client=client)
    return made


async def _make_automation(client: PrefectClient, automation: AutomationCore) -> bool:
    if await client.read_automations_by_name(automation.name):
        return False
    await client.create_automation(automation)
    return True
