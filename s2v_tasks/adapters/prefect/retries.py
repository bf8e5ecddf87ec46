"""Retries of the current flow run, which Prefect would otherwise start after a final "no", too."""

import contextlib

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException


async def drop_retries() -> None:
    """Have the server take this flow run's next failed state as final, whatever retries it was given.

    They come from ``PREFECT_FLOWS_DEFAULT_RETRIES`` or from ``with_options(retries=...)``. Prefect decides by
    the run's policy on the server, and has no state that says "failed, don't retry" (3.9.1).
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not (run.empirical_policy and run.empirical_policy.retries):
        return
    with contextlib.suppress(PrefectException, httpx.HTTPError):
        async with get_client() as client:
            policy = (await client.read_flow_run(run.id)).empirical_policy
            await client.update_flow_run(run.id, empirical_policy=policy.model_copy(update={"retries": 0}))
