"""Curate, then start the stage behind it, only on an open gate, with the path of the published file."""

from inspect import isawaitable
from typing import Annotated, Any

from prefect import Flow, flow, get_client
from prefect.client.schemas.objects import State
from prefect.deployments import arun_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Failed
from s2v_tasks.flows.curate import curate, run_name

from s2v_tasks.errors import S2VError, UsageError
from s2v_tasks.finish import Curated, failed
from s2v_tasks.settings import (
    Budget,
    Candidates,
    Out,
    Output,
    Screening,
    Source,
    Spending,
    Thresholds,
    titled,
)


@flow(name="pipeline", persist_result=False, flow_run_name=run_name)
async def pipeline(
    candidates: Candidates,
    out: Out,
    budget_usd: Budget,
    downstream: Annotated[
        str, titled("Stage behind", min_length=1, examples=["train/nightly", "stages.py:train"])
    ],
    downstream_parameter: Annotated[
        str, titled("Parameter of that stage", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    ] = "path",
    source: Annotated[Source, titled("Rows")] = Source(),
    screening: Annotated[Screening, titled("Screening")] = Screening(),
    thresholds: Annotated[Thresholds, titled("Thresholds")] = Thresholds(),
    spending: Annotated[Spending, titled("Spending")] = Spending(),
    output: Annotated[Output, titled("Output")] = Output(),
) -> State[Any]:
    """Curate, and start the downstream stage only if the gate opened.

    Args:
        candidates: Parquet, CSV or NDJSON: a path, folder, glob, s3://... or hf://...; or sql:SELECT ...
        out: Folder for everything that is written; a path or s3://...
        budget_usd: What this run may spend at most, in USD; a picture costs 0.000574.
        downstream: The stage: a deployment ("flow/deployment") or a flow ("module:flow", "file.py:flow").
        downstream_parameter: The parameter of that stage which takes the path of the published file.
        source: Which rows make the data set.
        screening: The free look before the paid call.
        thresholds: What the data set must keep to be published.
        spending: Whose money and whose pace.
        output: What is written, and how the work is cut.
    """
    try:
        stage = await _stage(downstream)
    except UsageError as error:  # before anything is paid
        return failed(error)
    state: State[Curated] = await curate(
        candidates, out, budget_usd, source, screening, thresholds, spending, output, return_state=True
    )
    if not state.is_completed():
        why = await state.aresult(raise_on_failure=False)
        return failed(why) if isinstance(why, S2VError) else state
    publication = (await state.aresult()).publication
    if publication is None:
        return Completed(message=f"{state.message}; the stage behind is not started")
    return await _start(stage, {downstream_parameter: publication.path})


async def _stage(name: str) -> Flow[..., Any] | str:
    """The flow that ``name`` means, or the deployment's name after making sure that it is there.

    Raises:
        UsageError: There is no such flow or deployment.
    """
    try:
        if ":" in name:
            behind: Flow[..., Any] = load_flow_from_entrypoint(name)
            return behind
        async with get_client() as client:
            await client.read_deployment_by_name(name)
    except Exception as error:  # noqa: BLE001  (whatever importing a file, or asking the server, raises)
        raise UsageError(
            f"no stage {name!r} ({type(error).__name__}); name a flow/deployment, or a flow as module:flow"
        ) from None
    return name


async def _start(stage: Flow[..., Any] | str, parameters: dict[str, Any]) -> State[Any]:
    """Run a flow or a deployment to its end, and return its state."""
    if not isinstance(stage, str):
        came: Any = stage(**parameters, return_state=True)
        state: State[Any] = await came if isawaitable(came) else came
        return state
    run = await arun_deployment(stage, parameters=parameters)
    if run.state is None or not run.state.is_completed():
        return Failed(message=f"the stage behind, {stage}, did not complete: {run.state and run.state.name}")
    return Completed(message=f"published, and {stage} completed")
