"""Move the pointer back to an earlier publication; what was published after it is withdrawn."""

import asyncio
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from s2v_tasks.adapters.prefect import events
from s2v_tasks.adapters.storage.file_io import parse_path
from s2v_tasks.adapters.storage.rollback import Rollback, roll_back
from s2v_tasks.adapters.storage.run_folder import RunFolder
from s2v_tasks.errors import S2VError
from s2v_tasks.runtime.finalize import failed_state
from s2v_tasks.settings.fields import described


@flow(name="rollback", persist_result=False, retries=0, flow_run_name="{out} to {run_id}")
async def rollback(
    out: Annotated[
        str, described("Output folder", "Where the runs write.", min_length=1, examples=["/data/curated"])
    ],
    run_id: Annotated[
        str,
        described("Run", "The run to publish again.", min_length=1, examples=["20261001T020000Z-a1b2c3"]),
    ],
) -> State[Any]:
    """Move the pointer back to an earlier publication; all after it are withdrawn. Emits no publication.

    Args:
        out: The output folder, a path or an object store URL.
        run_id: The run to publish again; `s2v publications` lists them.
    """
    try:
        path = parse_path(out)
        done = await asyncio.to_thread(roll_back, path, run_id)
        message = message_of(done)
        if done.moved or done.withdrawn:
            publication = done.publication
            payload = events.Payload(
                run_id=run_id,
                out=str(path),
                run_dir=str(RunFolder(path, run_id).path),
                message=message,
                rows=publication.rows,
                path=publication.path,
                pass_rate=publication.gate.pass_rate,
                run_cost_usd=publication.run_cost_usd,
                dataset_cost_usd=publication.dataset_cost_usd,
            )
            events.emit("s2v.dataset.rolled_back", payload)
        return Completed(message=message, data=done)
    except S2VError as error:
        return await failed_state(error)


def message_of(done: Rollback) -> str:
    """What was done, in a sentence."""
    run_id = done.publication.run_id
    if not done.moved and not done.withdrawn:
        return f"run {run_id} is published already; nothing was changed"
    runs = list(dict.fromkeys(one.run_id for one in done.withdrawn))
    named = f"withdrawn: {', '.join(runs)}" if runs else "those after it were withdrawn already"
    return f"run {run_id} is published again; {named}"
