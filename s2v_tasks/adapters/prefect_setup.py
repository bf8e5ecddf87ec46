"""What a Prefect server needs beside the deployments: made if missing, never changed if there.

An operator's own hand on any of it (a lower rate, a paused automation, a pool's limits) stays as it is.
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

from s2v_tasks.adapters.allowance import ensure_limit
from s2v_tasks.blocks import BLOCKS
from s2v_tasks.errors import UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import PREFECT_TAG

SILENT_FOR: Final = timedelta(minutes=10)
"""Three heartbeats at Prefect's default of 180 s, and a minute for a server that was away."""

_OURS: Final = ResourceSpecification.model_validate(
    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{PREFECT_TAG}"}
)
_ANY_RUN: Final = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
_MESSAGE: Final = "{{ flow_run.name }}: {{ flow_run.state.message }} {{ (flow_run|ui_url) or '' }}"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on the server, and whether it was made now."""

    kind: str
    name: str
    made: bool


async def set_up(work_pool: str, alert: str | None = None) -> AsyncIterator[Item]:
    """Make what is missing, and tell of each item.

    ``alert``: a stored notification block as ``type/name``; runs that fail or crash are told to it.

    Raises:
        UsageError: There is no such block.
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
    """Ends the runs of killed processes, which would stay Running for ever; the same run can be retried."""
    ends = ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended", "AwaitingRetry")
    return AutomationCore(
        name="s2v zombie runs",
        description=f"A run not heard of for {silent_for} is marked crashed. Retry it: it continues.",
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
                message="its process is gone; retry the run, or repeat the command: it continues",
            )
        ],
    )


async def _notification(client: PrefectClient, block: str) -> AutomationCore:
    """Tells a notification block why a run failed; a closed gate is such a run."""
    slug, _, name = block.partition("/")
    try:
        document = await client.read_block_document_by_name(name, slug)
    except ObjectNotFound:
        raise UsageError(
            f"no block {block!r}; make one on Prefect's Blocks page and name it as type/name,"
            " such as slack-webhook/team"
        ) from None
    return AutomationCore(
        name=f"s2v alert to {block}",
        description="A run failed: gate closed, budget spent, account refused, outage; or it crashed.",
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
    """Whether the type was made; its schema is brought up to date in any case."""
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
